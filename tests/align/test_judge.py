"""Judges on this machine give exact probabilities; agreement and calibration are what their definitions say."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from openhearth import cli
from openhearth.align.chat import prompt
from openhearth.align.constitution_files import load
from openhearth.align.judge import Pair, label_pairs, named, normalised
from openhearth.align.judge_agree import agreement, brier, expected_calibration_error, kappa, reliability
from openhearth.align.judge_checkpoint import Checkpoint
from openhearth.align.judge_command import read_pairs
from openhearth.data.tokenizer import Tokenizer
from openhearth.errors import HearthError
from openhearth.model.config import ModelConfig
from openhearth.model.init import initialise
from openhearth.model.transformer import Transformer
from tests.align.fake_endpoint import completion, serving


@pytest.fixture(scope="module")
def checkpoint(tokenizer: Tokenizer) -> Checkpoint:
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=32, intermediate_size=64, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=16,
        max_position_embeddings=512, bos_token_id=tokenizer.bos, eos_token_id=tokenizer.im_end,
    )  # fmt: skip
    model = Transformer(config)
    initialise(model, config, seed=1)
    with torch.no_grad():  # a fresh model is indifferent: give it opinions
        for name, parameter in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight", "lm_head.weight")):
                parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(len(name)))
    return Checkpoint(model, tokenizer, "digest")


ASKED = [[{"role": "user", "content": text}] for text in ("def wrap(text):", "a", "the width of the line " * 4)]


def test_a_choice_of_a_checkpoint_is_the_product_of_its_tokens_probabilities(checkpoint: Checkpoint) -> None:
    choices = (" (A)", " (B) then")
    for conversation, choice in zip(ASKED, checkpoint.choose(ASKED, choices, seed=0), strict=True):
        expected = []
        for option in choices:
            row, total = prompt(conversation, checkpoint.tokenizer), 0.0
            for token in checkpoint.tokenizer.encode(option):
                total += float(checkpoint.model(torch.tensor([row])).detach()[0, -1].log_softmax(-1)[token])
                row.append(token)
            expected.append(total)
        assert choice.raw == pytest.approx(expected, abs=1e-4)
        assert choice.first == pytest.approx(math.exp(expected[0]) / (math.exp(expected[0]) + math.exp(expected[1])), abs=1e-5)


def test_an_answer_does_not_depend_on_the_conversations_around_it(checkpoint: Checkpoint) -> None:
    together = checkpoint.reply(ASKED, seed=3, max_new_tokens=6)
    assert together == [checkpoint.reply([each], seed=3, max_new_tokens=6)[0] for each in ASKED]


def test_a_question_longer_than_the_context_is_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(HearthError, match="the judge's context holds 512"):
        checkpoint.choose([[{"role": "user", "content": "x y " * 600}]], ("A", "B"), seed=0)


def test_choices_that_are_the_same_tokens_are_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(HearthError, match="are the same tokens"):
        checkpoint.choose(ASKED, ("A", "A"), seed=0)


def test_a_label_carries_where_it_came_from_and_swapping_the_answers_turns_it_round(checkpoint: Checkpoint) -> None:
    constitution = load("house")
    one = Pair("p", "align", tuple(ASKED[0]), "yes", "no", "policy")
    other = Pair("p", "align", tuple(ASKED[0]), "no", "yes", "policy")
    (a,), (b,) = (label_pairs(checkpoint, constitution, [pair], seed=1) for pair in (one, other))
    assert a.label is not None and b.label == pytest.approx(1 - a.label, abs=1e-6)
    assert a.kind == "logits" and a.constitution == constitution.digest and a.policy == "policy" and a.judge.startswith("checkpoint:")
    assert a.principle in {each.id for each in constitution.judges} and a.tokens > 0 and json.dumps(a.row())
    assert a.label == pytest.approx((normalised(*a.forward) + normalised(*a.backward)) / 2)


def test_a_clamp_that_is_no_interval_is_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(HearthError, match="the smaller first"):
        label_pairs(checkpoint, load("house"), [], seed=1, clamp=(0.6, 0.4))


def test_a_hugging_face_folder_gives_the_same_log_probabilities_as_our_own_model(checkpoint: Checkpoint, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from openhearth.align.chat import JINJA_TEMPLATE
    from openhearth.align.judge_hf import HuggingFace
    from openhearth.model.hf import save_model

    save_model(checkpoint.model, checkpoint.model.config, tmp_path)
    checkpoint.tokenizer.save(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(JINJA_TEMPLATE)
    theirs = HuggingFace(tmp_path)
    ours = checkpoint.choose(ASKED, (" (A)", " (B)"), seed=0)
    for mine, their in zip(ours, theirs.choose(ASKED, (" (A)", " (B)"), seed=0), strict=True):
        assert their.raw == pytest.approx(mine.raw, abs=1e-3)
    reply = theirs.reply(ASKED[:1], seed=0, max_new_tokens=4, temperature=0.0)
    assert reply[0].text == checkpoint.reply(ASKED[:1], seed=0, max_new_tokens=4, temperature=0.0)[0].text.strip()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("(A)", 0),
        (" B", 1),
        ("A or B, the answer is B.", 1),
        ("both A and B", None),
        ("Apples", None),
        ("", None),
        ("So the answer is: (A)", 0),
    ],
)
def test_which_choice_a_text_names(text: str, found: int | None) -> None:
    assert named(text, (" (A)", " (B)")) == found


# -- agreement and calibration ----------------------------------------------------------------------------------------------


def test_a_judge_that_is_as_right_as_it_is_sure_has_no_calibration_error() -> None:
    p = np.repeat([0.1, 0.3, 0.7, 0.9], 1000)
    y = np.concatenate([np.arange(1000) < 1000 * share for share in (0.1, 0.3, 0.7, 0.9)]).astype(float)
    assert expected_calibration_error(p, y) == pytest.approx(0, abs=1e-12)
    assert expected_calibration_error(np.full(100, 0.95), (np.arange(100) < 60).astype(float)) == pytest.approx(0.35)
    assert brier(np.array([0.5, 1.0, 0.0]), np.array([1.0, 1.0, 1.0])) == pytest.approx((0.25 + 0 + 1) / 3)


def test_kappa_is_one_for_the_same_choices_and_zero_for_independent_ones() -> None:
    a, b = np.tile([0.9, 0.1], 50), np.repeat([0.9, 0.1], 50)
    assert kappa(a, a) == 1 and kappa(a, b) == 0 and kappa(a, 1 - a) == -1


def test_undecided_rows_are_counted_and_left_out() -> None:
    facts = agreement([0.9, None, 0.2, 0.6], [0.8, 0.7, 0.9, None])
    assert (facts["rows"], facts["undecided"], facts["agree"].value) == (2, 2, 0.5)
    with pytest.raises(HearthError, match="no row that both decided"):
        agreement([None], [0.5])
    assert reliability([0.9, None, 0.8, 0.3], [1, 1, 0, 0])["accuracy"].value == pytest.approx(2 / 3)


# -- the command ------------------------------------------------------------------------------------------------------------


def test_two_judges_are_compared_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"p{number}", "first": "good", "second": "bad", "label": 1} for number in range(10)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))

    def answer(number: int, request: dict) -> object:  # type: ignore[type-arg]
        text = request["messages"][0]["content"]
        wise = request["model"] == "wise"
        return completion("(A)" if not wise or text.index("good]") < text.index("bad]") else "(B)")

    with serving(answer) as fake:  # type: ignore[arg-type]
        command = ["judge", "agree", f"{fake.address}#wise", f"{fake.address}#lazy", "--pairs", "pairs.jsonl", "--json"]
        assert cli._status(command) == 0
    wise, lazy = (facts := json.loads(capsys.readouterr().out))["judges"]
    assert wise["known"]["accuracy"]["value"] == 1 and wise["order"]["gap"]["value"] == 0 and wise["kinds"] == ["votes"]
    assert lazy["order"]["gap"]["value"] == 1 and lazy["known"]["brier"]["value"] == 0.25 and facts["agreement"]["rows"] == 10
    assert cli._status(command[:-1]) == 0, "the second time everything is in the cache, and nobody is listening"
    assert "liking for first place  +1.000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ('{"prompt": "p", "first": "a"}', ":1: needs the texts prompt, first and second"),
        ('{"prompt": "p", "chosen": "a", "rejected": "a"}', "chosen and rejected are the same text"),
        ('{"prompt": "p", "first": "a", "second": "b", "label": 1.5}', "label is 1.5"),
        ('{"prompt": "p", "first": "a", "second": "b", "label": NaN}', "label is nan"),
        ("[1]", "needs the texts"),
        ("{", "not JSON"),
        ("", "holds no pairs"),
    ],
)
def test_a_row_that_is_no_pair_is_refused_with_its_line(tmp_path: Path, row: str, said: str) -> None:
    (tmp_path / "p.jsonl").write_text(row)
    with pytest.raises(HearthError, match=said):
        read_pairs(tmp_path / "p.jsonl")
