"""The transformer against closed forms, against plain PyTorch, and against itself with a cache."""

from __future__ import annotations

import math

import pytest
import torch

from openhearth.model.config import ModelConfig
from openhearth.model.generate import Sampling, choose, generate, stream
from openhearth.model.init import initial_tensor, initialise, standard_deviation
from openhearth.model.ops import LOGITS_CHUNK, head_loss, rms_norm, swiglu
from openhearth.model.transformer import KVCache, Transformer

CONFIG = ModelConfig(
    vocab_size=300,
    hidden_size=64,
    intermediate_size=96,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    max_position_embeddings=64,
    bos_token_id=0,
    eos_token_id=1,
)


class ByteCodec:
    """Token i is the byte i % 256."""

    bos, im_end = 0, 1

    def decode_bytes(self, ids: list[int]) -> bytes:
        return bytes(i % 256 for i in ids)


@pytest.fixture
def model() -> Transformer:
    torch.manual_seed(0)
    model = Transformer(CONFIG)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2 + (parameter.dim() == 1))
    return model.eval()


def test_parameters_are_counted_exactly(model: Transformer) -> None:
    assert sum(parameter.numel() for parameter in model.parameters()) == CONFIG.parameters
    matrices = sum(p.numel() for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name)
    assert matrices == CONFIG.matmul_parameters


def test_tied_parameters_are_counted_once() -> None:
    tied = CONFIG.model_copy(update={"tie_word_embeddings": True})
    assert sum(parameter.numel() for parameter in Transformer(tied).parameters()) == tied.parameters


def test_flops_of_gpt3_under_the_stated_convention() -> None:
    # planning reference: at 2,048 tokens the ratio to 6 N D is 1.027 for GPT-3's shape
    gpt3 = ModelConfig(
        vocab_size=50257,
        hidden_size=12288,
        intermediate_size=32768,
        num_layers=96,
        num_heads=96,
        num_kv_heads=96,
        head_dim=128,
        max_position_embeddings=2048,
    )
    assert gpt3.flops_per_token(2048) / (6 * gpt3.matmul_parameters) == pytest.approx(1.027, abs=0.001)


def test_head_loss_and_its_gradients_equal_plain_cross_entropy() -> None:
    torch.manual_seed(1)
    rows = LOGITS_CHUNK + 7
    hidden = torch.randn(rows, 8, requires_grad=True)
    head = torch.randn(50, 8, requires_grad=True)
    targets = torch.randint(0, 50, (rows,))
    targets[::5] = -1
    scale = 1 / int((targets >= 0).sum())
    head_loss(hidden, head, targets, scale).backward()
    ours = hidden.grad, head.grad
    hidden.grad = head.grad = None
    plain = torch.nn.functional.cross_entropy(hidden @ head.t(), targets, ignore_index=-1)
    plain.backward()
    assert head_loss(hidden, head, targets, scale).item() == pytest.approx(plain.item(), rel=1e-6)
    for mine, theirs in zip(ours, (hidden.grad, head.grad), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-7)  # fp32, other order of sums


def test_head_loss_survives_logits_that_overflow_a_naive_exponential() -> None:
    hidden = torch.tensor([[200.0], [-200.0]], requires_grad=True)
    head = torch.tensor([[1.0], [0.0], [-1.0]])
    loss = head_loss(hidden, head, torch.tensor([2, 2]), 1.0)
    assert loss.item() == pytest.approx(400.0)  # the first row is wrong by 400 nats, the second right
    loss.backward()
    assert torch.isfinite(hidden.grad).all()


def test_norm_and_swiglu_gradients_equal_numerical_ones() -> None:
    torch.manual_seed(2)
    x, weight = torch.randn(3, 5, requires_grad=True), torch.randn(5, requires_grad=True)
    reference = x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * weight
    probe = torch.randn(3, 5)
    expected = torch.autograd.grad((reference * probe).sum(), (x, weight))
    found = torch.autograd.grad((rms_norm(x, weight, 1e-6) * probe).sum(), (x, weight))
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)
    gate, up = torch.randn(3, 5, requires_grad=True), torch.randn(3, 5, requires_grad=True)
    expected = torch.autograd.grad((gate * gate.sigmoid() * up * probe).sum(), (gate, up))
    found = torch.autograd.grad((swiglu(gate, up) * probe).sum(), (gate, up))
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)


