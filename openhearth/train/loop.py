"""The one training loop, for pretraining and for fine-tuning: batches in, weights out, unkillable.

A run is a pure function of (settings, initial weights, batches): a batch is asked for by its number, so that the only state is what
a checkpoint holds. Killed and started again, it goes on from the newest checkpoint that verifies and ends with the same bits; asked to
stop, it finishes the step and keeps it.

A step whose loss or gradient is bad (`guard`) changes nothing. After a few in a row the weights themselves are held to be at fault:
training goes back to the last checkpoint and on with the data that follows. That checkpoint is good because it was only made once its
weights had given a good gradient.
"""

from __future__ import annotations

import gc
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from openhearth.errors import DiskFullError, HearthError, RecipeError
from openhearth.ledger import Json, digest_json, require_space
from openhearth.model.config import ModelConfig
from openhearth.stage import Tell
from openhearth.train.checkpoint import Checkpoint, Saver, forget_after, latest_checkpoint, place, read_checkpoint, save_checkpoint
from openhearth.train.guard import fault
from openhearth.train.history import History
from openhearth.train.results import TRACES, results_space, training_space, write_results
from openhearth.train.settings import Settings
from openhearth.train.stopping import CannotGoOn, StopSignals
from openhearth.train.trainer import Batch as Batch
from openhearth.train.trainer import Trainer as Trainer

MakeTrainer = Callable[[ModelConfig, Settings, Mapping[str, Tensor]], Trainer]
"""What a trainer is made of: shape, settings and first weights."""


def train(
    config: ModelConfig,
    settings: Settings,
    initial: Callable[[], Mapping[str, Tensor]],
    batches: Callable[[int], Batch],
    out: Path,
    tell: Tell,
    *,
    data: str = "",
    make: MakeTrainer = Trainer,
    after: Callable[[int, Trainer], None] | None = None,
) -> None:
    """Train from `initial` for `settings.steps` steps and leave weights, losses and traces in `out`.

    Goes on from the checkpoints in `out` when there are any. `data` is the digest of what `batches` reads from: a checkpoint made with
    other data or settings is refused. `make` gives the trainer, where the loss is not that of the next token; `after` looks on after each
    step, with the number of steps taken. Raises HearthError when a checkpoint is refused, and when the loss does not recover.
    """
    if settings.sequence_length > config.max_position_embeddings:
        raise RecipeError(
            f"sequence_length is {settings.sequence_length:,}, the model sees {config.max_position_embeddings:,} tokens "
            "(max_position_embeddings): lower the one or raise the other"
        )
    require_space(out, training_space(config), "training (three checkpoints of weights and optimiser state)")
    run = _Run(config, settings, initial, batches, out, tell, data, make)
    run.resume()
    gc.collect()
    gc.freeze()
    try:
        with StopSignals() as stop:
            while run.history.steps < settings.steps:
                run.step()
                if after is not None:
                    after(run.history.steps, run.trainer)
                if stop.received is not None:
                    run.keep()
                    stop.deliver()
    except CannotGoOn:
        run.keep()
        raise
    finally:
        gc.unfreeze()
        run.saver.close()
    run.finish()


