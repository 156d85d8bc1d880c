"""The few operations that decide the speed of training, each with its gradient written out.

PyTorch's own versions are right but slow on a processor: they pass over memory many times and keep whole fp32 copies. Each
function here computes the textbook formula in fp32 where it matters and touches memory as seldom as plain PyTorch calls allow.
Suffixes: N rows (batch x sequence), D width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from openhearth.model.config import LOGITS_CHUNK as LOGITS_CHUNK


class _RMSNorm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        x_fp32 = x.float()
        scale = torch.linalg.vector_norm(x_fp32, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        normed = (x_fp32 * scale).to(x.dtype)
        ctx.save_for_backward(normed, scale, weight)
        out: Tensor = normed * weight
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (grad,) = gradients
        normed, scale, weight = ctx.saved_tensors
        grad_weight = (grad * normed).flatten(0, -2).sum(0)
        grad_normed = grad * weight
        along = (grad_normed * normed).mean(-1, keepdim=True, dtype=torch.float32).to(grad.dtype)
        grad_x = torch.addcmul(grad_normed, normed, along, value=-1).mul_(scale.to(grad.dtype))
        return grad_x, grad_weight, None


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`x / sqrt(mean(x^2) + eps) * weight` over the last dimension, the mean in fp32 (Zhang and Sennrich 2019, eq. 4)."""
    result: Tensor = _RMSNorm.apply(x, weight, eps)  # type: ignore[no-untyped-call]
    return result


class _SwiGLU(Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return torch.nn.functional.silu(gate) * up

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (grad,) = gradients
        gate, up = ctx.saved_tensors
        return torch.ops.aten.silu_backward(grad, gate).mul_(up), torch.nn.functional.silu(gate).mul_(grad)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """`silu(gate) * up` (Shazeer 2020, eq. 5), keeping only its two inputs for the gradient."""
    result: Tensor = _SwiGLU.apply(gate, up)  # type: ignore[no-untyped-call]
    return result


class _HeadLoss(Function):
    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, head_VD: Tensor, targets_N: Tensor, scale: float) -> Tensor:
        grad_hidden = torch.empty_like(hidden_ND)
        grad_head = torch.zeros(head_VD.shape, dtype=torch.float32)
        total = torch.zeros((), dtype=torch.float32)
        for start in range(0, hidden_ND.shape[0], LOGITS_CHUNK):
            hidden = hidden_ND[start : start + LOGITS_CHUNK]
            targets = targets_N[start : start + LOGITS_CHUNK, None]
            valid = targets >= 0
            targets = targets.clamp(min=0)
            logits = hidden @ head_VD.t()
            probabilities = logits.softmax(1, dtype=torch.float32)
            # the largest logit and the largest probability belong together, and neither under- nor overflows
            log_normaliser = logits.amax(1, keepdim=True).float() - probabilities.amax(1, keepdim=True).log()
            total += ((log_normaliser - logits.gather(1, targets).float()) * valid).sum()
            probabilities.scatter_add_(1, targets, torch.full_like(log_normaliser, -1.0))
            if not valid.all():
                probabilities.mul_(valid)
            grad_logits = probabilities.to(hidden.dtype)  # times `scale`, which is applied to the two smaller results
            torch.mm(grad_logits, head_VD, out=grad_hidden[start : start + LOGITS_CHUNK])
            grad_head += grad_logits.t() @ hidden
        grad_hidden.mul_(scale)
        grad_head.mul_(scale)
        ctx.save_for_backward(grad_hidden, grad_head.to(head_VD.dtype))
        return total * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        grad_hidden, grad_head = ctx.saved_tensors  # the loss is the root of the graph: its own gradient is 1
        return grad_hidden, grad_head, None, None


def head_loss(hidden_ND: Tensor, head_VD: Tensor, targets_N: Tensor, scale: float) -> Tensor:
    """Cross-entropy of `hidden @ head.T` against `targets` (-1: not counted), summed and multiplied by `scale`; nats.

    No more than LOGITS_CHUNK rows of fp32 logits are alive; the gradient is computed in the same pass. The result must be the
    root of the graph: its gradient is taken to be 1.
    """
    result: Tensor = _HeadLoss.apply(hidden_ND, head_VD, targets_N, scale)  # type: ignore[no-untyped-call]
    return result
