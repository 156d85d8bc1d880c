"""A trained reward model at work: scores of conversations, in standard deviations of the scores of the rows that it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from openhearth.align import chat
from openhearth.align.policy import Ids, Scored, frozen
from openhearth.align.preference_rows import Rendered
from openhearth.align.preference_training import last_scores
from openhearth.errors import DamagedError, HearthError
from openhearth.ledger import read_json
from openhearth.model.config import load_config
from openhearth.model.hf import WEIGHTS, tensor_shapes

BATCH = 32


@dataclass
class RewardModel:
    """Scores answers. Equal conversations have equal scores, whatever else is scored beside them, up to rounding."""

    model: Scored
    mean: float = 0.0
    deviation: float = 1.0

    @classmethod
    def load(cls, folder: Path, *, calibrated: bool = True) -> RewardModel:
        """The reward model that the stage `reward` left in `folder`; raises DamagedError naming the file."""
        config = load_config(folder)
        try:
            tensors = load_file(folder / WEIGHTS)
        except (SafetensorError, OSError, ValueError) as error:
            raise DamagedError(f"{folder / WEIGHTS}: not readable as safetensors ({error})") from None
        shapes = {name: shape for name, shape in tensor_shapes(config).items() if name != "lm_head.weight"}
        shapes["score.weight"] = (1, config.hidden_size)
        if {name: tuple(tensor.shape) for name, tensor in tensors.items()} != shapes:
            raise DamagedError(f"{folder / WEIGHTS}: not the tensors of a reward model of this shape")
        if not config.tie_word_embeddings:
            tensors["lm_head.weight"] = torch.zeros(config.vocab_size, config.hidden_size)
        model = frozen(config, tensors, Scored)
        assert isinstance(model, Scored)
        if not calibrated:
            return cls(model)
        figures = read_json(folder / "reward.json")
        return cls(model, figures["mean"], figures["standard_deviation"])

    @torch.inference_mode()
    def raw(self, inputs: Ids, targets: Ids) -> npt.NDArray[np.float64]:
        """The scores of rows as `Rendered` has them, (rows,)."""
        found = [last_scores(self.model, inputs[at : at + BATCH], targets[at : at + BATCH]).double() for at in range(0, len(inputs), BATCH)]
        return torch.cat(found).numpy()

    def calibrate(self, pairs: Rendered) -> tuple[float, float]:
        """Mean and standard deviation of the scores of all answers; from then on `score` is in these."""
        scores = self.raw(pairs.inputs, pairs.targets)
        self.mean, self.deviation = float(scores.mean()), float(scores.std()) or 1.0
        return self.mean, self.deviation

    def score(self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], tokenizer: chat.ChatTokenizer) -> list[float]:
        """Scores of answers (ids without their end) to prompts (ids up to the assistant's header)."""
        width = max(len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True))
        if width + 1 > self.model.config.max_position_embeddings:
            raise HearthError(f"an answer with its prompt has {width + 1:,} tokens, more than the reward model reads")
        inputs = np.full((len(prompts), width), tokenizer.bos, dtype=np.int64)
        targets = np.full_like(inputs, -1)
        for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            ids = [*prompt, *answer, tokenizer.im_end]
            inputs[row, : len(ids) - 1] = ids[:-1]
            targets[row, len(prompt) - 1 : len(ids) - 1] = ids[len(prompt) :]
        return [float(value) for value in (self.raw(inputs, targets) - self.mean) / self.deviation]
