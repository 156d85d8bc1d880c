"""The stage that turns a corpus into tokens: trains the vocabulary on the training side, then encodes both sides into shards.

The idea: documents stand in the order of a keyed hash of their id, so that taking one out leaves the order of all others as it was,
and a shuffle of the text comes for free. Each document is `<|endoftext|>` and its ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from openhearth.data.documents import Side, read_documents
from openhearth.errors import HearthError
from openhearth.ledger import read_json, require_space, write_json
from openhearth.stage import Made, Setting, Stage, Tell

if TYPE_CHECKING:
    from openhearth.data.shards import Writer
    from openhearth.data.tokenizer import Tokenizer

ORDER_KEY = "openhearth-order"
BATCH_BYTES = 4 << 20  # text encoded between two signs of progress


def vocabulary_for(budget_seconds: float) -> int:
    """The vocabulary for a budget of time: a small model spends too much of itself on a large one. Measured on the laptop recipe."""
    return 4_096 if budget_seconds <= 15 * 60 else 8_192


class Tokenize(Stage):
    """Train a byte-level BPE vocabulary on the training documents and encode the corpus into shards."""

    kind: ClassVar[str] = "tokenizer"
    needs: ClassVar[tuple[str, ...]] = ("corpus",)

    vocab_size: int | None = Field(default=None, ge=300, le=1_000_000)
    """Ids in the vocabulary, special tokens included; not given: chosen from the budget. Small texts may yield fewer."""

    def resolve(self, setting: Setting) -> Tokenize:
        """The same stage with the vocabulary of the followed plan, or one chosen from the budget, when none is given."""
        if self.vocab_size is not None:
            return self
        plan = setting.followed_plan
        if plan is None:
            return self.model_copy(update={"vocab_size": vocabulary_for(setting.budget_seconds)})
        try:
            planned = int(plan["model"]["vocab_size"])
        except (KeyError, TypeError, ValueError):
            raise HearthError("the plan to follow does not say model.vocab_size; give a plan.json that a run wrote") from None
        return self.model_copy(update={"vocab_size": planned})

    def run(self, made: Made, out: Path, tell: Tell) -> None:
        """Write `tokenizer.json`, `tokenizer_config.json`, the shards in `train/` and `heldout/`, and `summary.json`."""
        from openhearth.data.tokenizer import Tokenizer

        if self.vocab_size is None:
            raise ValueError("resolve() comes before run()")
        corpus = made["corpus"].path
        report = read_json(corpus / "report.json")
        total = sum(report["bytes"].values())
        require_space(out, total, "the tokens")  # two bytes per token, and a token rarely stands for less than two bytes of text
        tell.progress(0, total)
        tokenizer = Tokenizer.train((row["text"] for row in ordered(corpus, "train")), self.vocab_size)
        tokenizer.save(out)
        train = encode(corpus, "train", tokenizer, out, report["source"], lambda done, tokens: tell.progress(done, total, tokens=tokens))
        heldout = encode(
            corpus,
            "heldout",
            tokenizer,
            out,
            report["source"],
            lambda done, tokens: tell.progress(train.bytes + done, total, tokens=train.tokens + tokens),
        )
        summary = {
            "vocab_size": tokenizer.vocab_size,
            "train_tokens": train.tokens,
            "train_bytes": train.bytes,
            "heldout_tokens": heldout.tokens,
            "heldout_bytes": heldout.bytes,
        }
        write_json(out / "summary.json", summary)
        tell.record(**summary)


def encode(
    corpus: Path,
    side: Side,
    tokenizer: Tokenizer,
    out: Path,
    source: str,
    progress: Callable[[int, int], None],
    without: Collection[str] = (),
) -> Writer:
    """Write the shards of one side to the folder `out/side`; `progress` is told bytes and tokens. Returns the finished writer.

    Documents whose sha256 is in `without` are left out.
    """
    import numpy

    from openhearth.data.shards import Writer

    with Writer(out / side, tokenizer.vocab_size, tokenizer.bos) as writer:
        for batch in batches(row for row in ordered(corpus, side) if row["sha256"] not in without):
            for row, ids in zip(batch, tokenizer.encode_batch([row["text"] for row in batch]), strict=True):
                writer.add(numpy.concatenate(([tokenizer.bos], ids)), {**row, "source": source})
            progress(writer.bytes, writer.tokens)
    return writer


def batches(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """`rows` in groups of about `BATCH_BYTES` of text."""
    batch: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += row["bytes"]
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def order_key(doc_id: str) -> bytes:
    """Where a document stands among all: a keyed hash of its id alone."""
    return hashlib.sha256(f"{ORDER_KEY}\0{doc_id}".encode()).digest()


def ordered(corpus: Path, side: Side) -> Iterator[dict[str, Any]]:
    """The documents of one side in the order of their keyed hash."""
    rows = list(read_documents(corpus, side, ("doc_id", "uri", "licence", "evidence", "sha256", "bytes", "text")))
    yield from sorted(rows, key=lambda row: order_key(row["doc_id"]))
