"""The stage `forgetting`: what continued training did to the old text and to the new, on documents that no stage has trained on.

Bits per byte of the model before and after, on both held-out texts. Forgetting is the rise on the old text (the negative of backward
transfer; Lopez-Paz and Ranzato 2017), adaptation the fall on the new. Both are differences on the same documents, so their intervals draw
whole documents again for both models at once: what makes a document hard cancels.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from openhearth.errors import HearthError
from openhearth.ledger import write_json
from openhearth.stage import Made, Seeded, Tell
from openhearth.train.settings import MOST_HELDOUT_BYTES
from openhearth.train.trained import digests, documents, open_trained

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from openhearth.evaluate.heldout import HeldOut
    from openhearth.evaluate.statistics import Estimate

COLUMNS = ("doc_id", "split", "uri", "text", "sha256")


class Forgetting(Seeded):
    """Measure the old and the new held-out text before and after the model was continued."""

    kind: ClassVar[str] = "forgetting"
    needs: ClassVar[tuple[str, ...]] = ("corpus", "continue")

    heldout_bytes: int = Field(default=150_000, ge=1, le=MOST_HELDOUT_BYTES)
    """Bytes of each held-out text to measure at most."""
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    """Keys the choice of documents and the resampling; by default the seed of the recipe."""

    def run(self, made: Made, out: Path, tell: Tell) -> None:
        """Write `forgetting.json`: figures with intervals, and of every text its bytes, its unit of the bootstrap and its nats."""
        import pyarrow.compute as pc

        from openhearth.data.tokenizer import Tokenizer
        from openhearth.evaluate import bits_per_byte, heldout
        from openhearth.model.hf import load_config, load_model
        from openhearth.train.machine import prepare

        assert self.seed is not None, "resolve() fills in the seed"
        after = made["continue"]
        before = open_trained(after.facts["model"])
        prepare(before.settings.threads)
        tokenizer = Tokenizer.load(after.path)
        learned = [corpus.documents for corpus in before.learned]
        new = documents([made["corpus"].path / "documents.parquet"], "heldout", COLUMNS)
        known = digests(learned, "train")
        unseen = new.filter(pc.invert(pc.is_in(new["sha256"], value_set=_strings(known))))
        if not unseen.num_rows:
            raise HearthError(
                f"forgetting: every held-out document of the new text is one that {before.name} was trained on, so it measures nothing; "
                "give other text"
            )
        texts = {
            name: heldout.choose(table, self.heldout_bytes, tokenizer, self.seed)
            for name, table in (("old", documents(learned, "heldout", COLUMNS)), ("new", unseen))
        }
        context = load_config(after.path).max_position_embeddings
        window = min(before.settings.sequence_length, context)
        stride = max(1, window // 2)
        sizes = {
            name: sum(piece.end - piece.start for ids in text.ids for piece in bits_per_byte.windows(0, len(ids), window, stride))
            for name, text in texts.items()
        }
        read = sum(sizes.values())
        nats: dict[str, dict[str, npt.NDArray[np.float64]]] = {name: {} for name in texts}
        done = 0
        for when, folder in (("before", before.weights), ("after", after.path)):
            model = load_model(folder)
            for name, text in texts.items():
                tick = partial(_tick, tell, done, 2 * read)
                nats[name][when] = bits_per_byte.nats(model, text.ids, tokenizer.bos, window, stride, tick, text.uris)
                done += sizes[name]
        figures = {name: _figures(text, nats[name], self.seed) for name, text in texts.items()}
        summary = summarised(figures)
        write_json(
            out / "forgetting.json",
            {
                "format": "openhearth-forgetting/1",
                **{name: {key: _plain(value) for key, value in one.items()} for name, one in figures.items()},
                **{name: _plain(value) for name, value in summary.items()},
                "new_held_out_but_known": new.num_rows - unseen.num_rows,
                "window": window,
                "stride": stride,
                "texts": {name: _rows(text, nats[name]) for name, text in texts.items()},
            },
        )
        tell.record(
            bits_per_byte={name: {when: figures[name][when].value for when in ("before", "after")} for name in figures},
            **{name: value.value for name, value in summary.items()},
            tokens=2 * read,
            flops=2 * read * load_config(after.path).flops_per_token(window) // 3,  # the forward third of the training convention
        )


def _tick(tell: Tell, before: int, total: int, done: int, _: int) -> None:
    """Progress of one of the four readings, `before` positions after the start."""
    tell.progress(before + done, total)


def summarised(figures: dict[str, dict[str, Any]]) -> dict[str, Estimate]:
    """Forgetting (rise on old text), adaptation (fall on new text), and the mean of both texts after (Ibrahim et al. 2024, table 1).

    The two texts have no document in common, so the half widths of the mean's interval add in squares.
    """
    from openhearth.evaluate.statistics import Estimate

    change, old, new = figures["new"]["change"], figures["old"]["after"], figures["new"]["after"]
    value = (old.value + new.value) / 2
    sides = [
        None if None in ends else math.hypot(ends[0] - old.value, ends[1] - new.value) / 2
        for ends in ((old.low, new.low), (old.high, new.high))
    ]
    mean = Estimate(value, *(None if side is None else value + sign * side for sign, side in zip((-1, 1), sides, strict=True)))
    adaptation = Estimate(-change.value, *(None if end is None else -end for end in (change.high, change.low)))
    return {"forgetting": figures["old"]["change"], "adaptation": adaptation, "mean": mean}


def _figures(text: HeldOut, nats: dict[str, npt.NDArray[np.float64]], seed: int) -> dict[str, Any]:
    from openhearth.evaluate.bits_per_byte import bits_per_byte

    sizes = [len(data) for data in text.texts]
    values = {**nats, "change": nats["after"] - nats["before"]}
    counts = {"documents": text.documents, "bytes": text.bytes, "interval_over": text.unit}
    return {name: bits_per_byte(value, sizes, text.units, seed) for name, value in values.items()} | counts


def _rows(text: HeldOut, nats: dict[str, npt.NDArray[np.float64]]) -> list[dict[str, Any]]:
    columns = zip(text.uris, text.units, map(len, text.texts), nats["before"].tolist(), nats["after"].tolist(), strict=True)
    return [{"uri": uri, "unit": unit, "bytes": size, "before": before, "after": after} for uri, unit, size, before, after in columns]


def _plain(value: Any) -> Any:
    from openhearth.evaluate.statistics import Estimate

    return asdict(value) if isinstance(value, Estimate) else value


def _strings(values: frozenset[str]) -> Any:
    import pyarrow as pa

    return pa.array(sorted(values), pa.string())
