"""What is known of a run, read from its ledger and its artifacts as plain values: the one source of the report and of all tables.

Works on the folder of a run and, as far as the files are there, on a release, which holds the ledger too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from openhearth import run_folder
from openhearth.energy import total_energy
from openhearth.errors import DamagedError, HearthError
from openhearth.ledger import Json, Ledger, read_json
from openhearth.runner import latest_stages


def ledger_facts(folder: Path) -> Json:
    """A run as a table of its stages in order, with totals. Raises HearthError when there is no ledger, or a damaged one."""
    path = folder / run_folder.LEDGER
    entries = Ledger(path).run_entries()
    try:
        return _facts(folder, entries)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DamagedError(f"{path}: an entry lacks {error}; it was not written by this version of hearth") from None


def _facts(folder: Path, entries: Sequence[Json]) -> Json:
    begun = [entry for entry in entries if entry["event"] == "run"]
    if not begun:
        raise HearthError(f"{folder}: nothing is made here yet")
    recipe = begun[-1]["recipe"]
    latest = latest_stages(entries)
    kinds = [kind for kind in begun[-1]["stages"] if kind in latest]
    foreseen = plan_of(folder, latest).get("predicted", {})
    predicted = foreseen.get("seconds", {})
    whole = kinds == begun[-1]["stages"]
    total = sum(latest[kind]["seconds"] for kind in kinds)
    stages = [_stage(latest[kind], predicted.get(kind), total) for kind in kinds]
    return {
        "run": recipe["name"],
        "folder": str(folder),
        "state": state(folder, entries),
        "date": begun[-1]["date"],
        "budget": recipe["budget"],
        "recipe_digest": begun[-1]["recipe_digest"],
        "environment": begun[-1]["environment"],
        "stages": stages,
        "total": {
            "seconds": round(total, 3),
            "predicted_seconds": predicted.get("total") if whole else None,
            "tokens": _sum(stages, "tokens"),
            "flops": _sum(stages, "flops"),
            "energy": total_energy([latest[kind] for kind in kinds]),
            "predicted_energy": foreseen.get("energy") if whole else None,
        },
        "bits_per_byte": {
            "predicted": foreseen.get("bits_per_byte"),
            "measured": ((latest.get("evaluate") or {}).get("facts", {}).get("bits_per_byte") or {}).get("base"),
        },
    }


def _stage(entry: Json, predicted: float | None, total: float) -> Json:
    facts = entry["facts"]
    return {
        "stage": entry["stage"],
        "inputs": entry["inputs"],
        "digest": entry["digest"],
        "key": entry["key"],
        "code": entry["code"],
        "folder": entry["folder"],
        "seconds": entry["seconds"],
        "predicted_seconds": predicted,
        "share": entry["seconds"] / total if total else 0.0,
        "resumed": entry["resumed"],
        "tokens": facts.get("tokens"),
        "flops": facts.get("flops"),
        "facts": facts,
        "measured": entry["measured"],
    }


def _sum(stages: Sequence[Json], name: str) -> int | None:
    values = [stage[name] for stage in stages if isinstance(stage[name], int | float)]
    return sum(values) if values else None


def state(folder: Path, entries: Sequence[Json]) -> str:
    """'done', 'running', 'made up to STAGE' (--until) or 'stopped in STAGE'."""
    if run_folder.in_use(folder):
        return "running"
    if entries and entries[-1]["event"] == "done":
        return "done"
    begun = max((place for place, entry in enumerate(entries) if entry["event"] == "run"), default=None)
    if begun is None:
        return "not begun"
    run = entries[begun]
    kinds = run["stages"]
    until = run["until"] or kinds[-1]
    since = latest_stages(entries[begun:])
    open_ = [kind for kind in kinds[kinds.index(run["first"]) : kinds.index(until) + 1] if kind not in since]
    return f"stopped in {open_[0]}" if open_ else f"made up to {until}"


def file_of(folder: Path, entry: Json | None, name: str) -> Path | None:
    """A file of a stage's artifact, in a run or where a release keeps it; None when it is not there."""
    if entry is None:
        return None
    released = (folder / "training" / entry["stage"] / name, *(folder / part / name for part in ("evaluations", "data", ".")))
    places = (folder / entry["folder"] / name, *released)
    return next((path for path in places if path.is_file()), None)