def test_first_loss_is_the_logarithm_of_the_vocabulary() -> None:
    model = Transformer(CONFIG)
    initialise(model, CONFIG, seed=1)
    ids = torch.randint(0, 300, (2, 33))
    assert float(model.loss(ids[:, :-1], ids[:, 1:], 1 / 64)) == pytest.approx(math.log(300), abs=0.01)


def test_initial_weights_depend_on_name_and_seed_alone() -> None:
    name = "model.layers.0.self_attn.q_proj.weight"
    drawn = initial_tensor(name, (64, 64), CONFIG, 1)
    assert torch.equal(drawn, initial_tensor(name, (64, 64), CONFIG, 1))
    assert not torch.equal(drawn, initial_tensor(name, (64, 64), CONFIG, 2))
    assert not torch.equal(drawn, initial_tensor(name.replace(".0.", ".1."), (64, 64), CONFIG, 1))
    assert float(drawn.std()) == pytest.approx(64**-0.5, rel=0.05)
    with pytest.raises(KeyError):
        standard_deviation("model.layers.0.surprise.weight", CONFIG)


def test_cached_logits_equal_the_cache_free_forward(model: Transformer) -> None:
    ids = torch.randint(2, 300, (2, 20))
    with torch.inference_mode():
        whole = model(ids)
        cache = KVCache(CONFIG, 2, 20)
        pieces = torch.cat([model(ids[:, :7], cache), model(ids[:, 7:8], cache), model(ids[:, 8:], cache)], dim=1)
    assert torch.allclose(whole, pieces, atol=1e-4)  # fp32 logits of size ~10, other order of sums


def test_a_batch_of_prompts_answers_like_each_prompt_alone(model: Transformer) -> None:
    prompts = [[5, 6, 7], [9] * 17, [33, 44, 55, 66, 77, 88]]
    for sampling in (
        Sampling(max_new_tokens=30, temperature=0.0),
        Sampling(max_new_tokens=30, temperature=0.9, top_k=20, top_p=0.9, seed=4),
    ):
        together = generate(model, ByteCodec(), prompts, sampling)
        alone = [generate(model, ByteCodec(), [prompt], sampling)[0] for prompt in prompts]
        assert together == alone


def test_greedy_generation_follows_the_cache_free_forward(model: Transformer) -> None:
    prompt = [7, 8, 9]
    answer = generate(model, ByteCodec(), [prompt], Sampling(max_new_tokens=20, temperature=0.0))[0]
    with torch.inference_mode():
        logits = model(torch.tensor([prompt + answer.ids]))
    assert logits[0, len(prompt) - 1 : -1].argmax(-1).tolist() == answer.ids


def test_generation_ends_at_the_context_and_refuses_a_prompt_that_fills_it(model: Transformer) -> None:
    answer = generate(model, ByteCodec(), [[5] * 60], Sampling(max_new_tokens=50, temperature=0.0))[0]
    assert (answer.reason, len(answer.ids)) in ((("context", 4)), ("stop", len(answer.ids)))
    with pytest.raises(Exception, match="context"):
        generate(model, ByteCodec(), [[5] * 64], Sampling())


class Scripted:
    """A stand-in for sampling: a codec whose bytes spell out a fixed text, whatever the model says."""

    bos, im_end = 0, 1

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = iter(pieces)

    def decode_bytes(self, ids: list[int]) -> bytes:
        return next(self.pieces)


def test_streaming_never_splits_a_character_nor_shows_part_of_a_stop_string(model: Transformer) -> None:
    text = "aé\U0001f600b".encode()
    sampling = Sampling(max_new_tokens=len(text) + 4, temperature=1.0, stop=("END",), seed=3)
    shown = list(stream(model, Scripted([bytes([byte]) for byte in text] + [b"E", b"N", b"D", b"x"] * 9), [5, 6], sampling))
    assert "".join(shown) in ("aé\U0001f600b", "aé\U0001f600b"[: len("".join(shown))])
    assert not any("\ufffd" in piece or "E" in piece for piece in shown)


def test_top_k_and_top_p_keep_what_they_should() -> None:
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
    generator = torch.Generator().manual_seed(0)
    assert {choose(logits, Sampling(top_k=2, temperature=1.0), generator) for _ in range(300)} == {0, 1}
    assert {choose(logits, Sampling(top_p=0.6, temperature=1.0), generator) for _ in range(300)} == {0, 1}
    drawn = [choose(logits, Sampling(temperature=1.0), generator) for _ in range(4000)]
    assert drawn.count(0) / 4000 == pytest.approx(0.5, abs=0.03)  # four standard errors
    assert choose(logits, Sampling(temperature=0.0), generator) == 0
