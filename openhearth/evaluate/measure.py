"""The stage `measure`: the base model's bits per byte on held-out text, document by document, and nothing else.

What experiments need of an evaluation (`hearth sweep`): it asks for no fine-tuned model and writes no answers, so it takes seconds, and it
keeps the figure of every text, so that two models can be compared on the same documents.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from openhearth.ledger import read_json, write_json
from openhearth.stage import Made, Seeded, Tell
from openhearth.train.settings import MOST_HELDOUT_BYTES


class Measure(Seeded):
    """Measure the base model on held-out documents."""

    kind: ClassVar[str] = "measure"
    needs: ClassVar[tuple[str, ...]] = ("corpus", "tokenizer", "plan", "pretrain")

    seed: int | None = Field(default=None, ge=0, lt=2**63)
    """Keys the order of documents and the resampling; by default the seed of the recipe."""
    heldout_bytes: int | None = Field(default=None, ge=1, le=MOST_HELDOUT_BYTES)
    """Bytes of held-out text to measure at most; by default as planned for the evaluation."""

    def run(self, made: Made, out: Path, tell: Tell) -> None:
        """Write `heldout.json`: bits per byte with its interval, and of every text its bytes, its unit of the bootstrap and its nats."""
        from openhearth.align.examples import read_documents
        from openhearth.data.tokenizer import Tokenizer
        from openhearth.evaluate import bits_per_byte, heldout
        from openhearth.model.hf import load_model
        from openhearth.train.machine import prepare

        assert self.seed is not None, "resolve() fills in the seed"
        plan = read_json(made["plan"].path / "plan.json")
        prepare(plan["pretrain"]["threads"])
        tokenizer = Tokenizer.load(made["tokenizer"].path)
        documents = read_documents(made["corpus"].path / "documents.parquet")
        text = heldout.choose(documents, self.heldout_bytes or plan["evaluate"]["heldout_bytes"], tokenizer, self.seed)
        model = load_model(made["pretrain"].path)
        window = min(plan["pretrain"]["sequence_length"], model.config.max_position_embeddings)
        stride = max(1, window // 2)
        read = sum(piece.end - piece.start for ids in text.ids for piece in bits_per_byte.windows(0, len(ids), window, stride))
        nats = bits_per_byte.nats(
            model, text.ids, tokenizer.bos, window, stride, lambda done, total: tell.progress(done, total), text.uris
        )  # fmt: skip
        sizes = [len(data) for data in text.texts]
        figure = bits_per_byte.bits_per_byte(nats, sizes, text.units, self.seed)
        rows = zip(text.uris, text.units, sizes, nats.tolist(), strict=True)
        write_json(
            out / "heldout.json",
            {
                "bits_per_byte": asdict(figure),
                "interval_over": text.unit,
                "window": window,
                "stride": stride,
                "texts": [{"uri": uri, "unit": unit, "bytes": size, "nats": value} for uri, unit, size, value in rows],
            },
        )
        tell.record(
            bits_per_byte={"base": figure.value, "low": figure.low, "high": figure.high},
            documents=text.documents,
            bytes=text.bytes,
            tokens=read,
            flops=read * model.config.flops_per_token(window) // 3,  # the forward third of the training convention
        )
