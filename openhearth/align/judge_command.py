"""`hearth judge agree`: from names on the command line to two judges, from a file to pairs, and from their labels to a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from openhearth.align.constitution import Constitution, drawn
from openhearth.align.constitution_check import require_valid
from openhearth.align.constitution_files import load
from openhearth.align.judge import Backend, Pair, label_pairs
from openhearth.align.judge_agree import agreement, order_bias, reliability
from openhearth.align.judge_endpoint import Endpoint, Price
from openhearth.errors import HearthError
from openhearth.evaluate.statistics import Estimate
from openhearth.inputs import read_small

MAX_BYTES = 200_000_000
ENDPOINT_FORM = "https://HOST/v1#MODEL"


@dataclass(frozen=True)
class Asked:
    """What the options say of endpoints."""

    price: Price
    budget: float | None
    cache: Path


def open_judge(name: str, asked: Asked) -> Backend:
    """The judge with a name: an address with '#MODEL', the folder of a run or release of ours, or a Hugging Face folder."""
    if name.startswith(("http://", "https://")):
        address, hash_, model = name.partition("#")
        if not hash_ or not model:
            raise HearthError(f"{name}: which model? write the endpoint as {ENDPOINT_FORM}")
        return Endpoint(address, model, asked.cache, price=asked.price, budget=asked.budget)
    folder = Path(name)
    if not folder.is_dir():
        raise HearthError(f"{name}: no such folder; a judge is a run, a release, a Hugging Face folder, or {ENDPOINT_FORM}")
    if not (folder / "ledger.jsonl").is_file() and (folder / "config.json").is_file():
        from openhearth.align.judge_hf import HuggingFace

        return HuggingFace(folder)
    from openhearth.align.judge_checkpoint import Checkpoint
    from openhearth.serve.loading import open_release

    opened = open_release(folder)
    return Checkpoint(opened.model, opened.tokenizer, opened.root)


def tests_of(constitution: Constitution, seed: int) -> tuple[list[Pair], list[float], list[str]]:
    """The tests of all principles as pairs, the better answer first or second by a keyed hash; the outcomes; the principles."""
    pairs, outcomes, principles = [], [], []
    for principle in constitution.principles:
        for number, test in enumerate(principle.tests):
            first = drawn(constitution.principles, seed, "side", principle.id, number) in constitution.principles[::2]
            a, b = (test.better, test.worse) if first else (test.worse, test.better)
            turn = ({"role": "user", "content": test.prompt},)
            pairs.append(Pair(f"{principle.id}/{number}", "tests", turn, a, b, "written"))
            outcomes.append(float(first))
            principles.append(principle.id)
    return pairs, outcomes, principles


def read_pairs(path: Path) -> tuple[list[Pair], list[float | None]]:
    """Rows {"prompt", "first", "second"} or {"prompt", "chosen", "rejected"}, with "label" in [0, 1] where it is known; else None.

    Raises HearthError naming file, line and key.
    """
    pairs: list[Pair] = []
    outcomes: list[float | None] = []
    lines = read_small(path, limit=MAX_BYTES, what="file of pairs", suffix=".jsonl").splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise HearthError(f"{where}: not JSON; write one object a line") from None
        names = ("chosen", "rejected") if isinstance(row, dict) and "chosen" in row else ("first", "second")
        if not isinstance(row, dict) or not all(isinstance(row.get(name), str) and row[name].strip() for name in ("prompt", *names)):
            raise HearthError(f"{where}: needs the texts prompt, {names[0]} and {names[1]}, none of them empty")
        if row[names[0]] == row[names[1]]:
            raise HearthError(f"{where}: {names[0]} and {names[1]} are the same text; there is nothing to choose")
        label = 1.0 if names[0] == "chosen" else row.get("label")
        if label is not None and (isinstance(label, bool) or not isinstance(label, int | float) or not 0 <= label <= 1):
            raise HearthError(f"{where}: label is {label!r}; it is the probability that the first is better, a number in [0, 1]")
        turn = ({"role": "user", "content": row["prompt"]},)
        pairs.append(Pair(str(row.get("id", number)), str(row.get("split", "")), turn, row[names[0]], row[names[1]], ""))
        outcomes.append(None if label is None else float(label))
    if not pairs:
        raise HearthError(f"{path}: holds no pairs; write one object a line")
    return pairs, outcomes


def agree(judges: Sequence[str], book: str, pairs: Path | None, *, seed: int, asked: Asked) -> dict[str, Any]:
    """Each judge's labels of the same pairs under the same principles, held against known answers and against each other."""
    constitution = load(book)
    require_valid(constitution, book)
    outcomes: Sequence[float | None]
    rows, outcomes, principles = tests_of(constitution, seed) if pairs is None else (*read_pairs(pairs), None)
    if not rows:
        raise HearthError(f"{book}: none of its principles has tests; name pairs with --pairs FILE")
    facts: dict[str, Any] = {"constitution": constitution.name, "digest": constitution.digest, "rows": len(rows), "judges": []}
    labelled = []
    for name in judges:
        judge = open_judge(name, asked)
        if principles is None:
            labels = label_pairs(judge, constitution, rows, seed=seed)
        else:  # a test is put under the principle that it belongs to
            labels = [
                label
                for each in dict.fromkeys(principles)
                for label in label_pairs(
                    judge, constitution, [row for row, own in zip(rows, principles, strict=True) if own == each], seed=seed, principle=each
                )
            ]
        values = [label.label for label in labels]
        known = [(value, outcome) for value, outcome in zip(values, outcomes, strict=True) if outcome is not None]
        facts["judges"].append(
            {
                "name": name,
                "judge": judge.identity,
                "kinds": sorted({label.kind for label in labels}),
                "undecided": sum(value is None for value in values),
                "tokens": sum(label.tokens for label in labels),
                "cost": sum(label.cost for label in labels),
                "order": order_bias([label.order_gap for label in labels]),
                "known": reliability([value for value, _ in known], [outcome for _, outcome in known]) if known else None,
            }
        )
        labelled.append(values)
    if len(labelled) == 2:
        facts["agreement"] = agreement(*labelled)
    return facts


