"""A ladder of small models on the laptop recipe's corpus, for the law by which `hearth run --budget` predicts loss.

    .venv/bin/python benchmarks/ladder.py --dir runs/ladder            # train what is missing, write the table
    .venv/bin/hearth plan fit openhearth/plan/tables/ladder_laptop.csv --form muennighoff

Every rung is trained exactly as a run would train it (same code, rates, schedule, order of data) and scored on the same held-out text,
so that losses do not depend on other work on the machine. As many rungs at once as there are processors, one thread each. A rung that is
done is not trained again; a killed one goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

TABLE = Path(__file__).parents[1] / "openhearth/plan/tables/ladder_laptop.csv"

Rung = tuple[int, int, float]
"""(layers, width, millions of tokens)."""

LADDER: tuple[Rung, ...] = (
    *((2, 64, tokens) for tokens in (0.5, 1, 2, 4)),
    *((2, 96, tokens) for tokens in (0.5, 1, 2, 4)),
    *((2, 128, tokens) for tokens in (0.5, 1, 2, 4)),
    *((2, 192, tokens) for tokens in (0.5, 1, 2)),
    *((2, 256, tokens) for tokens in (0.75, 1.5)),
    *((4, 96, tokens) for tokens in (2,)),
    *((4, 128, tokens) for tokens in (1, 2)),
    (4, 96, 4),
    (4, 128, 4),
    (4, 192, 2),
)
HELD_OUT: tuple[Rung, ...] = ((2, 192, 4), (2, 256, 2.5), (4, 192, 3))
"""Larger in FLOPs than every rung of the ladder."""

SEQUENCE = 256
"""Tokens of context, as in runs of less than ten minutes."""


def name_of(rung: Rung) -> str:
    """'2x96-3M'."""
    layers, width, millions = rung
    return f"{layers}x{width}-{millions:g}M"


def train_rung(rung: Rung, folder: Path, artifacts: dict[str, Path], threads: int) -> dict[str, float | int | str]:
    """One row of the table: the held-out bits per byte of a model trained for this long."""
    from openhearth.align.examples import read_documents
    from openhearth.data.order import Windows
    from openhearth.data.shards import Tokens
    from openhearth.data.tokenizer import Tokenizer
    from openhearth.evaluate import bits_per_byte, heldout
    from openhearth.model.hf import load_model, tensor_shapes
    from openhearth.model.init import initial_tensor
    from openhearth.plan.budget import REFERENCE_BATCH, Facts, learning_rates, shape
    from openhearth.train.loop import train
    from openhearth.train.probe import MachineBench
    from openhearth.train.settings import Settings
    from openhearth.watch import Teller, Watcher

    layers, width, millions = rung
    sequence, seed = SEQUENCE, 1
    tokenizer = Tokenizer.load(artifacts["tokenizer"])
    tokens = Tokens(artifacts["tokenizer"] / "train")
    steps = round(millions * 1e6 / REFERENCE_BATCH)
    facts = Facts(
        budget_seconds=300.0, spent={}, train_tokens=len(tokens), train_bytes=0, heldout_bytes=0, vocab_size=tokenizer.vocab_size,
        bos_token_id=tokenizer.bos, eos_token_id=tokenizer.im_end, machine={}, threads=threads, dtype="", sequence_length=sequence,
    )  # fmt: skip
    config = shape(layers, width, facts)
    out = folder / name_of(rung)
    done = out / "row.json"
    if done.exists():
        row: dict[str, float | int | str] = json.loads(done.read_text())
        return row
    settings = Settings(
        sequence_length=sequence, batch_tokens=REFERENCE_BATCH, micro_batch_tokens=REFERENCE_BATCH, steps=steps,
        learning_rate=learning_rates(REFERENCE_BATCH, facts), dtype=MachineBench(threads).best_dtype(), threads=threads,
        checkpoint_steps=100,
    )  # fmt: skip
    windows = Windows(tokens, sequence, seed)
    rows = REFERENCE_BATCH // sequence
    out.mkdir(parents=True, exist_ok=True)
    train(
        config, settings,
        lambda: {name: initial_tensor(name, size, config, seed) for name, size in tensor_shapes(config).items()},
        lambda step: windows.sample(step * rows, (step + 1) * rows),
        out, Teller("pretrain", Watcher()),
    )  # fmt: skip
    chosen = heldout.choose(read_documents(artifacts["corpus"] / "documents.parquet"), 400_000, tokenizer, seed)
    nats = bits_per_byte.nats(load_model(out), chosen.ids, tokenizer.bos, sequence, sequence // 2)
    row = {
        "name": out.name,
        "parameters": config.matmul_parameters,
        "tokens": settings.tokens,
        "unique_tokens": len(tokens),
        "flops": settings.tokens * config.flops_per_token(sequence),
        "bits_per_byte": round(float(nats.sum() / math.log(2) / chosen.bytes), 5),
        "all_parameters": config.parameters,
        "held_out": int(rung in HELD_OUT),
    }
    done.write_text(json.dumps(row))
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, default=Path("runs/ladder"), help="where the rungs are kept")
    parser.add_argument("--table", type=Path, default=TABLE, help="the table that is written")
    parser.add_argument("--recipe", type=Path, default=Path("recipes/laptop.toml"))
    parser.add_argument("--jobs", type=int, help="rungs at once; as many as processors when left out")
    options = parser.parse_args()

    from openhearth.ledger import write_atomic
    from openhearth.plan.host import usable_threads
    from openhearth.recipe import Recipe
    from openhearth.runner import run

    made = run(Recipe.load(options.recipe), options.dir / "text", until="tokenizer").made
    artifacts = {kind: artifact.path for kind, artifact in made.items()}
    rungs = sorted((*LADDER, *HELD_OUT), key=lambda rung: -rung[0] * rung[1] * rung[2])
    rows = {}
    with ProcessPoolExecutor(options.jobs or usable_threads(), mp_context=get_context("spawn")) as pool:
        waiting = {pool.submit(train_rung, rung, options.dir, artifacts, 1): rung for rung in rungs}
        for done in as_completed(waiting):
            rows[waiting[done]] = done.result()
            print(json.dumps(done.result()), flush=True)
    table = [rows[rung] for rung in (*LADDER, *HELD_OUT)]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    write_atomic(options.table, text.getvalue().encode())


if __name__ == "__main__":
    main()
