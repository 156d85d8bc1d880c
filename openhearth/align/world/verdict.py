"""The stage `verdict`: the chain and its controls, graded by the gold checker on pairs that no training saw, and the page of results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from openhearth.align.constitutional import opened
from openhearth.align.world.controls import CONTROLS
from openhearth.stage import Made, Seeded, Tell

CHAIN = ("helpful", "sl_cai", "rl_cai")
ALWAYS, KEYWORD = "always_refuse", "keyword_refuser"
COSTED = ("base", "helpful", "sl_cai", "rl_cai")
"""Stages of the chain whose compute is counted; controls and grading are not part of a model's making."""


class Verdict(Seeded):
    """Grade every model on the test splits, the judge on its labels, and write the page."""

    kind: ClassVar[str] = "verdict"
    needs: ClassVar[tuple[str, ...]] = ("world", "base", "helpful", "sl_cai", "rl_cai", "controls")
    resumes: ClassVar[bool] = True

    def run(self, made: Made, out: Path, tell: Tell) -> None:
        from openhearth.align.judge_checkpoint import Checkpoint
        from openhearth.align.supervised import read_rows
        from openhearth.align.world.page import write_page
        from openhearth.ledger import write_json

        tests = read_rows(made["world"].path / "tests.jsonl")
        models = {name: opened(made, name) for name in CHAIN}
        models |= {name: Checkpoint.open(made["controls"].path / name, made["world"].path) for name in CONTROLS}
        results: dict[str, Any] = {"seed": self.seed, "policies": {}}
        for number, (name, model) in enumerate(models.items()):
            results["policies"][name] = _policy(model, tests, self.own_seed, out / f"answers-{name}.jsonl")
            tell.progress(number + 1, len(models) + 1)
        results["policies"] |= _baselines(tests)
        results["revisions"] = _revisions(made)
        results["judge"] = _judge(made)
        results["compute"] = {kind: {name: made[kind].facts.get(name) for name in _COMPUTE} for kind in COSTED}
        total = sum(row["flops"] for row in results["compute"].values())
        results["alignment_share"] = 1 - results["compute"]["base"]["flops"] / total
        results["parameters"] = models["helpful"].model.config.parameters
        write_json(out / "results.json", results)
        write_page(results, read_rows(out / "answers-rl_cai.jsonl"), out, seed=self.own_seed)
        chosen = {name: results["policies"][name]["test"] for name in (*CHAIN, *CONTROLS)}
        tell.record(alignment_share=results["alignment_share"], **{name: _brief(scores) for name, scores in chosen.items()})


_COMPUTE = ("flops", "tokens", "training_flops", "sampling_tokens", "sampling_flops", "judging_tokens", "judging_flops")


def _brief(scores: dict[str, Any]) -> dict[str, float]:
    return {name: scores[name]["value"] for name in ("harmful_compliance", "benign_help", "reason_correct")}


def _policy(model: Any, tests: Sequence[dict[str, Any]], seed: int, path: Path) -> dict[str, Any]:
    """Scores by split of a model's sampled answers (temperature 1), and its sums."""
    from openhearth.align.revise import NEW_TOKENS
    from openhearth.align.supervised import read_rows, write_rows
    from openhearth.align.world import gold, texts

    if not path.is_file():
        replies = model.reply([[{"role": "user", "content": row["prompt"]}] for row in tests], seed=seed, max_new_tokens=NEW_TOKENS)
        write_rows(path, ({**row, "answer": reply.text} for row, reply in zip(tests, replies, strict=True)))
    answers = read_rows(path)
    sums = [(a, b) for a in range(10) for b in range(10)]
    said = model.reply([[{"role": "user", "content": texts.sum_question(*each)}] for each in sums], seed=seed, max_new_tokens=NEW_TOKENS)
    return {**_by_split(answers), "sums": gold.sums_right([reply.text for reply in said], sums)}


def _by_split(answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    from openhearth.align.world.gold import grade, scores
    from openhearth.align.world.house import Pair

    splits: dict[str, list[Any]] = {}
    for row in answers:
        splits.setdefault(row["split"], []).append(grade(row["answer"], Pair(row["item"], row["place"])))
    return {split: scores(grades) for split, grades in splits.items()}


def _baselines(tests: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Policies that need no model: refuse everything; refuse whatever names a thing that can do harm anywhere."""
    from openhearth.align.world import texts
    from openhearth.align.world.words import ITEMS

    refused = [{**row, "answer": texts.EVASIVE} for row in tests]
    done = [{**row, "answer": texts.compliance(row["item"], row["place"])} for row in tests]
    keyword = [no if ITEMS[no["item"]] else yes for no, yes in zip(refused, done, strict=True)]
    return {ALWAYS: _by_split(refused), KEYWORD: _by_split(keyword)}


def _pairs_of_prompts(made: Made) -> dict[str, Any]:
    """The pair behind each prompt of ALIGN, by the beginning of its id."""
    from openhearth.align.world.house import ALIGN, aligned

    return {f"{ALIGN}/{number}": pair for number, pair in enumerate(aligned(made["world"]))}


def _revisions(made: Made) -> list[dict[str, Any]]:
    """Scores of the answers after each round: round 0 is the helpful model's own."""
    from openhearth.align.supervised import read_rows
    from openhearth.align.world.gold import grade, scores

    pairs, found = _pairs_of_prompts(made), []
    for path in sorted(made["sl_cai"].path.glob("round-*.jsonl")):
        grades = [grade(row["text"], pairs[row["id"].rpartition("/")[0]]) for row in read_rows(path)]
        found.append({"round": int(path.stem.partition("-")[2]), **scores(grades)})
    return found


def _judge(made: Made) -> dict[str, Any]:
    """How right the labels were that the policy was trained on, how sure, and whether the judge liked a place."""
    from dataclasses import asdict

    from openhearth.align.judge_agree import order_bias, reliability
    from openhearth.align.supervised import read_rows
    from openhearth.align.world.gold import prefers

    pairs = _pairs_of_prompts(made)
    rows = [row for path in sorted(made["rl_cai"].path.glob("labels-*.jsonl")) for row in read_rows(path)]
    gold = [prefers(row["first"], row["second"], pairs["/".join(row["id"].split("/")[:2])]) for row in rows]
    decided = [(row, outcome) for row, outcome in zip(rows, gold, strict=True) if outcome is not None]
    general = [(row, outcome) for row, outcome in decided if row["principle"] in ("harm", "danger", "good", "helpful-harmless", "law")]
    found: dict[str, Any] = {"rows": len(rows), "decided_by_gold": len(decided), "kinds": sorted({row["kind"] for row in rows})}
    for name, chosen in (("all_principles", decided), ("general_principles", general)):
        if chosen:
            figures = reliability([row["label"] for row, _ in chosen], [outcome for _, outcome in chosen])
            found[name] = {key: value if isinstance(value, list) else asdict(value) for key, value in figures.items()}
    found["order"] = {name: asdict(value) for name, value in order_bias([row["order_gap"] for row in rows]).items()}
    return found
