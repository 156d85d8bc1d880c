"""Runs to fit a law to, read straight from the ledgers of `hearth run`; what was measured differently is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from openhearth.errors import HearthError
from openhearth.plan.runs_table import BITS, DIFFERENT_TOKENIZERS, RunsTable, duplicates


def read_ledgers(folders: Sequence[Path]) -> RunsTable:
    """The runs in folders of `hearth run`, each by its ledger: the base model's held-out bits per byte after pretraining.

    Parameters are those in matrix products, tokens those of pretraining. A run without an evaluation is left out and named. Raises
    HearthError when runs were measured on different held-out text.
    """
    from openhearth import run_folder
    from openhearth.ledger import Ledger
    from openhearth.model.config import ModelConfig
    from openhearth.record import plan_of
    from openhearth.runner import latest_stages

    found: list[tuple[str, float, float, float, float, float]] = []
    texts: dict[tuple[str, int, int | None], str] = {}
    tokenizers: set[str] = set()
    notes: list[str] = []
    for folder in folders:
        if not (folder / run_folder.LEDGER).is_file():
            raise HearthError(f"{folder}: not the folder of a run (it has no {run_folder.LEDGER}), nor a table")
        latest = latest_stages(Ledger(folder / run_folder.LEDGER).run_entries())
        plan = plan_of(folder, latest)
        judged = latest.get("evaluate") or latest.get("measure")
        if judged is None or not {"tokenizer", "pretrain"} <= set(latest) or "model" not in plan:
            notes.append(f"{folder}: not evaluated yet; left out")
            continue
        trained = latest["pretrain"]["facts"]
        text = (judged["inputs"]["corpus"], judged["facts"]["bytes"], judged["config"]["seed"])
        texts.setdefault(text, str(folder))
        if len(texts) > 1:
            one, other = texts.values()
            raise HearthError(
                f"{other}: measured on other held-out text than {one}, so their losses are not one law's data; "
                "give both runs the same corpus, seed and evaluate.heldout_bytes"
            )
        tokenizers.add(judged["inputs"]["tokenizer"])
        found.append(
            (
                str(folder), ModelConfig.model_validate(plan["model"]).matmul_parameters, trained["tokens"],
                judged["facts"]["bits_per_byte"]["base"], trained["flops"],
                min(latest["tokenizer"]["facts"]["train_tokens"], trained["tokens"]),
            )
        )  # fmt: skip
    if not found:
        raise HearthError(f"{folders[0]}: no run that is pretrained and evaluated; run `hearth run` to its end first")
    if len(tokenizers) > 1:
        notes.append(DIFFERENT_TOKENIZERS)
    names, parameters, tokens, loss, flops, unique = (list(column) for column in zip(*found, strict=True))
    table = RunsTable("ledgers", parameters, tokens, loss, flops, unique, None, names, BITS)
    columns = {
        "parameters": "parameters in matrix products, from the plan", "tokens": "tokens of pretraining",
        "loss": "bits per byte of the base model", "flops": "FLOPs of pretraining", "unique_tokens": "tokens of the training text",
    }  # fmt: skip
    return replace(table, columns=columns, notes=(*notes, *duplicates(names, parameters, tokens, loss, unique)))
