"""The compute multiplier between two recipes: how much compute the second needs to be as good as the first, and how sure that is.

Loss is held-out bits per byte, which no tokenizer changes; where a run was not measured, the bits per byte of its training text. The
interval covers what the runs let one know: other documents where the figures of every document were kept, other seeds where there are
several of each (docs/experiments.md).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from openhearth.errors import HearthError
from openhearth.experiments.curves import Curve, curve, mean_curve
from openhearth.experiments.multiplier import Ladder, from_curves
from openhearth.experiments.runs import Floats, Trained
from openhearth.experiments.statistics import Welch, interval, resampled_bits, welch

DRAWS, SEED = 1000, 42
STEP = 1.05
"""Runs whose FLOPs differ by less than this factor are of one size."""
FEWEST_FOR_FLOOR = 5
"""Runs, and three sizes of one recipe, without which E is not fitted but 0: four constants need one to be judged by."""
AXES = ("FLOPs", "tokens", "seconds")


@dataclass(frozen=True)
class Ratio:
    """What the second recipe needs of one thing (FLOPs, tokens, seconds) for each that the first needs, at equal loss."""

    axis: str
    first: float
    """Of the first recipe's runs; of the largest size where there are several."""
    second: float
    ratio: float
    low: float | None
    """95 %."""
    high: float | None


@dataclass(frozen=True)
class Comparison:
    """Of two recipes. The multiplier is the inverse of the ratio of FLOPs: above 1 the second recipe is better."""

    method: Literal["ladder", "curves"]
    ratios: tuple[Ratio, ...]
    loss: tuple[float, float]
    """Bits per byte of both at the end, the mean over seeds; of the largest size where there are several."""
    held_out: bool
    """Whether that loss is of held-out text, or of the training text."""
    bound: Literal["at most", "at least", ""]
    """What a ratio from one size is of the true one."""
    test: Welch | None
    """Welch's t-test of the losses, where both have several seeds of one size."""
    covers: str
    """What the interval is over."""
    notes: tuple[str, ...]
    curves: tuple[Curve, Curve]
    """Of both, in bits per byte, of the largest size; with the method `curves` shifted to the held-out end."""

    @property
    def multiplier(self) -> tuple[float, float | None, float | None]:
        """FLOPs of the first over those of the second at equal loss, with its 95 % interval."""
        one = self.ratios[0]
        return 1 / one.ratio, 1 / one.high if one.high else None, 1 / one.low if one.low else None


def compare(first: Sequence[Trained], second: Sequence[Trained]) -> Comparison:
    """Compare the runs of two recipes. Raises HearthError, naming a run, when their losses cannot be compared."""
    runs = [*first, *second]
    held_out, notes = comparable(runs)
    losses = [end_loss(run, held_out) for run in runs]
    notes += _seconds_note(runs) + _code_note(runs)
    several = {run.folder for run in first} & {run.folder for run in second}
    if several:
        raise HearthError(f"{min(several)}: is on both sides; compare different runs")
    axes = {name: values for name in AXES if (values := spent(runs, name)) is not None}
    sizes = [len(set(levels([run.flops for run in side]))) for side in (first, second)]
    task = _Task(first, second, np.array(losses), held_out, axes, tuple(notes))
    return task.ladder(max(sizes)) if max(sizes) > 1 else task.by_curves()


