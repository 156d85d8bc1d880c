"""The stage `continue`: new text into a model that is trained already, without forgetting the old.

Continued pretraining after Ibrahim et al. 2024 (arXiv 2403.08763): the learning rate rises again to the peak of pretraining and falls
again over the new tokens, and a share of the samples is old text. From a checkpoint that was kept before the learning rate fell (the
trunk) it need not rise again (Hu et al. 2024, WSD). Loop, optimiser, guard and checkpoints are those of pretraining.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from openhearth.errors import DamagedError, HearthError, RecipeError
from openhearth.ledger import Json, digest_json, read_json, write_json
from openhearth.stage import Made, Setting, Stage, Tell
from openhearth.train.schedule import Schedule
from openhearth.train.settings import MOST_STEPS, Settings
from openhearth.train.trained import Trained, digests, open_trained

if TYPE_CHECKING:
    from torch import Tensor

    from openhearth.data.replay import Joined, Replay
    from openhearth.data.shards import Tokens
    from openhearth.data.tokenizer import Tokenizer
    from openhearth.model.config import ModelConfig

LEAST_CONSTANT = 0.1
"""The share of the peak rate of a constant one, where pretraining ended at a rate of zero (Ibrahim et al. 2024: eta_min = eta_max / 10)."""

TRAINING_SHARE = 0.8
"""Of the budget's time that training may take; the rest is for reading text and for measuring."""

FEW_UPDATES = 20
"""With fewer the text is hardly learned, and that is said."""