@dataclass
class _Run:
    """The state of a run, and what is done at a step, when a step is bad, and at the end."""

    config: ModelConfig
    settings: Settings
    initial: Callable[[], Mapping[str, Tensor]]
    batches: Callable[[int], Batch]
    out: Path
    tell: Tell
    data: str
    make: MakeTrainer
    history: History = field(default_factory=History)
    good: int = 0
    """Steps after which a rewind finds the weights; 0: the first weights."""
    kept: int = 0
    """Steps that the disk holds."""
    before: float = 0.0
    """Seconds of earlier attempts."""
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.fixed: Json = {
            "model": self.config.model_dump(mode="json"),
            "settings": self.settings.model_dump(mode="json"),
            "data": self.data,
        }
        self.environment: Json = {
            "torch": str(torch.__version__),
            "python": platform.python_version(),
            "processor": torch.backends.cpu.get_cpu_capability(),
        }
        self.trainer = self.make(self.config, self.settings, self.initial())
        self.saver = Saver(self.out / "checkpoints")

    def resume(self) -> None:
        """Go on from the newest checkpoint that can be used."""
        found, passed_over = latest_checkpoint(self.saver.folder)
        for line in passed_over:
            self.tell.note(f"{line}; {'going on from a checkpoint before it' if found else 'no checkpoint is whole: beginning again'}")
        if found is not None:
            self._require_same(found)
            self.trainer.restore(found.tensors)
            self.history, self.before = History(**found.values["history"]), found.values["elapsed"]
            self.good, self.kept = found.rewind_to, found.step
            self.tell.note(f"going on from step {found.step:,} of {self.settings.steps:,}")
            if found.about["environment"] != self.environment:
                self.tell.note(f"the steps so far were made with {found.about['environment']}, later ones are with {self.environment}")
        self.tell.measure(seconds_before=self.before)

    def _require_same(self, found: Checkpoint) -> None:
        """Raise HearthError, naming what differs, for a checkpoint of another shape, other settings or other data."""
        if digest_json(self.fixed) == found.about["config_sha256"]:
            return
        where = place(self.saver.folder, found.step)
        then, now = found.about["config"], self.fixed
        if then["data"] != now["data"]:
            raise HearthError(
                f"{where}: made with other data: the shards changed since the start; delete {self.saver.folder} to begin again with these"
            )
        for part in ("model", "settings"):
            for name in now[part]:
                if then[part].get(name) != now[part][name]:
                    raise HearthError(
                        f"{where}: made with {name} = {then[part].get(name)}, this run has {now[part][name]}; "
                        f"choose another folder, or delete {self.saver.folder} to begin again"
                    )

    def step(self) -> None:
        """One optimiser step: gradient, verdict, update or none."""
        history, guard, number = self.history, self.settings.guard, self.history.steps
        self._hear_of_saves()
        started = time.monotonic()
        batch = self._batch(history.next_batch)
        loss, norm = self.trainer.gradient(batch)
        reason = fault(history, loss, norm, guard)
        if guard.recompute and (reason is not None or (number + 1) % guard.recompute == 0):
            loss, norm, wrong = self.trainer.agreed_gradient(batch)
            reason = fault(history, loss, norm, guard)
            if wrong:
                self.tell.note(f"this machine computed the gradient of step {number + 1:,} wrongly {wrong} times; it was computed again")
                history.faults.append({"step": number + 1, "wrong_results": wrong})
        if reason is None:
            self._save_when_due(number)
            self.trainer.update(number, history.updates)
        else:
            self.trainer.discard()
            self.tell.note(f"step {number + 1:,} is skipped: {reason}")
        history.add(loss, norm, time.monotonic() - started, reason)
        if history.steps % max(1, self.settings.steps // TRACES) == 0 or history.steps == self.settings.steps:
            history.traces.append({"step": history.steps, "tensors": self.trainer.tensor_digests()})
        if reason is not None and history.bad_in_a_row >= guard.patience:
            self._rewind(reason)
        self._progress()

    def _batch(self, number: int) -> Batch:
        """Batch `number`; raises HearthError for an id that the model does not know."""
        batch = self.batches(number)
        inputs, targets = batch[:2]
        largest = max(int(inputs.max()), int(targets.max()))
        if largest >= self.config.vocab_size or int(inputs.min()) < 0:
            raise HearthError(
                f"batch {number:,} holds the token id {largest if largest >= self.config.vocab_size else int(inputs.min()):,}; "
                f"the model's vocabulary has {self.config.vocab_size:,} ids: tokenise with the tokenizer that the model was planned for"
            )
        return batch

    def _rewind(self, reason: str) -> None:
        """Back to the last checkpoint, and on with the batches that come next; raises HearthError when that was done too often."""
        history, guard = self.history, self.settings.guard
        if len(history.rewinds) >= guard.rewinds:
            raise HearthError(
                f"training stopped at step {history.steps:,} ({guard.patience} bad steps in a row, after going back {len(history.rewinds)} "
                f"times): {reason}; lower the learning rate (plan.learning_rate_scale), or raise pretrain.guard.spike if the data is so"
            )
        self._hear_of_saves(wait=True)
        first, batches = history.next_batch - (history.steps - self.good), history.steps - self.good
        if not self.good:
            self.trainer.begin_again(self.initial())
        elif self.saver.copied is not None and self.saver.copied.step == self.good:
            self.trainer.restore(self.saver.copied.tensors)
        else:
            self.trainer.restore(read_checkpoint(place(self.saver.folder, self.good)).tensors)
        history.rewind(self.good)
        forget_after(self.saver.folder, self.good)
        self.kept = min(self.kept, self.good)
        self.tell.note(
            f"{guard.patience} bad steps in a row: back to step {self.good:,}, past the batches {first:,} to {first + batches - 1:,}"
        )

    # -- keeping ------------------------------------------------------------------------------------------------------------

    def _checkpoint(self, rewind_to: int, permanent: bool = False) -> Checkpoint:
        history = self.history
        about: Json = {
            "tokens": history.steps * self.settings.batch_tokens,
            "next_batch": history.next_batch,
            "world_size": 1,
            "config_sha256": digest_json(self.fixed),
            "config": self.fixed,
            "environment": self.environment,
        }
        values = {"history": history.copy(), "elapsed": self.before + time.monotonic() - self.began}
        return Checkpoint(history.steps, self.trainer.checkpoint_tensors(), values, about, rewind_to, permanent)

    def _save_when_due(self, number: int) -> None:
        """Begin to save the weights as they are after `number` steps, which have just given a good gradient."""
        every, forever = self.settings.checkpoint_steps, self.settings.permanent_steps
        permanent = forever > 0 and number // forever > self.good // forever
        if permanent or number - self.good >= every:
            self._hear_of_saves(wait=True)
            self.saver.begin(self._checkpoint(number, permanent))
            self.good = number

    def _hear_of_saves(self, *, wait: bool = False) -> None:
        """What became of the save in the background."""
        ended = self.saver.ended(wait=wait)
        if ended is not None:
            step, error = ended
            if error is None:
                self.kept = step
            else:
                self._not_saved(error)

    def _not_saved(self, error: HearthError) -> None:
        """Go on without a checkpoint, unless the results could not be written either: such steps are not worth taking."""
        if not self.out.is_dir():
            raise HearthError(f"{self.out}: the folder is gone, and what was in it; start the run again") from error
        try:
            require_space(self.out, results_space(self.config, self.settings), "the trained model")
        except HearthError as full:
            raise self._results_lost(full) from full
        self.tell.note(f"{error}; training goes on without this checkpoint")

    def keep(self) -> None:
        """Save the state as it is now, before the process ends; without a disk to do so, say from where the next one goes on."""
        self._hear_of_saves(wait=True)
        if self.history.steps > self.kept:
            try:
                save_checkpoint(self.saver.folder, self._checkpoint(self.good))
                self.kept = self.history.steps
            except HearthError as error:
                self.tell.note(str(error))
        self.tell.note(f"stopped after step {self.history.steps:,} of {self.settings.steps:,}; {self.kept:,} steps are kept")

    # -- the end ------------------------------------------------------------------------------------------------------------

    def _progress(self) -> None:
        size, recent, steps = self.settings.batch_tokens, self.history.seconds[-20:], self.history.steps
        rate = size * len(recent) / max(sum(recent), 1e-9)
        self.tell.progress(
            steps * size, self.settings.tokens, step=float(steps), tokens_per_second=rate, **self._recent("loss"), **self.trainer.figures
        )

    def _recent(self, name: str) -> dict[str, float]:
        """The mean loss of the last twenty steps under `name`; nothing when none of them was finite."""
        losses = [loss for loss in self.history.losses[-20:] if loss is not None]
        return {name: float(np.mean(losses))} if losses else {}

    def finish(self) -> None:
        """Write the results and say what was done."""
        self._hear_of_saves(wait=True)
        history, settings, tokens = self.history, self.settings, self.settings.tokens
        try:
            write_results(self.out, self.trainer, history)
        except (HearthError, FileNotFoundError) as error:
            raise self._results_lost(error) from error
        self.tell.record(
            tokens=tokens,
            flops=tokens * self.config.flops_per_token(settings.sequence_length),
            steps=settings.steps,
            parameters=self.config.parameters,
            dtype=settings.dtype,
            **self._recent("final_loss"),
        )
        if history.events:
            self.tell.record(skipped_steps=len(history.skipped), rewinds=len(history.rewinds))
        if history.faults:
            self.tell.measure(wrong_results=sum(each["wrong_results"] for each in history.faults))
        self.tell.measure(tokens_per_second=tokens / max(sum(history.seconds), 1e-9), step_seconds=float(np.median(history.seconds)))

    def _results_lost(self, error: Exception) -> HearthError:
        """The error that says how many steps are kept and how to go on from them."""
        if not self.out.is_dir():
            return HearthError(f"{self.out}: the folder is gone, and what was in it; start the run again")
        if not isinstance(error, DiskFullError):
            return error if isinstance(error, HearthError) else HearthError(f"{self.out}: cannot be written ({error})")
        return DiskFullError(
            f"{self.out}: no space left on the disk: {self.kept:,} of {self.settings.steps:,} steps are kept, later ones are lost;"
            f" free {training_space(self.config):,} bytes, which training asks for, and type the same command again"
            f" to go on from step {self.kept:,}"
        )
