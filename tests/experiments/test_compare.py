"""The compute multiplier of recipes that differ by a known factor, its interval, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from openhearth.errors import HearthError
from openhearth.experiments.compare import Comparison, compare, levels
from openhearth.experiments.multiplier import Ladder
from openhearth.experiments.runs import Floats, Trained

Make = Callable[..., Trained]


def law(times: float = 1.0) -> Callable[[Floats], Floats]:
    """Bits per byte of a recipe that is worth so many times the compute."""
    return lambda tokens: 1.1 + 0.9 * (times * tokens / 1e6) ** -0.4


def ladder(trained: Make, name: str, times: float, sizes: tuple[float, ...] = (1e6, 2e6, 4e6, 8e6), **changes: object) -> list[Trained]:
    return [trained(f"{name}{number}", law(times), tokens, **changes) for number, tokens in enumerate(sizes)]


def ratio(found: Comparison, axis: str = "FLOPs") -> float:
    return next(one.ratio for one in found.ratios if one.axis == axis)


# -- from runs of one size --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1.0, 1.5, 3.0])
def test_the_curve_of_the_better_recipe_gives_the_factor(trained: Make, times: float) -> None:
    found = compare([trained("a", law())], [trained("b", law(times))])
    assert (found.method, found.bound) == ("curves", "at most")
    assert [one.axis for one in found.ratios] == ["FLOPs", "tokens", "seconds"]
    assert [one.ratio for one in found.ratios] == pytest.approx([1 / times] * 3, rel=0.01)
    assert found.multiplier[0] == pytest.approx(times, rel=0.01)
    other = compare([trained("b", law(times))], [trained("a", law())])
    assert ratio(other) * ratio(found) == pytest.approx(1.0) and other.bound == ("at least" if times > 1 else "at most")


def test_flops_tokens_and_seconds_are_told_apart(trained: Make) -> None:
    slower = trained("b", law(2.0), flops=6e6 * 1e6 * 3)
    slower = replace(slower, times=np.cumsum(np.where(np.arange(500) < 250, 3.0, 1.0)))
    found = compare([trained("a", law())], [slower])
    assert ratio(found, "tokens") == pytest.approx(0.5, rel=0.01)
    assert ratio(found) == pytest.approx(1.5, rel=0.01)
    assert ratio(found, "seconds") == pytest.approx(
        750 / 50, rel=0.01
    )  # the first took 50 s; half of the tokens were three in four seconds


def test_one_seed_each_says_what_the_interval_leaves_out(trained: Make) -> None:
    first, second = trained("a", law()), trained("b", law(1.5))
    assert second.text is not None
    second = replace(second, text=replace(second.text, nats=second.text.nats * np.array([1.02, 0.98] * 4)))
    found = compare([first], [second])
    assert found.covers == "other documents" and found.test is None and any("one seed each" in note for note in found.notes)
    one = found.ratios[0]
    assert one.low is not None and one.high is not None and one.low < one.ratio < one.high
    bare = compare([replace(first, text=None)], [replace(second, text=None)])
    assert (bare.ratios[0].low, bare.covers) == (None, "") and any(note.startswith("no interval") for note in bare.notes)


def test_seeds_widen_the_interval_and_are_tested(trained: Make) -> None:
    def seeds(name: str, times: float, scatter: float) -> list[Trained]:
        return [trained(f"{name}{seed}", law(times), luck=1 + scatter * luck) for seed, luck in enumerate((-1, 0, 1))]

    calm, wild = (compare(seeds("a", 1.0, scatter), seeds("b", 1.5, scatter)) for scatter in (0.001, 0.01))
    for found in (calm, wild):
        assert ratio(found) == pytest.approx(1 / 1.5, rel=0.02) and found.covers == "other documents and other seeds"
    widths = [one.high - one.low for one in (calm.ratios[0], wild.ratios[0]) if one.high is not None and one.low is not None]
    assert widths[1] > 2 * widths[0] > 0
    assert calm.test is not None and wild.test is not None and calm.test.p < 1e-4 < wild.test.p


# -- from runs of several sizes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("floor", [True, False])
def test_a_law_without_noise_gives_the_factor_exactly(times: float, floor: bool) -> None:
    compute = np.tile(np.geomspace(1e15, 3e16, 4), 2)
    second = np.arange(8) >= 4
    loss = (1.1 if floor else 0.0) + 0.9 * (np.where(second, times, 1.0) * compute / 1e15) ** -0.35
    found, fitted = Ladder(compute, second, floor).fit(loss[None])
    assert found[0] == pytest.approx(1 / times, rel=1e-6) and fitted[0] == pytest.approx(loss, rel=1e-6)


def test_ladders_give_the_factor_whatever_their_sizes(trained: Make) -> None:
    found = compare(ladder(trained, "a", 1.0), ladder(trained, "b", 1.6, (1.5e6, 5e6)))
    assert (found.method, found.bound) == ("ladder", "")
    assert [one.ratio for one in found.ratios] == pytest.approx([1 / 1.6] * 3, rel=1e-4)
    assert found.covers == "scatter of the runs about the law, and other documents"


def test_two_sizes_or_four_runs_hold_the_end_of_loss_at_nothing_and_say_so(trained: Make) -> None:
    found = compare(ladder(trained, "a", 1.0, (1e6, 1.2e6)), ladder(trained, "b", 1.1, (1e6, 1.2e6)))
    assert ratio(found) == pytest.approx(1 / 1.1, rel=0.01) and any("held at 0" in note for note in found.notes)


def test_the_interval_holds_the_truth_about_as_often_as_it_says(trained: Make) -> None:
    source = np.random.default_rng(5)
    inside = 0
    for _ in range(12):
        sides = [[trained(one.folder.name, law(times), one.final_tokens, text=None, times=None, luck=1 + 0.01 * source.normal())
                  for one in ladder(trained, name, times)] for name, times in (("a", 1.0), ("b", 1.4))]  # fmt: skip
        first = compare(*sides).ratios[0]
        assert first.low is not None and first.high is not None
        inside += first.low <= 1 / 1.4 <= first.high
    assert inside >= 9


def test_sizes_are_apart_by_more_than_a_twentieth() -> None:
    assert levels([1.0, 2.0, 1.04, 1.0, 2.3]) == [0, 1, 0, 0, 2]


# -- what cannot be compared ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"corpus": "other"}, "b: trained on other text than a, so their losses cannot be compared"),
        ({"heldout": ("corpus", 5, 1)}, "b: measured on other held-out text than a"),
        ({"bytes_per_token": None}, "b: its ledger does not say how many bytes a token has"),
    ],
)
def test_what_is_not_the_same_loss_is_refused(trained: Make, changes: dict[str, object], said: str) -> None:
    with pytest.raises(HearthError, match=said):
        compare([trained("a", law())], [trained("b", law(), **changes)])


def test_a_run_against_itself_and_two_runs_of_two_sizes_with_nothing_else_are_refused(trained: Make) -> None:
    with pytest.raises(HearthError, match="a: is on both sides"):
        compare([trained("a", law())], [trained("a", law())])
    with pytest.raises(HearthError, match="loss does not fall with compute"):
        compare(ladder(trained, "a", 1.0), [trained(f"b{tokens}", lambda x: 2 + x * 1e-7, tokens) for tokens in (1e6, 4e6)])


def test_other_tokenizers_machines_and_code_are_compared_with_a_word(trained: Make) -> None:
    other = trained("b", law(2.0), tokenizer="other", bytes_per_token=2.0, machine="another", code="newer", bits_per_byte=None)
    other = replace(other, loss=other.loss * 2.0 / 3.5)  # the same bits per byte in smaller tokens
    found = compare([trained("a", law())], [other])
    assert ratio(found) == pytest.approx(0.5, rel=0.01)
    assert [one.axis for one in found.ratios] == ["FLOPs", "tokens"] and not found.held_out
    said = " ".join(found.notes)
    assert "not measured on held-out text" in said and "seconds are left out" in said and "different versions of the code" in said