@dataclass(frozen=True)
class _Task:
    """What both methods start from; losses and axes are of all runs, the first recipe's before the second's."""

    first: Sequence[Trained]
    second: Sequence[Trained]
    losses: Floats
    held_out: bool
    axes: dict[str, Floats]
    notes: tuple[str, ...]

    @property
    def is_second(self) -> np.ndarray:
        return np.arange(len(self.losses)) >= len(self.first)

    def _resampled(self) -> Floats | None:
        """Losses on other documents, (draws, runs); None where their figures were not kept."""
        runs = [*self.first, *self.second]
        texts = [run.text for run in runs if run.text is not None]
        if not self.held_out or len(texts) < len(runs) or len(texts[0].bytes) < 2:
            return None
        return resampled_bits(texts, DRAWS, SEED)

    def ladder(self, sizes: int) -> Comparison:
        """From runs of several sizes, by a law that both follow."""
        if len(self.losses) < 3:
            raise HearthError(
                "two runs of different sizes: what size did and what the recipe did cannot be told apart; give runs of one size, or more"
            )
        floor = len(self.losses) >= FEWEST_FOR_FLOOR and sizes >= 3
        free = 4 if floor else 3
        for side in (self.first, self.second):
            self._falls(side)
        draws = self._resampled()
        ratios: list[Ratio] = []
        for name, values in self.axes.items():
            first, second = (float(values[self.is_second == side].max()) for side in (False, True))
            if ratios and np.ptp(values / self.axes["FLOPs"]) < 1e-9 * values.max() / self.axes["FLOPs"].max():  # as the FLOPs
                ratios.append(replace(ratios[0], axis=name, first=first, second=second))
                continue
            law = Ladder(values, self.is_second, floor)
            ratio, fitted = law.fit(self.losses[None])
            if math.isnan(ratio[0]):
                raise HearthError(
                    "loss does not fall with compute in these runs, so there is no multiplier; compare runs farther apart in size"
                )
            low, high = None, None
            if len(self.losses) > free:
                residuals = (self.losses / fitted[0] - 1) * math.sqrt(len(self.losses) / (len(self.losses) - free))
                source = np.random.Generator(np.random.Philox(key=SEED))
                again = source.choice(residuals - residuals.mean(), size=(DRAWS, len(residuals)))
                others = (law.fit(draws)[1] if draws is not None else fitted) * (1 + again)
                found = law.fit(others)[0]
                if np.isfinite(found).mean() > 0.975:
                    low, high = interval(found[np.isfinite(found)])
            ratios.append(Ratio(name, first, second, float(ratio[0]), low, high))
        covers = "scatter of the runs about the law" + (f", and other {self._units}" if draws is not None else "")
        if ratios[0].low is None:
            covers = ""
        notes = (*self.notes, *(() if floor else ("E of the law is held at 0: these are too few runs or sizes to fit where loss ends",)))
        biggest = [_largest(side) for side in (self.first, self.second)]
        ends = [float(np.mean([end_loss(run, self.held_out) for run in side])) for side in biggest]
        return Comparison("ladder", tuple(ratios), (ends[0], ends[1]), self.held_out, "", None, covers, notes, self._curves(*biggest))

    def _falls(self, side: Sequence[Trained]) -> None:
        """Refuse a recipe whose largest runs are no better than its smallest: no law of compute holds for it."""
        numbers, losses = levels([run.flops for run in side]), [end_loss(run, self.held_out) for run in side]
        low, high = ([loss for loss, number in zip(losses, numbers, strict=True) if number == end] for end in (0, max(numbers)))
        if max(numbers) and np.mean(high) >= np.mean(low):
            raise HearthError(
                f"{side[0].folder} and the other runs on its side: loss does not fall with compute, so there is no multiplier; "
                "give runs farther apart in size"
            )

    def by_curves(self) -> Comparison:
        """From runs of one size each, by when the better one stood at the worse one's end."""
        a, b = self.losses[~self.is_second], self.losses[self.is_second]
        difference = float(b.mean() - a.mean())
        curves = self._curves(self.first, self.second)
        draws, over = np.full(DRAWS, difference), []
        if (resampled := self._resampled()) is not None:
            draws = resampled[:, self.is_second].mean(axis=1) - resampled[:, ~self.is_second].mean(axis=1)
            over.append(f"other {self._units}")
        scatter = _scatter(a, b)
        if scatter is not None:
            draws = draws + scatter[0] * np.random.Generator(np.random.Philox(key=SEED + 1)).standard_t(scatter[1], size=DRAWS)
            over.append("other seeds")
        found = [from_curves(*curves, values) for values in (np.array([difference]), draws)]
        ratios = []
        for name, values in self.axes.items():
            first, second = (float(values[self.is_second == side].mean()) for side in (False, True))
            point, many = (second * self._part(name, there, True) / (first * self._part(name, here, False)) for here, there in found)
            low, high = interval(many) if over else (None, None)
            ratios.append(Ratio(name, first, second, float(point[0]), low, high))
        notes = self.notes
        if scatter is None:
            notes += ("one seed each: how much other seeds would differ is not in the interval; hearth sweep --seeds 3 makes them",)
        if not over:
            notes += ("no interval: the figures of every document are kept by hearth sweep (stage measure), not by hearth run",)
        return Comparison(
            "curves", tuple(ratios), (float(a.mean()), float(b.mean())), self.held_out, "at most" if difference <= 0 else "at least",
            welch(list(a), list(b)), " and ".join(over), notes, curves,
        )  # fmt: skip

    def _part(self, axis: str, part: Floats, second: bool) -> Floats:
        """The part of the tokens as a part of the axis: of the seconds it is not the same, since steps differ."""
        if axis != "seconds":
            return part
        runs = self.second if second else self.first
        shares = [np.interp(part * run.final_tokens, run.tokens, times) / times[-1] for run in runs if (times := run.times) is not None]
        return np.asarray(np.mean(shares, axis=0))

    def _curves(self, first: Sequence[Trained], second: Sequence[Trained]) -> tuple[Curve, Curve]:
        """Both recipes' mean curves in bits per byte, moved up or down as a whole so that they end where held-out text was measured."""
        found = []
        for side in (first, second):
            mean = mean_curve([curve(run, bits_of(run)) for run in side])
            end = float(np.mean([end_loss(run, self.held_out) for run in side]))
            found.append(Curve(mean.part, mean.loss + (end - mean.end if self.held_out else 0.0)))
        return found[0], found[1]

    @property
    def _units(self) -> str:
        texts = [run.text for run in self.first if run.text is not None]
        return texts[0].units if texts else "documents"


