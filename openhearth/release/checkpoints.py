"""States of pretraining inside a release, so that others can audit a part of it: made by training again, and only kept when that ends
in the recorded weights."""

from __future__ import annotations

import itertools
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from openhearth.errors import DamagedError, HearthError
from openhearth.ledger import Json, write_json

FOLDER, INDEX = "checkpoints", "checkpoints/index.json"
FORMAT = "openhearth-checkpoints/1"


def add_checkpoints(base: Path, release: Path, count: int, note: Callable[[str], None]) -> None:
    """Train the release in `base` again and write `count` evenly spread states, the last at the end, into `release`.

    Raises HearthError when this machine does not come to the recorded weights: then its states would prove nothing.
    """
    from openhearth.release.segments import Replay, leaf_hash, merkle_root, recorded_end

    place = Path(tempfile.mkdtemp(prefix=".hearth-checkpoints-", dir=release.parent))
    try:
        replay = Replay(base, place)
        if count > replay.steps:
            raise HearthError(f"--checkpoints {count}: pretraining has only {replay.steps:,} steps")
        note(f"training again, {replay.steps:,} steps, to have {count} checkpoints")
        (release / FOLDER).mkdir()
        trainer, history = replay.start()
        leaves: list[Json] = []
        for number in range(1, count + 1):
            began, before = time.monotonic(), history.steps
            replay.advance(trainer, history, round(number * replay.steps / count))
            state = replay.state(trainer, history)
            tensors, values = state.save(release / FOLDER)
            leaves.append({"step": state.step, "state": state.digest(), "tensors": tensors, "values": values})
            left = (time.monotonic() - began) / max(1, state.step - before) * (replay.steps - state.step)
            note(f"checkpoint {number} of {count}, after {state.step:,} steps; {left:,.0f} s left")
        if trainer.tensor_digests() != recorded_end(base, "pretrain"):
            raise HearthError(
                "this machine does not come to the recorded weights, so its checkpoints prove nothing; `hearth rebuild` says what differs"
            )
        root = merkle_root([leaf_hash(number, leaf["step"], leaf["state"]) for number, leaf in enumerate(leaves)])
        write_json(release / INDEX, {"format": FORMAT, "root": root, "leaves": leaves})
    finally:
        shutil.rmtree(place, ignore_errors=True)


def check_index(content: Any) -> list[Json]:
    """The leaves of an index; raises DamagedError unless steps rise, files are named after them, and the root is that of the leaves."""
    from openhearth.release.segments import leaf_hash, merkle_root

    try:
        leaves: list[Json] = content["leaves"]
        steps = [leaf["step"] for leaf in leaves]
        fine = content["format"] == FORMAT and set(content) == {"format", "root", "leaves"} and bool(leaves)
        fine &= all(type(step) is int and step > 0 for step in steps) and all(a < b for a, b in itertools.pairwise(steps))
        fine &= all(
            leaf == {**leaf, "tensors": f"step-{leaf['step']:08d}.safetensors", "values": f"step-{leaf['step']:08d}.json"}
            for leaf in leaves
        )
        fine &= merkle_root([leaf_hash(number, leaf["step"], leaf["state"]) for number, leaf in enumerate(leaves)]) == content["root"]
    except (KeyError, TypeError, ValueError):
        fine, leaves = False, []
    if not fine:
        raise DamagedError(f"{INDEX}: not an index of checkpoints, or its root is not that of its leaves")
    return leaves


def check_states(release: Path, content: Any) -> str:
    """Every state has the digest that its leaf states, and no other file lies there; gives the finding, raises DamagedError."""
    from openhearth.release.segments import read_state

    leaves = check_index(content)
    folder = release / FOLDER
    named = {name for leaf in leaves for name in (leaf["tensors"], leaf["values"])}
    if extra := sorted({path.name for path in folder.iterdir()} - named - {Path(INDEX).name}):
        raise DamagedError(f"{FOLDER}/{extra[0]}: not one of the checkpoints that {INDEX} names")
    for leaf in leaves:
        if read_state(folder, leaf).digest() != leaf["state"]:
            raise DamagedError(f"{FOLDER}/{leaf['tensors']}: not the state whose digest {INDEX} states")
    return f"{len(leaves)} checkpoints, each with the digest of its leaf; root {content['root'][:16]}"
