"""Is this step's gradient fit to be applied? Not when loss or gradient is not finite, nor when it stands far above what was usual.

Usual is the median of the last good steps, far is a number of robust standard deviations (1.4826 x the median absolute deviation, Hampel
1974): unlike mean and deviation, these are not moved by the spikes that they are to find, and a value that is not finite never enters.
Gradient norms are compared by their logarithm, since they scatter by factors. The verdict is a pure function of the history.
"""

from __future__ import annotations

import math
import statistics

from openhearth.train.history import History
from openhearth.train.settings import Guard

TO_SIGMA = 1.4826
"""Standard deviations per median absolute deviation of a normal distribution."""

LEAST_LOSS, LEAST_NORM = 0.01, 0.1
"""The least robust deviation that is assumed: of the loss as a part of its median, of the logarithm of the norm."""

FEWEST = 16
"""Good steps without which there is no usual."""


def fault(history: History, loss: float, norm: float, guard: Guard) -> str | None:
    """Why the step after `history` must not be applied, None when it may. `loss` in nats per token, `norm` of its gradient."""
    if not math.isfinite(loss):
        return f"the loss is {loss}"
    if not math.isfinite(norm):
        return f"the norm of the gradient is {norm}"
    if not guard.spike:
        return None
    losses = history.good(history.losses, guard.window)
    if len(losses) < FEWEST:
        return None
    if (above := _deviations(loss, losses, LEAST_LOSS * abs(statistics.median(losses)))) > guard.spike:
        return f"the loss, {loss:.4g}, is {above:.0f} robust deviations above the usual {statistics.median(losses):.4g}"
    norms = history.good(history.gradient_norms, guard.window)
    logs = [math.log(max(value, 1e-30)) for value in norms]
    if (above := _deviations(math.log(max(norm, 1e-30)), logs, LEAST_NORM)) > guard.spike:
        return f"the norm of the gradient, {norm:.4g}, is {above:.0f} robust deviations above the usual {statistics.median(norms):.4g}"
    return None


def _deviations(value: float, usual: list[float], least: float) -> float:
    """How many robust standard deviations `value` lies above the median of `usual`; one is at least `least`."""
    median = statistics.median(usual)
    deviation = TO_SIGMA * statistics.median(abs(one - median) for one in usual)
    return (value - median) / max(deviation, least, 1e-12)
