"""The update rules against torch's own, and the parts that make them fast against plain formulas."""

from __future__ import annotations

import pytest
import torch

from openhearth.model.transformer import Transformer
from openhearth.train.flat import FlatParameters
from openhearth.train.optim import ADAM_BETAS, EPSILON, Optimizer, symmetric_product
from openhearth.train.settings import GROUPS
from tests.train.tiny import CONFIG, first_weights

RATES = dict.fromkeys(GROUPS, 1e-3)


def flat_weights(dtype: torch.dtype = torch.float32) -> FlatParameters:
    flat = FlatParameters(Transformer(CONFIG), dtype)
    flat.load(first_weights())
    return flat


@pytest.mark.parametrize("fused", [False, True])
def test_adamw_follows_pytorch_for_a_hundred_steps(fused: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    flat = flat_weights()
    ours = Optimizer(flat, "adamw", weight_decay=0.1)
    theirs = [torch.nn.Parameter(flat.master[span.start : span.end].clone()) for span in flat.spans]
    groups = [
        {"params": [p], "betas": ADAM_BETAS[span.group], "weight_decay": 0.1 if span.group == "matrix" else 0.0}
        for p, span in zip(theirs, flat.spans, strict=True)
    ]
    reference = torch.optim.AdamW(groups, lr=1e-3, eps=EPSILON, fused=fused)
    for number in range(1, 101):
        gradient = torch.randn(flat.master.shape, generator=generator)
        for parameter, span in zip(theirs, flat.spans, strict=True):
            parameter.grad = gradient[span.start : span.end].clone()
        reference.step()
        ours.step(gradient, RATES, 0.9, number)
    for parameter, span in zip(theirs, flat.spans, strict=True):
        tolerance = 1e-6 if span.group == "gain" else 1e-7  # gains are near one, where fp32 itself is no finer than 6e-8 a step
        assert float((flat.master[span.start : span.end] - parameter.detach()).abs().max()) < tolerance, span


def test_a_bf16_gradient_moves_the_fp32_master_and_its_copy() -> None:
    flat = flat_weights(torch.bfloat16)
    before = flat.master.clone()
    flat.grad.fill_(1.0)
    Optimizer(flat, "adamw").step(flat.grad, RATES, 0.9, 1)
    assert torch.allclose(before - flat.master, torch.full_like(before, 1e-3), rtol=1e-4)  # the first step of Adam is the rate itself
    assert torch.equal(flat.compute, flat.master.bfloat16())


@pytest.mark.parametrize("size", [1, 2, 5, 64, 67])
def test_a_symmetric_product_is_the_product(size: int) -> None:
    x = torch.randn(3, size, 2 * size + 1, generator=torch.Generator().manual_seed(0))
    product = symmetric_product(x, x.mT)
    assert torch.allclose(product.double(), x.double() @ x.double().mT, atol=1e-5 * (2 * size + 1))  # fp32 sums
