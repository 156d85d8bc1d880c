"""What the stages `reward` and `prefer` share: preference rows from a file, some set aside, and the settings they are trained with.

The rows' sha256 is part of the stage's settings, so that another file is another stage, and a copy of them is in the artifact.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field

from openhearth.errors import HearthError
from openhearth.ledger import digest_bytes, digest_file, digest_if_file, digest_json, write_atomic, write_json
from openhearth.stage import Made, Seeded, Setting, Tell
from openhearth.train.schedule import Schedule
from openhearth.train.settings import GROUPS

if TYPE_CHECKING:
    from openhearth.align.preference_rows import Pair, Rendered
    from openhearth.model.config import ModelConfig
    from openhearth.train.settings import Settings

ROWS = "rows.jsonl"


@dataclass(frozen=True)
class Prepared:
    """What is trained on, what is set aside, and how."""

    config: ModelConfig
    settings: Settings
    train: Rendered
    heldout: Rendered | None
    batch: int


class PreferenceStage(Seeded):
    """Fields and preparation of a stage that learns from preference rows."""

    rows: str = Field(default="", max_length=4096)
    """Path of the preference rows: JSON lines with prompt, chosen, rejected and, if wanted, label and margin."""
    rows_sha256: str = Field(default="", pattern="^([0-9a-f]{64})?$")
    """sha256 of that file; filled in when left out, and a file with another one is refused when given."""
    held_out: float = Field(default=0.1, ge=0, lt=1)
    """Share of the prompts whose pairs are not trained on, but measured."""
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    """Seed of the split and of the order; the recipe's when left out."""
    epochs: float = Field(default=1.0, gt=0, le=1000)
    """Passes over the pairs. More than one or two overfit (Ouyang et al. 2022)."""
    batch_pairs: int = Field(default=16, gt=0, le=65_536)
    """Pairs per update."""
    learning_rate: float = Field(default=2e-4, gt=0, le=10)
    """Peak learning rate of AdamW. Published ones for models of billions of parameters are 5e-7 to 1e-5; small models take more."""
    schedule: Schedule = Schedule(warmup=0.1, cooldown=0.9, final=0.0, momentum_start=0.95)
    """Learning rate over the stage, as fractions of it."""

    def resolve(self, setting: Setting) -> Self:
        """The seed of the run, and the digest of the rows where they can be read (`preflight` says when they cannot)."""
        return super().resolve(setting).model_copy(update={"rows_sha256": self.rows_sha256 or digest_if_file(self.rows)})

    def preflight(self) -> None:
        """Every row is read and checked before anything is trained."""
        self._pairs()

    def _pairs(self) -> list[Pair]:
        from openhearth.align.preference_rows import read_pairs

        if not self.rows:
            raise HearthError(f"[{self.kind}] needs preference rows: name their file with rows = 'FILE.jsonl'")
        pairs = read_pairs(Path(self.rows))
        if self.rows_sha256 and digest_file(Path(self.rows)) != self.rows_sha256:
            raise HearthError(f"{self.rows}: has another sha256 than rows_sha256; the file changed: give the one that was meant")
        return pairs

    def prepare(self, made: Made, out: Path, tell: Tell) -> Prepared:
        """Read, split and render the rows; leaves a copy of them and `pairs.json` in `out`."""
        from openhearth.align.preference_rows import render_pairs
        from openhearth.data.tokenizer import Tokenizer
        from openhearth.model.config import ModelConfig
        from openhearth.train.planning import read_plan, settings_of

        pairs = self._pairs()
        write_atomic(out / ROWS, Path(self.rows).read_bytes())
        plan = read_plan(made)
        planned = settings_of(plan, "sft")
        tokenizer = Tokenizer.load(made["tokenizer"].path)
        aside = [self._aside(pair) for pair in pairs]
        kept = [pair for pair, out_of in zip(pairs, aside, strict=True) if not out_of]
        rest = [pair for pair, out_of in zip(pairs, aside, strict=True) if out_of]
        if not kept:
            raise HearthError(f"{self.rows}: all {len(pairs):,} pairs are set aside; lower held_out or give more")
        train = render_pairs(kept, tokenizer, planned.sequence_length)
        heldout = render_pairs(rest, tokenizer, planned.sequence_length) if rest else None
        batch = min(self.batch_pairs, train.pairs)
        steps = max(1, round(self.epochs * train.pairs / batch))
        changes: dict[str, Any] = {
            "steps": steps,
            "batch_tokens": 2 * batch * planned.sequence_length,
            "learning_rate": dict.fromkeys(GROUPS, self.learning_rate),
            "optimizer": "adamw",
            "max_grad_norm": 1.0,
            "schedule": self.schedule,
            "dtype": "float32",
            "compile": False,
        }
        counts = {"pairs": len(pairs), "trained_on": train.pairs, "held_out": len(rest), "too_long": train.too_long, "updates": steps}
        write_json(out / "pairs.json", counts | {"rows_sha256": digest_file(out / ROWS)})
        tell.note(f"{train.pairs:,} pairs to learn from, {len(rest):,} set aside, {train.too_long:,} too long for the window")
        return Prepared(ModelConfig.model_validate(plan["model"]), planned.model_copy(update=changes), train, heldout, batch)

    def _aside(self, pair: Pair) -> bool:
        """Whether a pair is set aside: decided by its prompt, so that no prompt is on both sides."""
        key = hashlib.blake2b(f"{self.seed}:heldout:{digest_json(pair.prompt)}".encode(), digest_size=8).digest()
        return int.from_bytes(key, "little") / 2**64 < self.held_out

    def fixed(self, prepared: Prepared, **more: Any) -> str:
        """The digest of what a checkpoint was trained on, and how."""
        return digest_bytes(prepared.train.digest.encode() + digest_json(more).encode())
