"""Training that branches from a checkpoint of another run, weights and optimiser alike: from the trunk, before the learning rate fell."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from openhearth.errors import DamagedError
from openhearth.model.config import ModelConfig
from openhearth.train.checkpoint import Checkpoint
from openhearth.train.history import History
from openhearth.train.settings import Settings
from openhearth.train.trainer import Trainer


class FromTrunk(Trainer):
    """A trainer whose first weights and moments are those of `trunk`; AdamW's correction of its moments goes on from there."""

    def __init__(self, config: ModelConfig, settings: Settings, initial: Mapping[str, Tensor], *, trunk: Checkpoint) -> None:
        super().__init__(config, settings, initial)
        if set(trunk.tensors) != set(self.checkpoint_tensors()) or trunk.tensors["master"].shape != self.flat.master.shape:
            raise DamagedError(f'the checkpoint after step {trunk.step:,}: not one of this model; continue with start = "model"')
        self.trunk, self.earlier = trunk, History(**trunk.values["history"]).updates
        self.restore(trunk.tensors)

    def update(self, number: int, updates: int) -> None:
        super().update(number, updates + self.earlier)

    def begin_again(self, initial: Mapping[str, Tensor]) -> None:
        """Back to the trunk."""
        self.restore(self.trunk.tensors)
