"""A judge behind an endpoint that is down, slow, wrong, truncated, rate-limited or out of budget; nothing is paid for twice."""

from __future__ import annotations

import email.utils
import json
import math
import time
from pathlib import Path
from typing import Any

import pytest

from openhearth.align.constitution_files import load
from openhearth.align.judge import Pair, label_pairs
from openhearth.align.judge_endpoint import Endpoint, OutOfBudget, Price
from openhearth.errors import HearthError
from tests.align.fake_endpoint import Answer, Json, completion, fault, serving

ASKED = [[{"role": "user", "content": f"question {number}"}] for number in range(8)]
KEY = "sk-secret-0123456789"
CHOICES = (" (A)", " (B)")


def top(**logprobs: float) -> list[Json]:
    """One place of an answer with its likeliest tokens."""
    found = [{"token": token, "logprob": value} for token, value in logprobs.items()]
    return [{"token": " (", "logprob": -0.01, "top_logprobs": [{"token": " (", "logprob": -0.01}]}, {**found[0], "top_logprobs": found}]


def endpoint(address: str, tmp_path: Path, **options: Any) -> Endpoint:
    return Endpoint(address, "m", tmp_path / "cache", **{"sleep": lambda seconds: None, "workers": 1, "timeout": 5.0, **options})


# -- choices ----------------------------------------------------------------------------------------------------------------


def test_a_choice_is_by_the_normalised_probabilities_of_the_token_that_names_it(tmp_path: Path) -> None:
    spread = {"A": math.log(0.5), " B": math.log(0.2), "B": math.log(0.1), "the": math.log(0.1)}
    with serving(lambda number, request: completion(" (A)", top(**spread))) as fake:
        (choice,) = endpoint(fake.address, tmp_path).choose(ASKED[:1], CHOICES, seed=0)
    assert choice.kind == "logits" and choice.first == pytest.approx(0.5 / (0.5 + 0.3))
    assert fake.requests[0]["logprobs"] is True and fake.requests[0]["top_logprobs"] == 20


@pytest.mark.parametrize("refusal", ["left out", "refused"])
def test_without_log_probabilities_votes_are_counted_and_said_to_be_votes(tmp_path: Path, refusal: str) -> None:
    said = ["(A)", "I think (B).", "the answer is (A)", "(A)", "neither, really"]

    def answer(number: int, request: Json) -> Answer:
        if "logprobs" in request:
            return completion("(A)") if refusal == "left out" else fault(400, "this model does not support logprobs")
        return completion(said[request["seed"] - 7])

    with serving(answer) as fake:
        judge = endpoint(fake.address, tmp_path)
        choices = judge.choose(ASKED[:2], CHOICES, seed=7)
    assert [(each.kind, each.raw, each.first) for each in choices] == [("votes", (3.0, 1.0, 1.0), 0.75)] * 2
    assert sum("logprobs" in request for request in fake.requests) == 1, "log-probabilities are asked for once"


def test_a_judge_that_names_neither_leaves_a_row_without_a_label(tmp_path: Path) -> None:
    pairs = [Pair("p", "align", tuple(ASKED[0]), "yes", "no", "policy")]
    with serving(lambda number, request: completion("I would rather not say.")) as fake:
        (label,) = label_pairs(endpoint(fake.address, tmp_path), load("general"), pairs, seed=1)
    assert label.label is None and label.order_gap is None and label.forward == (0.0, 0.0, 5.0)


def test_both_orders_are_averaged_and_a_judge_that_likes_the_first_place_is_seen(tmp_path: Path) -> None:
    pairs = [Pair("p", "align", tuple(ASKED[0]), "yes", "no", "policy")]
    with serving(lambda number, request: completion("(A)", top(A=math.log(0.9), B=math.log(0.1)))) as fake:
        (label,) = label_pairs(endpoint(fake.address, tmp_path), load("general"), pairs, seed=1)
    assert label.label == pytest.approx(0.5) and label.order_gap == pytest.approx(0.8)
    assert label.forward == label.backward[::-1] and label.judge == f"endpoint:{fake.address} m" and label.tokens == 220


