"""Weights as one flat fp32 master with one flat compute copy and one flat gradient; every parameter is a view.

Mixed precision without autocast: the model computes in bf16 on the copy, the optimiser updates the master and refreshes the
copy. Parameters of one optimiser group and one shape lie side by side, so that a whole group is updated by a few tensor calls
(and all matrices of one shape are orthogonalised in one batch) with nothing copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

Group = Literal["matrix", "embedding", "head", "gain"]


def group_of(name: str, shape: tuple[int, ...]) -> Group:
    """The one optimiser group of a parameter; raises KeyError for a name that no rule covers."""
    if name == "model.embed_tokens.weight":
        return "embedding"
    if name in ("lm_head.weight", "score.weight"):
        return "head"
    if len(shape) == 1 and name.endswith("norm.weight"):
        return "gain"
    if len(shape) == 2 and name.startswith("model.layers."):
        return "matrix"
    raise KeyError(f"parameter {name} {shape} belongs to no optimiser group")


@dataclass(frozen=True)
class Span:
    """Parameters of one group and shape, side by side from `start` to `end` in the flat buffers."""

    group: Group
    shape: tuple[int, ...]
    start: int
    end: int
    names: tuple[str, ...]


class FlatParameters:
    """The flat buffers of a model. After construction the model computes in `dtype` on views of `compute`."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        parameters = dict(model.named_parameters())
        order = sorted(parameters, key=lambda name: (group_of(name, tuple(parameters[name].shape)), tuple(parameters[name].shape), name))
        total = sum(parameter.numel() for parameter in parameters.values())
        self.master = torch.zeros(total, dtype=torch.float32)
        self.compute = self.master if dtype == torch.float32 else torch.zeros(total, dtype=dtype)
        self.grad = torch.zeros(total, dtype=dtype)
        self.places: dict[str, tuple[int, int, tuple[int, ...]]] = {}
        self.spans: list[Span] = []
        at = 0
        for name in order:
            shape = tuple(parameters[name].shape)
            self.places[name] = (at, at + parameters[name].numel(), shape)
            group, last = group_of(name, shape), self.spans[-1] if self.spans else None
            if last is not None and (last.group, last.shape) == (group, shape):
                self.spans[-1] = Span(group, shape, last.start, at + parameters[name].numel(), (*last.names, name))
            else:
                self.spans.append(Span(group, shape, at, at + parameters[name].numel(), (name,)))
            at += parameters[name].numel()
        for name, parameter in parameters.items():
            start, end, shape = self.places[name]
            parameter.data = self.compute[start:end].view(shape)
            parameter.grad = self.grad[start:end].view(shape)

    def tensors(self) -> dict[str, Tensor]:
        """The fp32 master weights by name, as views."""
        return {name: self.master[start:end].view(shape) for name, (start, end, shape) in self.places.items()}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Set the master weights, by name, and the compute copy."""
        for name, view in self.tensors().items():
            view.copy_(tensors[name])
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Make the compute copy equal to the master."""
        if self.compute is not self.master:
            self.compute.copy_(self.master)
