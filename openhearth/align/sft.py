"""The stage `sft`: supervised fine-tuning on conversations drawn from the same corpus, with no other model and no network.

The loss is taken on the assistant's tokens alone (Ouyang et al. 2022). The loop, the optimiser and the checkpoints are those of
pretraining; the first weights are pretraining's last.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from openhearth.ledger import digest_bytes, digest_json, write_atomic, write_json
from openhearth.model.config import ModelConfig
from openhearth.stage import Made, Seeded, Tell
from openhearth.train.planning import read_plan, settings_of
from openhearth.train.schedule import Schedule


class Sft(Seeded):
    """Teach the pretrained model to answer, on examples made from the training side of the corpus."""

    kind: ClassVar[str] = "sft"
    needs: ClassVar[tuple[str, ...]] = ("corpus", "tokenizer", "plan", "pretrain")
    resumes: ClassVar[bool] = True

    seed: int | None = Field(default=None, ge=0, lt=2**63)
    """Seed of the choice, the wording and the order of examples; the recipe's when left out."""
    epochs: float = Field(default=3.0, gt=0, le=1000)
    """Most passes over the examples; the plan's time may end sooner."""
    learning_rate_scale: float = Field(default=0.3, gt=0, le=100)
    """Peak learning rates as a fraction of pretraining's."""
    schedule: Schedule = Schedule(warmup=0.05, cooldown=0.95, final=0.0, momentum_start=0.95)
    """Learning rate over the stage, as fractions of it."""

    def run(self, made: Made, out: Path, tell: Tell) -> None:
        import numpy as np

        from openhearth.align.examples import Limits, make_examples, read_documents
        from openhearth.align.packing import pack
        from openhearth.data.order import keys_of, permute
        from openhearth.data.tokenizer import Tokenizer
        from openhearth.model.hf import CONFIG, WEIGHTS, load_tensors
        from openhearth.train.loop import Batch, train

        assert self.seed is not None, "resolve() fills in the seed"
        seed = self.seed
        plan = read_plan(made)
        config = ModelConfig.model_validate(plan["model"])
        planned = settings_of(plan, "sft")
        tokenizer = Tokenizer.load(made["tokenizer"].path)
        documents = read_documents(made["corpus"].path / "documents.parquet")
        examples = make_examples(documents, "train", tokenizer, planned.sequence_length, Limits(tokens=planned.tokens), seed)
        packed = pack(examples.rendered, planned.sequence_length, tokenizer.bos, seed)
        windows = len(packed.inputs)
        rows = max(1, planned.batch_tokens // planned.sequence_length)
        if not windows:  # a text of which no part makes a question: the release still has a chat model, untaught
            tell.note("no question and answer could be made of this text: the weights stay as pretraining left them")
            write_json(out / "examples.json", examples.counts() | {"windows": 0, "learned_tokens": 0, "updates": 0})
            for name in (WEIGHTS, CONFIG):
                write_atomic(out / name, (made["pretrain"].path / name).read_bytes())
            for name in ("steps.jsonl", "trace.jsonl"):
                write_atomic(out / name, b"")
            return
        settings = planned.model_copy(
            update={
                "steps": max(1, min(planned.steps, round(self.epochs * windows / rows))),
                "learning_rate": {group: rate * self.learning_rate_scale for group, rate in planned.learning_rate.items()},
                "schedule": self.schedule,
            }
        )
        counts = examples.counts() | {"windows": windows, "learned_tokens": packed.learned, "updates": settings.steps}
        write_json(out / "examples.json", counts)
        tell.note(f"{packed.conversations:,} conversations in {windows:,} windows, {packed.learned:,} tokens to learn")

        def batches(step: int) -> Batch:
            epoch, within = np.divmod(np.arange(step * rows, (step + 1) * rows), windows)
            chosen = np.array([permute(within[i], windows, keys_of("sft", seed, int(epoch[i]))) for i in range(rows)])
            return packed.inputs[chosen], packed.targets[chosen]

        data = digest_json([digest_bytes(ids.tobytes()) for ids in (packed.inputs, packed.targets)])
        train(config, settings, lambda: load_tensors(made["pretrain"].path, config), batches, out, tell, data=data)
        tell.record(examples=packed.conversations, learned_tokens=packed.learned)