def _scatter(first: Floats, second: Floats) -> tuple[float, float] | None:
    """Standard error of the difference of two means over seeds and its degrees of freedom; None with one seed each.

    With several seeds on one side only, the other is taken to scatter as much.
    """
    test = welch(list(first), list(second))
    if test is not None:
        return (test.standard_error, test.freedom) if test.standard_error else (0.0, 1.0)
    many = first if len(first) > 1 else second
    if len(many) < 2:
        return None
    return float(many.std(ddof=1)) * math.sqrt(1 / len(first) + 1 / len(second)), len(many) - 1.0


# -- what can be compared ---------------------------------------------------------------------------------------------------


def comparable(runs: Sequence[Trained]) -> tuple[bool, list[str]]:
    """Whether held-out text can be compared (else training text), with notes. Raises HearthError when neither can."""
    for run in runs:
        if run.bytes_per_token is None:
            raise HearthError(f"{run.folder}: its ledger does not say how many bytes a token has; nats per token cannot be compared")
    _same(runs, lambda run: run.corpus, "trained on other text than", "their losses cannot be compared; give both runs the same corpus")
    if all(run.bits_per_byte is not None for run in runs):
        _same(
            runs, lambda run: run.heldout, "measured on other held-out text than",
            "their losses cannot be compared; give both the same corpus, seed and number of held-out bytes",
        )  # fmt: skip
        return True, []
    unmeasured = next(run for run in runs if run.bits_per_byte is None)
    return False, [f"{unmeasured.folder}: not measured on held-out text, so training text is compared: that does not show memorising"]


def _same(runs: Sequence[Trained], what: Callable[[Trained], object], said: str, remedy: str) -> None:
    for run in runs:
        if what(run) != what(runs[0]):
            raise HearthError(f"{run.folder}: {said} {runs[0].folder}, so {remedy}")


def _seconds_note(runs: Sequence[Trained]) -> list[str]:
    machines = list(dict.fromkeys(run.machine for run in runs))
    if len(machines) > 1:
        return [f"seconds are left out: the runs are of different machines ({'; '.join(machines[:3])})"]
    return ["seconds are left out: not every step's time is known"] if any(run.seconds is None for run in runs) else []


def _code_note(runs: Sequence[Trained]) -> list[str]:
    return ["the runs were trained by different versions of the code"] if len({run.code for run in runs}) > 1 else []


def spent(runs: Sequence[Trained], axis: str) -> Floats | None:
    """FLOPs, tokens or seconds of pretraining of each run; None where they cannot be compared."""
    if axis == "seconds":
        if len({run.machine for run in runs}) > 1 or any(run.seconds is None for run in runs):
            return None
        return np.array([run.seconds for run in runs], dtype=np.float64)
    return np.array([run.flops if axis == "FLOPs" else run.final_tokens for run in runs])


def bits_of(run: Trained) -> float:
    """Bits per byte of the training text for one nat per token of it."""
    assert run.bytes_per_token is not None, "comparable() has refused it"
    return 1 / math.log(2) / run.bytes_per_token


def end_loss(run: Trained, held_out: bool) -> float:
    """Bits per byte at the end: of held-out text, or of the training text by the smooth curve."""
    if held_out:
        assert run.bits_per_byte is not None
        return run.bits_per_byte
    return curve(run, bits_of(run)).end


def levels(flops: Sequence[float]) -> list[int]:
    """The number of each run's size, the smallest 0: sizes are apart by more than STEP."""
    order = sorted(set(flops))
    number, numbers = 0, {order[0]: 0}
    for before, after in itertools.pairwise(order):
        number += after > STEP * before
        numbers[after] = number
    return [numbers[value] for value in flops]


def _largest(runs: Sequence[Trained]) -> list[Trained]:
    numbers = levels([run.flops for run in runs])
    return [run for run, number in zip(runs, numbers, strict=True) if number == max(numbers)]