def plan_of(folder: Path, latest: dict[str, Json]) -> Json:
    """The plan that the run followed, or {}."""
    path = file_of(folder, latest.get("plan"), "plan.json")
    plan: Json = read_json(path) if path is not None else {}
    return plan


def report_facts(folder: Path) -> Json:
    """The ledger's facts, and with them the model, the evaluation, samples and where the release lies, as far as they exist."""
    facts = ledger_facts(folder)
    latest = latest_stages(Ledger(folder / run_folder.LEDGER).run_entries())
    shown = {stage["stage"]: latest[stage["stage"]] for stage in facts["stages"]}
    plan = plan_of(folder, shown)
    evaluation = file_of(folder, shown.get("evaluate"), "evaluation.json")
    release = folder / run_folder.MODEL
    return {
        **facts,
        "plan": {name: plan.get(name) for name in ("model", "why", "predicted")} if plan else None,
        "parameters": (shown.get("pretrain") or shown.get("continue") or {}).get("facts", {}).get("parameters"),
        "losses": {kind: losses(folder, shown[kind]) for kind in ("pretrain", "continue", "sft") if kind in shown},
        "evaluation": read_json(evaluation) if evaluation is not None else None,
        "forgetting": _forgetting(folder, shown),
        "release": str(release) if "release" in shown and release.exists() else None,
        "root": (shown.get("release") or {}).get("facts", {}).get("root"),
    }


def _forgetting(folder: Path, shown: dict[str, Json]) -> Json | None:
    """What continued training did to the old and the new text, without the figures of every document; None where nothing was continued."""
    path = file_of(folder, shown.get("forgetting"), "forgetting.json")
    return None if path is None else {name: value for name, value in read_json(path).items() if name != "texts"}


def drops(folder: Path) -> list[Json]:
    """What the corpus left out: uri, rule, value, threshold. Raises HearthError before there is a corpus."""
    from openhearth.data.documents import read_drops

    path = file_of(folder, latest_stages(Ledger(folder / run_folder.LEDGER).run_entries()).get("corpus"), "drops.parquet")
    if path is None:
        raise HearthError(f"{folder}: there is no corpus here yet, so nothing that it left out; go on with: hearth run")
    return read_drops(path)


def losses(folder: Path, entry: Json) -> list[tuple[int, float]]:
    """(tokens, nats per token) of every step of a training stage whose loss was finite, from its `steps.jsonl`."""
    return [(row["tokens"], row["loss"]) for row in json_lines(file_of(folder, entry, "steps.jsonl")) if row["loss"] is not None]


def json_lines(path: Path | None) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file of ours; none when there is no file."""
    return [] if path is None else [json.loads(line) for line in path.read_text().splitlines() if line]


def find_runs(folder: Path) -> list[Json]:
    """Every run in a folder, the newest first; one that cannot be read is listed as such, with the reason."""
    if not folder.is_dir():
        if folder == run_folder.RUNS or not folder.exists():
            return []
        raise HearthError(f"{folder}: not a folder; give the one that holds the runs")
    found = []
    for path in sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink() and run_folder.is_run(path)):
        row: Json = {"name": path.name, "folder": str(path), "state": "", "budget": None, "date": "", "seconds": None}
        row |= {"parameters": None, "bits_per_byte": None}
        try:
            facts = report_facts(path)
            row |= {name: facts[name] for name in ("state", "budget", "date", "parameters")} | {"seconds": facts["total"]["seconds"]}
            if facts["evaluation"] is not None:
                row["bits_per_byte"] = facts["evaluation"]["bits_per_byte"].get("sft", {}).get("value")
        except HearthError as error:
            begun = (path / run_folder.LEDGER).exists()
            row |= {"state": "not readable", "reason": str(error)} if begun else {"state": "not begun"}
        found.append(row)
    return sorted(found, key=lambda row: row["date"], reverse=True)