def test_a_judge_that_thinks_is_asked_for_its_thought_first_and_its_label_is_clamped(tmp_path: Path) -> None:
    def answer(number: int, request: Json) -> Answer:
        if "logprobs" not in request:
            return completion("The first is kinder.")
        first = request["messages"][0]["content"].index("yes") < request["messages"][0]["content"].index("no]")
        return completion("(A)", top(A=0.0, B=-20.0) if first else top(B=0.0, A=-20.0))

    pairs = [Pair("p", "align", tuple(ASKED[0]), "yes", "no", "policy")]
    with serving(answer) as fake:
        (label,) = label_pairs(endpoint(fake.address, tmp_path), load("general"), pairs, seed=1, thought=True, clamp=(0.4, 0.6))
    assert label.label == 0.6 and label.kind == "logits+thought" and label.clamp == (0.4, 0.6)
    asked = next(request for request in fake.requests if "logprobs" in request)["messages"]
    assert asked[0]["content"].endswith("Let's think step by step.") and asked[1]["content"] == "The first is kinder."


# -- misbehaviour -----------------------------------------------------------------------------------------------------------

FAULTS = {
    "rate-limited": fault(429, "slow down", Retry_After="3"),
    "overloaded": fault(503, "overloaded"),
    "truncated": Answer(completion("whole").body, cut=30),
    "not JSON": Answer(b"<html>gateway</html>"),
    "not a completion": Answer(b'{"choices": []}'),
    "no text": Answer(b'{"choices": [{"message": {"content": null}}]}'),
    "slow": Answer(completion("whole").body, hang=5.0),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_that_passes_is_waited_out(tmp_path: Path, name: str) -> None:
    waited: list[float] = []
    with serving(lambda number, request: FAULTS[name] if number < 2 else completion(" fine ")) as fake:
        judge = endpoint(fake.address, tmp_path, sleep=waited.append, timeout=0.2)
        assert [reply.text for reply in judge.reply(ASKED[:1], seed=0, max_new_tokens=8)] == ["fine"]
    assert waited == ([3.0, 3.0] if name == "rate-limited" else [0.5, 1.0])


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_that_stays_ends_in_one_line_after_a_few_attempts(tmp_path: Path, name: str) -> None:
    with serving(lambda number, request: FAULTS[name]) as fake, pytest.raises(HearthError) as error:
        endpoint(fake.address, tmp_path, attempts=3, timeout=0.1).reply(ASKED[:1], seed=0, max_new_tokens=8)
    assert "3 times in a row" in str(error.value) and "\n" not in str(error.value) and len(fake.requests) == 3


def test_an_endpoint_that_is_down_is_said_to_be(tmp_path: Path) -> None:
    with serving(lambda number, request: completion("x")) as fake:
        pass
    with pytest.raises(HearthError, match=r"no whole answer .ConnectionRefusedError"):
        endpoint(fake.address, tmp_path, attempts=2).reply(ASKED[:1], seed=0, max_new_tokens=8)


def test_retry_after_may_be_a_date_and_is_never_waited_for_longer_than_a_minute(tmp_path: Path) -> None:
    waited: list[float] = []
    dates = [email.utils.formatdate(time.time() + 20, usegmt=True), "86400", "nonsense"]
    with serving(lambda number, request: fault(429, "", Retry_After=dates[number]) if number < 3 else completion("x")) as fake:
        endpoint(fake.address, tmp_path, sleep=waited.append).reply(ASKED[:1], seed=0, max_new_tokens=8)
    assert 17 < waited[0] <= 20 and waited[1:] == [60.0, 2.0]


@pytest.mark.parametrize(("status", "hint"), [(401, "set OPENAI_API_KEY"), (404, "check address and model"), (302, "status 302")])
def test_what_does_not_pass_is_not_tried_again(tmp_path: Path, status: int, hint: str) -> None:
    with (
        serving(lambda number, request: fault(status, "no", Location="http://127.0.0.1:1/")) as fake,
        pytest.raises(HearthError, match=hint),
    ):
        endpoint(fake.address, tmp_path).reply(ASKED[:1], seed=0, max_new_tokens=8)
    assert len(fake.requests) == 1


# -- money and secrets ------------------------------------------------------------------------------------------------------


def test_out_of_budget_halfway_keeps_what_was_paid_for_and_a_resumed_run_pays_only_the_rest(tmp_path: Path) -> None:
    price = Price(read=10.0, written=100.0)  # each answer: 100 x 10 + 10 x 100 millionths = $0.002
    with serving(lambda number, request: completion(request["messages"][0]["content"])) as fake:
        with pytest.raises(OutOfBudget, match=r"the answers in .* are not paid for twice"):
            endpoint(fake.address, tmp_path, price=price, budget=0.009).reply(ASKED, seed=0, max_new_tokens=10)
        paid = len(fake.requests)
        assert 0 < paid < 8
        again = endpoint(fake.address, tmp_path, price=price, budget=1.0)
        assert again.cache.spent == pytest.approx(0.002 * paid) and again.cache.spent <= 0.009
        replies = again.reply(ASKED, seed=0, max_new_tokens=10)
        assert [reply.text for reply in replies] == [each[0]["content"] for each in ASKED]
        assert len(fake.requests) == 8 and len({json.dumps(request) for request in fake.requests}) == 8
        assert again.cache.spent == pytest.approx(0.016)


def test_a_fault_halfway_loses_no_answer_that_came_before(tmp_path: Path) -> None:
    broken = True
    with serving(lambda number, request: fault(401, "expired") if broken and number == 5 else completion("x")) as fake:
        with pytest.raises(HearthError, match="status 401"):
            endpoint(fake.address, tmp_path).reply(ASKED, seed=0, max_new_tokens=10)
        broken = False
        endpoint(fake.address, tmp_path).reply(ASKED, seed=0, max_new_tokens=10)
        assert len(fake.requests) == 6 + 3


def test_requests_at_once_never_pass_the_budget(tmp_path: Path) -> None:
    price = Price(read=10.0, written=100.0)
    with serving(lambda number, request: completion("x", usage=(40, 10))) as fake, pytest.raises(OutOfBudget):
        endpoint(fake.address, tmp_path, price=price, budget=0.004, workers=8).reply(ASKED * 8, seed=0, max_new_tokens=10)
    assert sum(json.loads(path.read_text())["cost"] for path in (tmp_path / "cache").glob("*.json")) <= 0.004


def test_the_cost_of_a_run_is_estimated_before_anything_is_sent(tmp_path: Path) -> None:
    judge = endpoint("http://127.0.0.1:9/v1", tmp_path, price=Price(1.0, 2.0))
    assert judge.estimate(ASKED, 10, times=2) == pytest.approx(2 * 8 * (35 * 1.0 + 10 * 2.0) / 1e6)


def test_the_key_is_sent_and_stands_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(lambda number, request: completion("x") if number == 0 else fault(401, f"the key {KEY} is wrong")) as fake:
        judge = endpoint(fake.address, tmp_path)
        judge.reply(ASKED[:1], seed=0, max_new_tokens=8)
        with pytest.raises(HearthError) as error:
            judge.reply(ASKED[1:2], seed=0, max_new_tokens=8)
    assert fake.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert KEY not in str(error.value) and KEY not in repr(judge) and KEY not in judge.identity
    assert all(KEY not in path.read_text() for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize("address", ["ftp://x/v1", "api.example.com", "https://user:pw@x/v1", "http://api.example.com/v1"])
def test_an_address_that_cannot_or_must_not_be_asked_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(HearthError):
        endpoint(address, tmp_path)


def test_a_damaged_answer_in_the_cache_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "0.json").write_text("{}")
    with pytest.raises(HearthError, match=r"0\.json: not an answer that was kept here"):
        endpoint("http://127.0.0.1:9/v1", tmp_path)