def agree_command(
    judges: Sequence[str], book: str, pairs: Path | None, *, seed: int, price: Price, budget: float | None, cache: Path, json_: bool
) -> int:
    """Print what `agree` finds."""
    facts = agree(judges, book, pairs, seed=seed, asked=Asked(price, budget, cache))
    if json_:
        from openhearth.commands import print_json

        print_json(json.loads(json.dumps(facts, default=asdict)))
        return 0
    print(f"{facts['rows']} pairs under {facts['constitution']}, each in both orders")
    for judge in facts["judges"]:
        cost = f", ${judge['cost']:.4f}" if judge["cost"] else ""
        print(f"\n{judge['name']}  ({judge['judge'][:60]}; {'/'.join(judge['kinds'])}; {judge['tokens']:,} tokens{cost})")
        if judge["known"]:
            print(f"  right                   {_share(judge['known']['accuracy'])}")
            print(f"  calibration error       {_number(judge['known']['calibration_error'])}   (0: as sure as right)")
            print(f"  Brier score             {_number(judge['known']['brier'])}   (0.25: always unsure)")
        print(f"  liking for first place  {_number(judge['order']['gap'])}   (0: none)")
        if judge["undecided"]:
            print(f"  named neither           {judge['undecided']} of {facts['rows']}")
    if "agreement" in facts:
        print(f"\nagree                     {_share(facts['agreement']['agree'])}")
        print(f"beyond chance (kappa)     {_number(facts['agreement']['kappa'])}")
    print("\nRanges are 95 % intervals over pairs.")
    return 0


def _share(estimate: Estimate) -> str:
    return f"{estimate.value:.1%}  {estimate.low:.1%} to {estimate.high:.1%}"


def _number(estimate: Estimate) -> str:
    return f"{estimate.value:+.3f}  {estimate.low:+.3f} to {estimate.high:+.3f}"