class Continue(Stage):
    """Go on training a model on new text, with a share of the old."""

    kind: ClassVar[str] = "continue"
    needs: ClassVar[tuple[str, ...]] = ("corpus",)
    resumes: ClassVar[bool] = True

    model: str = Field(default="runs/laptop", min_length=1)
    """The trained model: the folder of a run, its name below runs/, or a release."""
    start: Literal["model", "trunk", "scratch"] = "model"
    """'model': the trained weights; 'trunk': the newest permanent checkpoint from before the rate fell; 'scratch': fresh weights."""
    replay: float = Field(default=0.05, ge=0, lt=1)
    """Share of the samples that are old text, in place of new: 0.05 for text like the old, 0.25 for text of another kind."""
    rate: Literal["rewarm", "constant"] = "rewarm"
    """'rewarm': up to the peak and down again, as `schedule` says; 'constant': at the rate with which pretraining ended (a control)."""
    learning_rate_scale: float = Field(default=1.0, gt=0, le=100)
    """Peak learning rates as a fraction of pretraining's: a lower one forgets less and learns less."""
    schedule: Schedule = Schedule(warmup=0.05, cooldown=0.95, final=0.03)
    """Learning rate over the stage, as fractions of it; from the trunk there is no warm-up."""
    epochs: float = Field(default=1.0, gt=0, le=1000)
    """Passes over the new text at most; the budget may end sooner."""
    tokens: int | None = Field(default=None, ge=1)
    """Tokens to train on in all, replayed ones included, in place of what `epochs` and the budget come to."""
    batch_tokens: int | None = Field(default=None, ge=32)
    """Tokens per update; pretraining's when left out, or fewer for a short text."""
    permanent_steps: int = Field(default=0, ge=0, le=MOST_STEPS)
    """Steps between checkpoints that are kept for good: from one of them this model can be continued in turn; 0: none is."""
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    """Seed of the order of new and old text; the recipe's when left out."""
    most_tokens: int | None = Field(default=None, ge=1)
    """What the budget allows, at the speed that the model was trained with. Filled in by the run."""
    fingerprint: str = ""
    """Digest of the model and of all that it was made from. Filled in by the run, so that a change is noticed."""

    def resolve(self, setting: Setting) -> Continue:
        """The same stage with seed, budget and the model's digest (none for a model that cannot be opened: `preflight` says why)."""
        seed = setting.seed if self.seed is None else self.seed
        try:
            model = open_trained(self.model)
        except HearthError:
            return self.model_copy(update={"seed": seed, "fingerprint": ""})
        most = None
        if setting.budget_flops is None and model.tokens_per_second:
            most = self.most_tokens or max(1, round(TRAINING_SHARE * setting.budget_seconds * model.tokens_per_second))
        return self.model_copy(update={"seed": seed, "most_tokens": most, "fingerprint": model.digest})

    def preflight(self) -> None:
        """Raise HearthError for a model that is not there or not whole, or that keeps no trunk."""
        try:
            model = open_trained(self.model)
        except HearthError as error:
            raise type(error)(f"continue.model: {error}") from None
        if self.start == "trunk":
            model.trunk()
        if self.batch_tokens is not None and self.batch_tokens % model.settings.sequence_length:
            raise RecipeError(
                f"continue.batch_tokens is {self.batch_tokens:,}; it must be a multiple of the sequence length of {self.model}, "
                f"{model.settings.sequence_length:,}"
            )

    def run(self, made: Made, out: Path, tell: Tell) -> None:
        """Write the model (a Hugging Face folder with its tokenizer), the new tokens (`train/`), what was replayed, `continue.json`."""
        from openhearth.data.order import Windows
        from openhearth.data.replay import Replay, replay_seed
        from openhearth.data.tokenizer import Tokenizer
        from openhearth.model.config import load_config
        from openhearth.train.checkpoint import read_checkpoint
        from openhearth.train.loop import Batch, Trainer, train
        from openhearth.train.trunk import FromTrunk

        assert self.seed is not None, "resolve() fills in the seed"
        model = open_trained(self.model)
        model.check()
        config, tokenizer = load_config(model.weights), Tokenizer.load(model.tokenizer)
        if tokenizer.vocab_size != config.vocab_size:
            raise HearthError(
                f"{model.tokenizer}: a tokenizer of {tokenizer.vocab_size:,} ids, the model has {config.vocab_size:,}: not the one that it "
                "was trained with; put that one back, or make the model again"
            )
        tokenizer.save(out)
        if model.chat:
            tell.note(f"{model.name} is a release: its fine-tuned weights are continued; name its run to continue those before fine-tuning")
        new = self._new(made, model, tokenizer, out)
        old = self._old(model, tokenizer, out)
        length = model.settings.sequence_length
        mix = Replay(Windows(new, length, self.seed), Windows(old, length, replay_seed(self.seed)) if self.replay else None, self.replay)
        settings = self._settings(model, mix.new.windows_per_epoch, tell)
        rows = settings.batch_tokens // length

        def batches(step: int) -> Batch:
            return mix.sample(step * rows, (step + 1) * rows)

        trunk = read_checkpoint(model.trunk()) if self.start == "trunk" else None
        origin: Json = {"model": model.digest, "start": self.start, "trunk": None if trunk is None else trunk.step, "share": str(mix.share)}
        origin |= {"new_tokens": new.digest, "old_tokens": old.digest}
        train(
            config, settings, self._initial(model, config), batches, out, tell,
            data=digest_json([origin, self.seed]), make=Trainer if trunk is None else partial(FromTrunk, trunk=trunk),
        )  # fmt: skip
        self._account(origin, mix, old, settings, out, tell)

    # -- text ---------------------------------------------------------------------------------------------------------------

    def _new(self, made: Made, model: Trained, tokenizer: Tokenizer, out: Path) -> Tokens:
        """The new text's training side as shards, without what the model will be measured on. Raises HearthError when none is left."""
        from openhearth.data.shards import Tokens
        from openhearth.data.tokenize import encode

        corpus = made["corpus"].path
        kept_back = digests([learned.documents for learned in model.learned], "heldout")
        if not (out / "train" / "manifest.json").is_file():
            encode(corpus, "train", tokenizer, out, read_json(corpus / "report.json")["source"], lambda done, tokens: None, kept_back)
        tokens = Tokens(out / "train")
        tokens.verify()
        if len(tokens) < 2:
            raise HearthError(
                f"continue: every new document is a copy of one that {self.model} is measured on (held out), so there is nothing to learn; "
                "give other text"
            )
        return tokens

    def _old(self, model: Trained, tokenizer: Tokenizer, out: Path) -> Joined:
        """The text that the model has learned, as tokens: where they lie, or made again from a release's text, exactly as recorded."""
        from openhearth.data.replay import Joined
        from openhearth.data.shards import Tokens
        from openhearth.data.tokenize import encode

        parts = []
        for number, learned in enumerate(model.learned):
            shards = learned.shards
            if shards is None:
                place = out / "old" / str(number)
                shards = place / "train"
                if not (shards / "manifest.json").is_file():
                    encode(learned.documents.parent, "train", tokenizer, place, "release", lambda done, tokens: None)
                assert learned.recorded is not None, "a release lists its tokens"
                manifests = (read_json(shards / "manifest.json"), read_json(learned.recorded))
                ours, theirs = ([shard["sha256"] for shard in manifest["shards"]] for manifest in manifests)
                if ours != theirs:
                    raise DamagedError(f"{learned.documents}: gives other tokens than {learned.recorded} records; get the release again")
            parts.append(Tokens(shards))
        joined = Joined(parts)
        joined.verify()
        return joined

    # -- training -----------------------------------------------------------------------------------------------------------

    def _settings(self, model: Trained, windows: int, tell: Tell) -> Settings:
        """Pretraining's settings with this stage's length, rates and schedule. `windows`: samples of one pass over the new text."""
        before = model.settings
        length, schedule, scale = before.sequence_length, self.schedule, self.learning_rate_scale
        if self.rate == "constant":
            schedule = Schedule(warmup=0, cooldown=0, final=1, momentum_start=schedule.momentum)
            scale = before.schedule.final or LEAST_CONSTANT
        elif self.start == "scratch":
            schedule = before.schedule
        elif self.start == "trunk":
            schedule = schedule.model_copy(update={"warmup": 0.0, "momentum_start": schedule.momentum})
        wanted = round(self.epochs * windows / (1 - self.replay)) * length
        total = self.tokens or min(wanted, self.most_tokens or wanted)
        batch = self.batch_tokens or before.batch_tokens
        while self.batch_tokens is None and total < FEW_UPDATES * batch and batch % (2 * length) == 0:
            batch //= 2
            scale /= math.sqrt(2)  # smaller batches, smaller steps (Malladi et al. 2022)
        steps = max(1, round(total / batch))
        if self.tokens is None and total < wanted:
            passes = total / wanted * self.epochs
            tell.note(f"the budget allows {total:,} tokens, {passes:.2g} passes over the new text; a larger one reads more of it")
        if steps < FEW_UPDATES:
            tell.note(f"only {steps} updates: the new text is short; more passes over it (continue.epochs) teach more of it")
        return before.model_copy(
            update={
                "steps": steps,
                "batch_tokens": batch,
                "micro_batch_tokens": min(before.micro_batch_tokens, batch),
                "learning_rate": {group: rate * scale for group, rate in before.learning_rate.items()},
                "schedule": schedule,
                "permanent_steps": self.permanent_steps,
                "checkpoint_steps": max(1, min(before.checkpoint_steps, math.ceil(steps / 4))),
            }
        )

    def _initial(self, model: Trained, config: ModelConfig) -> Callable[[], Mapping[str, Tensor]]:
        """The first weights: the trained ones, or fresh ones."""
        from openhearth.model.hf import load_tensors, tensor_shapes
        from openhearth.model.init import initial_tensor

        if self.start != "scratch":
            return lambda: load_tensors(model.weights, config)
        seed = self.seed or 0
        return lambda: {name: initial_tensor(name, shape, config, seed) for name, shape in tensor_shapes(config).items()}

    def _account(self, origin: Json, mix: Replay, old: Joined, settings: Settings, out: Path, tell: Tell) -> None:
        """Which old text was learned again, window by window and document by document, and how much of both there was."""
        from openhearth.data.replay import learned_batches, provenance, write_provenance

        guard = out / "guard.jsonl"
        events = [json.loads(line) for line in guard.read_text().splitlines()] if guard.is_file() else []
        batches = learned_batches(settings.steps, events)
        rows = settings.batch_tokens // settings.sequence_length
        windows, documents = provenance(mix, old, batches, rows)
        write_provenance(out, windows, documents)
        shutil.rmtree(out / "old", ignore_errors=True)  # a release's tokens, made again from its text: they can be once more
        replayed = sum(window["end"] - window["start"] for window in windows)
        facts = {
            "replayed_windows": len(windows), "replayed_tokens": replayed, "replayed_documents": len(documents),
            "passes_over_new_text": round((len(batches) * rows - len(windows)) / mix.new.windows_per_epoch, 4),
        }  # fmt: skip
        written = {"format": "openhearth-continue/1", **origin, **facts, "settings": settings.model_dump(mode="json")}
        write_json(out / "continue.json", written)
        tell.record(model=self.model, start=self.start, rate=self.rate, replay=self.replay, **facts)
