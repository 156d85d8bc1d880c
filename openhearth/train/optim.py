"""Muon for the matrices of the blocks, AdamW for embedding, head and gains; AdamW for all as an option.

Both work on the flat buffers of `FlatParameters`, a whole span at a time. Muon: Jordan et al. 2024; its orthogonalisation: Polar
Express (Amsel et al. 2025), five steps. AdamW: Loshchilov and Hutter 2019.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from openhearth.train.flat import FlatParameters, Span
from openhearth.train.settings import OptimizerName

POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)
"""Coefficients of the five odd polynomials, for singular values in [1e-3, 1] (Amsel et al. 2025, algorithm 1)."""

ADAM_BETAS = {"matrix": (0.9, 0.95), "embedding": (0.8, 0.95), "head": (0.8, 0.95), "gain": (0.8, 0.95)}
EPSILON = 1e-10


def symmetric_product(x: Tensor, y: Tensor) -> Tensor:
    """`x @ y`, (count, n, n), where that is known to be symmetric: three quarters of the work, since one quarter is another's mirror."""
    half = x.shape[1] // 2
    product = x.new_empty(x.shape[0], x.shape[1], x.shape[1])
    product[:, :half] = torch.bmm(x[:, :half], y)
    product[:, half:, half:] = torch.bmm(x[:, half:], y[:, :, half:])
    product[:, half:, :half] = product[:, :half, half:].mT
    return product


def orthogonalise(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """The nearest semi-orthogonal matrices, roughly: (count, rows, columns) -> the same shape, in `dtype`."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = (x / (x.norm(dim=(1, 2), keepdim=True) * 1.02 + 1e-6)).to(dtype)
    for a, b, c in POLAR_EXPRESS:
        gram = symmetric_product(x, x.mT)
        polynomial = symmetric_product(gram, gram).mul_(c).add_(gram, alpha=b)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x.mT if tall else x


class Optimizer:
    """One update rule per span. `state` holds the flat buffers that a checkpoint must keep."""

    def __init__(
        self, flat: FlatParameters, optimizer: OptimizerName, *, weight_decay: float = 0.0, orthogonalise_in: torch.dtype = torch.float32
    ) -> None:
        self.flat = flat
        self.optimizer = optimizer
        self.weight_decay = weight_decay
        self.orthogonalise_in = orthogonalise_in
        self.state = {"first_moment": torch.zeros_like(flat.master), "second_moment": torch.zeros_like(flat.master)}
        covered = sum(span.end - span.start for span in flat.spans)
        assert covered == flat.master.numel(), "every parameter belongs to exactly one span"

    def rule(self, span: Span) -> OptimizerName:
        """The update rule of a span."""
        return "muon" if span.group == "matrix" and self.optimizer == "muon" else "adamw"

    @torch.no_grad()
    def step(self, gradient: Tensor, learning_rate: Mapping[str, float], momentum: float, number: int) -> None:
        """Update the master weights from the flat `gradient` (step `number` counts from 1), then refresh the compute copy."""
        for span in self.flat.spans:
            rate = learning_rate[span.group]
            if self.rule(span) == "muon":
                self._muon(span, gradient, rate, momentum)
            else:
                self._adamw(span, gradient, rate, number)
        self.flat.refresh()

    def _muon(self, span: Span, gradient: Tensor, rate: float, momentum: float) -> None:
        rows, columns = span.shape
        g = gradient[span.start : span.end].float()
        average = self.state["first_moment"][span.start : span.end]
        average.lerp_(g, 1 - momentum)
        nesterov = g.lerp(average, momentum).view(-1, rows, columns)
        update = orthogonalise(nesterov, self.orthogonalise_in)
        weights = self.flat.master[span.start : span.end].view(-1, rows, columns)
        weights.mul_(1 - rate * self.weight_decay)
        weights.add_(update.float(), alpha=-rate * max(1.0, rows / columns) ** 0.5)

    def _adamw(self, span: Span, gradient: Tensor, rate: float, number: int) -> None:
        beta1, beta2 = ADAM_BETAS[span.group]
        buffers = (self.flat.master, gradient, self.state["first_moment"], self.state["second_moment"])
        weights, g, first, second = (buffer[span.start : span.end] for buffer in buffers)
        steps = torch.tensor(float(number), device=weights.device)
        decay = self.weight_decay if span.group == "matrix" else 0.0
        torch._fused_adamw_(  # one pass over memory
            [weights], [g.float()], [first], [second], [], [steps],
            lr=rate, beta1=beta1, beta2=beta2, weight_decay=decay, eps=EPSILON, amsgrad=False, maximize=False,
        )  # fmt: skip
