"""Best of n: draw n responses, keep the one that the reward model likes most. The yardstick for training at equal divergence."""

from __future__ import annotations

import math
from collections.abc import Sequence


def divergence(n: int) -> float:
    """ln n - (n - 1) / n nats: KL of the best of n from the policy it is drawn from, exact when no two rewards are equal, else an upper
    bound. Stiennon et al. 2020, appendix G.3; Beirami et al. 2024, theorem 1."""
    if n < 1:
        raise ValueError(f"best of {n}: draw at least one")
    return math.log(n) - (n - 1) / n


def expected(proxy: Sequence[float], gold: Sequence[float], n: int) -> float:
    """The mean of `gold` over the best of n by `proxy`, over all ways to draw n of these responses without putting back.

    Responses of equal `proxy` share their chances. Unbiased, with less variance than drawing. Nakano et al. 2021, appendix I.
    """
    count = len(proxy)
    if len(gold) != count or not 1 <= n <= count:
        raise ValueError(f"best of {n} among {count} responses with {len(gold)} gold rewards")
    ways = math.comb(count, n)
    total, below = 0.0, 0
    for value in sorted(set(proxy)):
        tied = [score for place, score in enumerate(gold) if proxy[place] == value]
        through = below + len(tied)
        total += (math.comb(through, n) - math.comb(below, n)) / ways * (sum(tied) / len(tied))
        below = through
    return total
