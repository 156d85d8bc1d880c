"""The ladder of budgets: what each tenfold budget buys on one device, from a hundred dollars to a hundred million."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

BUDGETS = tuple(10.0**power for power in range(2, 9))


def ladder(usd: Sequence[float] = BUDGETS, *, usd_per_flop: float, law: str | None = None) -> list[dict[str, float]]:
    """For each budget in USD: flops, parameters, tokens and loss (nats per token), with 95 % intervals where the law has them.

    Raises HearthError for a law that gives no loss, or budgets that are not above zero.
    """
    from openhearth.plan.optimum import optimal
    from openhearth.plan.scaling_laws import DEFAULT
    from openhearth.plan.scaling_laws import law as law_named

    chosen = law_named(law or DEFAULT)
    chosen.loss(1e9, 1e10)  # says so when the law only allocates
    found = optimal(usd=np.asarray(usd, float), usd_per_flop=usd_per_flop, law=chosen.name, intervals=True)
    rows = []
    for place, money in enumerate(usd):
        row: dict[str, Any] = {"usd": float(money), "flops": float(money / usd_per_flop)}
        for name in ("parameters", "tokens", "loss"):
            row[name] = float(np.asarray(getattr(found, name))[place])
            interval = found.interval.get(name) if found.interval else None
            if interval is not None:
                low, high = interval
                row[f"{name}_low"], row[f"{name}_high"] = float(np.asarray(low)[place]), float(np.asarray(high)[place])
        rows.append(row)
    return rows
