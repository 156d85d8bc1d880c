"""The release in transformers, with none of our code and no `trust_remote_code`: the same logits, words and chat."""

from __future__ import annotations

import random
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from openhearth.align import chat
from openhearth.data.tokenizer import Tokenizer
from openhearth.model.generate import Sampling, generate
from openhearth.model.hf import load_model

from .conftest import TEXTS, make_run

transformers = pytest.importorskip("transformers", minversion="5.3")


@pytest.fixture(scope="module", params=[False, True], ids=["own head", "tied head"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The release, our model and tokenizer, and theirs."""
    release = make_run(tmp_path_factory.mktemp("run") / "run", tied=request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        theirs = transformers.AutoModelForCausalLM.from_pretrained(release, attn_implementation="eager").eval()
        their_tokenizer = transformers.AutoTokenizer.from_pretrained(release)
    return release, load_model(release), Tokenizer.load(release), theirs, their_tokenizer


def prompts(tokenizer: Tokenizer, count: int, longest: int) -> list[list[int]]:
    """Texts and chats of all lengths, and ids that no text gives."""
    choose = random.Random(1)
    found = []
    for number in range(count):
        size = choose.randint(1, longest)
        if number % 3 == 0:
            ids = [choose.randrange(tokenizer.vocab_size) for _ in range(size)]
        elif number % 3 == 1:
            ids = [tokenizer.bos, *tokenizer.encode(TEXTS[number % len(TEXTS)])][:size]
        else:
            ids = chat.prompt([{"role": "user", "content": TEXTS[number % len(TEXTS)][: size * 2]}], tokenizer)
        found.append(ids)
    return found


def test_it_loads_in_fp32_with_every_tensor_and_no_complaint(both: Any, recwarn: pytest.WarningsRecorder) -> None:
    release, ours, *_ = both
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        theirs, info = transformers.AutoModelForCausalLM.from_pretrained(release, output_loading_info=True)
    assert [list(info[name]) for name in ("missing_keys", "unexpected_keys", "mismatched_keys")] == [[], [], []]
    assert theirs.dtype == torch.float32
    assert sum(p.numel() for p in theirs.parameters()) == ours.config.parameters
    assert theirs.config.rope_parameters["rope_theta"] == ours.config.rope_theta


def test_logits_are_equal_within_1e_4_on_50_prompts(both: Any) -> None:
    _, ours, tokenizer, theirs, _ = both
    worst = 0.0
    with torch.inference_mode():
        for ids in prompts(tokenizer, 50, 200):
            batch = torch.tensor([ids])
            worst = max(worst, float((ours(batch) - theirs(batch).logits).abs().max()))
    assert worst < 1e-4


def test_the_comparison_of_logits_would_notice_one_changed_gain(both: Any) -> None:
    _, ours, tokenizer, theirs, _ = both
    batch = torch.tensor([prompts(tokenizer, 2, 50)[1]])
    gain = theirs.model.layers[1].self_attn.k_norm.weight
    with torch.inference_mode():
        gain[3] += 0.05
        different = float((ours(batch) - theirs(batch).logits).abs().max())
        gain[3] -= 0.05
    assert different > 1e-4


def test_greedy_continuations_of_64_tokens_are_identical(both: Any) -> None:
    _, ours, tokenizer, theirs, _ = both
    for ids in prompts(tokenizer, 12, 120):
        (answer,) = generate(ours, tokenizer, [ids], Sampling(max_new_tokens=64, temperature=0.0))
        given = theirs.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=64, do_sample=False)
        continued = given[0, len(ids) :].tolist()
        ended = bool(continued) and continued[-1] in tokenizer.eos
        assert continued[: len(continued) - ended] == answer.ids
        assert (answer.reason == "stop") == ended
        assert ended or len(answer.ids) == 64


def test_ids_are_those_of_our_tokenizer(both: Any) -> None:
    _, _, tokenizer, _, their_tokenizer = both
    texts = [*TEXTS, "e\u0301 \U0001f468\u200d\U0001f469 \r\n\t x", "\x00 a  b", "don't 123"]
    for text in texts:
        assert their_tokenizer(text, add_special_tokens=True)["input_ids"] == tokenizer.encode(text)
        assert their_tokenizer.decode(tokenizer.encode(text)) == text
    assert len(their_tokenizer) == tokenizer.vocab_size
    assert (their_tokenizer.bos_token_id, their_tokenizer.eos_token_id) == (tokenizer.bos, tokenizer.im_end)


@pytest.mark.parametrize("system", [None, "Answer in one line."])
@pytest.mark.parametrize("turns", [1, 3, 5])
def test_the_chat_template_gives_our_ids(both: Any, system: str | None, turns: int) -> None:
    _, _, tokenizer, _, their_tokenizer = both
    messages = [{"role": "system", "content": system}] if system else []
    messages += [{"role": ("user", "assistant")[n % 2], "content": f"turn {n}\n  {{{{ x }}}} e\u0301 "} for n in range(turns)]
    ids = their_tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True)["input_ids"]
    assert ids == chat.prompt(messages, tokenizer)
    whole = [*messages, {"role": "assistant", "content": "the end"}]
    ids = their_tokenizer.apply_chat_template(whole, tokenize=True, return_dict=True)["input_ids"]
    assert ids == chat.render(whole, tokenizer)[0]


def test_the_files_of_the_release_are_not_changed_by_loading(both: Any) -> None:
    from openhearth.release.verify import verify

    release: Path = both[0]
    assert verify(release).fault == ""
