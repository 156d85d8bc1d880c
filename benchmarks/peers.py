"""Bits per byte at equal wall-clock time, on the same text and the same machine: a finished run of ours beside nanoGPT and nanochat.

    python benchmarks/peers.py runs/laptop --nanogpt ../nanoGPT --nanochat ../nanochat

Each peer runs as its authors tell someone with a processor and no GPU (`peer_programs.WAYS`), one after the other, on the training
text of RUN, for as long as RUN took from its start to the end of pretraining, or for --seconds. Then every model is scored by one
function on the held-out texts that RUN was evaluated on. Run it on a machine that does nothing else, right after the run itself.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

from peer_process import Pace, calibrate
from peer_programs import PEERS, WAYS, Peer, Texts, Way
from rich.console import Console
from rich.table import Table
from rich.text import Text

from openhearth import record, run_folder
from openhearth.environment import environment
from openhearth.errors import HearthError
from openhearth.ledger import Json, Ledger, digest_file, read_json, write_json

COUNTED = ("corpus", "tokenizer", "plan", "pretrain")
"""Our stages whose seconds are counted: all that a run does from nothing to the end of pretraining."""
MARKER = "made-by-peers"
"""A file that says that a work folder is ours to empty."""
EQUAL = (0.97, 1.1)
"""A peer whose seconds are a smaller or larger share of those asked for is reported as such: the time was not equal."""
BUSY = 0.5
"""Load average above which the machine is not idle."""
RULES = (
    "our seconds are those of corpus, tokenizer, plan and pretraining together; a peer's are those of its training process from its start "
    "to the end of its last step, imports and loading included; its tokenizer or prepare script, calibration, evaluation and samples are "
    "not counted",
    "the number of iterations comes from a calibration beforehand, so that a peer trains for at least the seconds given and its schedules "
    "end with them; what torch.compile made is in its cache by then",
    "all models are scored by one function: every token once, each text by itself, windows as long as the model's own context that overlap "
    "by half; a peer's own estimate is over the parts of the text that it chooses",
)


@dataclasses.dataclass(frozen=True)
class Ours:
    """What is read from a finished run."""

    facts: Json
    evaluation: Json
    texts: Texts
    units: list[int]
    seed: int
    threads: int
    seconds: dict[str, float]
    """By stage."""

    @property
    def counted(self) -> float:
        """Seconds to the end of pretraining."""
        return sum(self.seconds[kind] for kind in COUNTED)


def read_run(name: str) -> Ours:
    """Read a run and choose its held-out texts again. Raises HearthError when it is not finished or the texts are not those measured."""
    from openhearth.align.examples import read_documents
    from openhearth.data.tokenizer import Tokenizer
    from openhearth.evaluate.heldout import choose

    folder = run_folder.find_run(name)
    facts = record.ledger_facts(folder)
    stages = {stage["stage"]: stage for stage in facts["stages"]}
    if lacking := [kind for kind in (*COUNTED, "evaluate") if kind not in stages]:
        raise HearthError(f"{folder}: has no {lacking[0]} yet; end it with: hearth run {folder / run_folder.RECIPE} --dir {folder}")
    at = {kind: folder / stage["folder"] for kind, stage in stages.items()}
    plan = read_json(at["plan"] / "plan.json")
    evaluation = read_json(at["evaluate"] / "evaluation.json")["bits_per_byte"]
    key = stages["evaluate"]["key"]
    entries = Ledger(folder / run_folder.LEDGER).entries()
    config = next(entry["config"] for entry in reversed(entries) if entry["event"] == "stage" and entry["key"] == key)
    documents = read_documents(at["corpus"] / "documents.parquet")
    limit = config["heldout_bytes"] or plan["evaluate"]["heldout_bytes"]
    heldout = choose(documents, limit, Tokenizer.load(at["tokenizer"]), config["seed"])
    if (heldout.documents, heldout.bytes, heldout.tokens) != tuple(evaluation[name] for name in ("documents", "bytes", "tokens")):
        raise HearthError(f"{folder}: the held-out text chosen now is not the one that was measured; evaluate it again with this version")
    sides = zip(documents["split"].to_pylist(), documents["text"].to_pylist(), strict=True)
    return Ours(
        facts=facts,
        evaluation=evaluation,
        texts=Texts(train=[text for side, text in sides if side == "train"], heldout=[text.decode() for text in heldout.texts]),
        units=heldout.units,
        seed=config["seed"],
        threads=plan["pretrain"]["threads"],
        seconds={kind: stage["seconds"] for kind, stage in stages.items()},
    )


def measure(peer: Peer, way: Way, ours: Ours, seconds: float, say: Console) -> Json:
    """Calibrate, train and score a peer in one of its ways."""
    from openhearth.evaluate.bits_per_byte import bits_per_byte

    say.print(f"{way.title}: calibrating")
    pace: Pace = calibrate(peer.child, way.key, peer.train(way, 10_000_000), peer.step, max(5.0, seconds / 20), peer.compiles)
    steps = pace.steps_in(seconds)
    say.print(f"{way.title}: {steps:,} steps, about {pace.first + (steps - 1) * pace.step:,.0f} s")
    marks = peer.child.run(way.key, command := peer.train(way, steps), peer.step)
    say.print(f"{way.title}: scoring")
    texts, out = peer.work / f"{peer.name}-heldout.json", peer.work / f"{way.key}-scores.json"
    texts.write_text(json.dumps(peer.readable(ours.texts)))
    peer.score(way, texts, out)
    scores = read_json(out)
    sizes = [len(text.encode()) for text in ours.texts.heldout]
    estimate = bits_per_byte(_array(scores["nats"]), sizes, ours.units, ours.seed)
    return {
        "key": way.key,
        "title": way.title,
        "told": way.told,
        "command": " ".join(["python", *command[1:]]),
        "source_sha256": digest_file(peer.checkout / peer.entry),
        "steps": steps,
        "seconds": round(marks[steps - 1], 1),
        "calibrated": dataclasses.asdict(pace),
        "seen": steps * way.batch,
        "unit": peer.unit,
        "parameters": scores["parameters"],
        "context": scores["context"],
        "bits_per_byte": dataclasses.asdict(estimate),
        "own_estimate": peer.own_estimate(way),
        "ratio": estimate.value / ours.evaluation["base"]["value"],
    }


def _array(values: list[float]) -> Any:
    import numpy as np

    return np.asarray(values, dtype=np.float64)


def compare(arguments: argparse.Namespace) -> Json:
    """Everything that was measured, as plain values; also written to WORK/peers.json after each program."""
    say = Console(stderr=True, highlight=False)
    ours = read_run(arguments.run)
    seconds = arguments.seconds or ours.counted
    wanted = [way for way in WAYS if getattr(arguments, way.program) is not None and way.key in (arguments.only or [way.key])]
    if not wanted:
        raise HearthError("no program to compare with; give the checkout of one: --nanogpt PATH, --nanochat PATH")
    checkouts = {way.program: checkout(way.program, getattr(arguments, way.program)) for way in wanted}
    work = empty_work(Path(arguments.work), list(checkouts.values()))
    notes = [*RULES, *circumstances(ours)]
    result: Json = {
        "seconds_asked": seconds,
        "machine": environment(),
        "threads": ours.threads,
        "heldout": {name: ours.evaluation[name] for name in ("documents", "bytes", "heldout_documents", "heldout_bytes", "interval_over")},
        "ours": our_rows(ours),
        "peers": [],
    }
    peers: dict[str, Peer] = {}
    for name, path in checkouts.items():
        peers[name] = PEERS[name](path, work, Path(arguments.python).absolute(), ours.threads)
        peers[name].copy()
    for name, peer in peers.items():
        say.print(f"{name}: preparing the text")
        peer.prepare(ours.texts)
    for way in wanted:
        row = measure(peers[way.program], way, ours, seconds, say)
        result["peers"].append(row)
        if not EQUAL[0] <= row["seconds"] / seconds <= EQUAL[1]:
            notes.append(f"{way.title} trained for {row['seconds']:,.0f} s, asked were {seconds:,.0f} s: the machine's pace changed")
        result["notes"] = [*notes, *dict.fromkeys(note for peer in peers.values() for note in peer.notes)]
        result["lower_than_all"] = all(row["ratio"] > 1 for row in result["peers"])
        write_json(work / "peers.json", result)
    return result


def our_rows(ours: Ours) -> list[Json]:
    """Our model at the end of pretraining, and the fine-tuned one where there is one."""
    stages = {stage["stage"]: stage for stage in ours.facts["stages"]}
    base = ours.evaluation["base"]["value"]
    rows = []
    for kind, title, kinds in (("base", "OpenHearth", COUNTED), ("sft", "OpenHearth, fine-tuned", (*COUNTED, "sft"))):
        if kind in ours.evaluation and all(name in stages for name in kinds):
            trained = [stages[name]["tokens"] for name in kinds if name in ("pretrain", "sft")]
            rows.append(
                {
                    "title": title,
                    "told": f"budget {ours.facts['budget']}",
                    "seconds": round(sum(ours.seconds[name] for name in kinds), 1),
                    "seconds_by_stage": {name: ours.seconds[name] for name in kinds},
                    "seen": sum(trained),
                    "unit": "tokens",
                    "parameters": stages["pretrain"]["facts"]["parameters"],
                    "context": ours.evaluation["window"],
                    "bits_per_byte": ours.evaluation[kind],
                    "own_estimate": None,
                    "ratio": ours.evaluation[kind]["value"] / base,
                }
            )
    return rows


def circumstances(ours: Ours) -> list[str]:
    """What makes the figures doubtful: another machine, an interrupted run, a machine at work."""
    notes = []
    then, here = ours.facts["environment"], environment()
    if any(then[name] != here[name] for name in ("cpu", "cores")):
        notes.append(f"the run was made on another machine ({then['cpu']}, {then['cores']} cores): its seconds are not those of this one")
    if any(stage["resumed"] for stage in ours.facts["stages"] if stage["stage"] in COUNTED):
        notes.append("the run was interrupted and went on; its seconds are those of all attempts")
    load = os.getloadavg()[0]
    if load > BUSY:
        notes.append(f"the load average was {load:.1f} at the start: something else was running, the seconds are not to be trusted")
    return notes


def checkout(name: str, path: str) -> Path:
    """The folder of a peer; raises HearthError when it is not one."""
    folder = Path(path).absolute()
    if not (folder / PEERS[name].entry).is_file():
        raise HearthError(
            f"{folder}: not a checkout of {name} (it has no {PEERS[name].entry}); git clone https://github.com/karpathy/{name}"
        )
    return folder


def empty_work(folder: Path, checkouts: list[Path]) -> Path:
    """Make the work folder, emptied if it is one of ours. Raises HearthError for a folder that is someone else's."""
    folder = folder.resolve()
    if any(path.resolve().is_relative_to(folder) for path in checkouts):
        raise HearthError(f"{folder}: holds a checkout; choose another folder with --work")
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / MARKER).is_file())):
        raise HearthError(f"{folder}: exists and is not a work folder of this benchmark; choose another with --work")
    if folder.exists():
        shutil.rmtree(folder)
    for inside in ("logs", "stand-ins"):
        (folder / inside).mkdir(parents=True)
    (folder / MARKER).touch()
    return folder


def show(result: Json) -> None:
    """The table, and below it what has to be known to read it."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 140
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    for name in ("program", "as told in", "seconds", "trained on", "parameters", "bits/byte", "95 % interval", "own estimate", "ratio"):
        table.add_column(name, justify="left" if name in ("program", "as told in") else "right", no_wrap=name != "as told in")
    for row in [*result["ours"], *result["peers"]]:
        figure = row["bits_per_byte"]
        table.add_row(
            Text(row["title"], style="bold" if row in result["ours"] else ""),
            Text(row["told"], style="dim"),
            f"{row['seconds']:,.0f}",
            f"{row['seen'] / 1e6:,.2f} M {row['unit']}",
            f"{row['parameters'] / 1e6:,.2f} M",
            f"{figure['value']:.3f}",
            "" if figure["low"] is None else f"{figure['low']:.3f} to {figure['high']:.3f}",
            "" if row["own_estimate"] is None else f"{row['own_estimate']:.3f}",
            f"{row['ratio']:.2f}",
        )
    heldout = result["heldout"]
    console.print(table)
    console.print(
        Text(
            f"on {heldout['documents']:,} held-out documents, {heldout['bytes']:,} bytes; "
            f"{result['threads']} threads; {result['machine']['cpu']}"
        )
    )
    best = min(result["peers"], key=lambda row: float(row["ratio"]))
    verdict = "lower than each peer" if result["lower_than_all"] else "NOT lower than each peer"
    console.print(
        Text(f"OpenHearth is {verdict}; the nearest, {best['title']}, has {best['ratio']:.2f} times its bits per byte", style="bold")
    )
    for note in result["notes"]:
        console.print(Text(f"- {note}", style="dim"))


class Parser(argparse.ArgumentParser):
    """One line for a mistake, like everywhere else."""

    def error(self, message: str) -> NoReturn:
        raise HearthError(f"{message}; see --help")


def positive(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value > 0):
        raise ValueError(text)
    return value


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run", metavar="RUN", help="the folder of a finished run, for example runs/laptop")
    parser.add_argument(
        "--seconds", type=positive, help="wall-clock seconds for each peer (default: what RUN took to the end of pretraining)"
    )
    parser.add_argument("--nanogpt", metavar="PATH", help="a checkout of github.com/karpathy/nanoGPT")
    parser.add_argument("--nanochat", metavar="PATH", help="a checkout of github.com/karpathy/nanochat")
    parser.add_argument(
        "--only", action="append", choices=[way.key for way in WAYS], help="leave out the other ways to run; may be repeated"
    )
    parser.add_argument("--python", metavar="PATH", default=sys.executable, help="the interpreter for the peers (default: this one)")
    parser.add_argument("--work", metavar="DIR", default="build/peers", help="where copies, logs and models go (default: build/peers)")
    parser.add_argument("--json", action="store_true", help="print everything that was measured as JSON")
    return parser.parse_args(arguments)


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the peer too, like Ctrl-C
    try:
        arguments = parse()
        result = compare(arguments)
    except HearthError as error:
        print(f"peers: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(error.exit_status) from None
    except KeyboardInterrupt:
        print("peers: stopped; the programs that were finished are in peers.json in the work folder", file=sys.stderr)
        raise SystemExit(130) from None
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        show(result)


if __name__ == "__main__":
    main()
