"""`hearth plan ladder`: what each tenfold budget buys on one device."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Any

from openhearth.plan.commands.optimal import money_on
from openhearth.plan.commands.optimal_text import powers
from openhearth.plan.quantities import say, say_usd


def ladder_command(
    on: str, *, price: str | None = None, mfu: float | None = None, law: str | None = None, json: bool = False, plot: Path | None = None
) -> int:
    """Print the table, and draw it if asked."""
    from openhearth.plan import pictures, rungs

    if plot is not None:
        pictures.check(plot)
    money = money_on(on, price, mfu)
    assert money is not None, "hardware is named"
    rows = rungs.ladder(usd_per_flop=money.usd_per_flop, law=law)
    how = f"{money.device} at {money.usd_per_hour:.2f} USD an hour ({money.price_source}), {money.mfu:.0%} of its peak ({money.mfu_source})"
    if plot is not None:
        pictures.budget_ladder(plot, title=f"What each budget buys on {money.device}", rungs=rows, note=how)
    if json:
        facts = {"device": money.device, "usd_per_hour": money.usd_per_hour, "mfu": money.mfu, "law": law or "refit", "rungs": rows}
        print(jsonlib.dumps(facts, indent=2))
        return 0
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    console.print(f"On {how}, by the law {law or 'refit'}; 95 % intervals in brackets.", soft_wrap=True)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("budget", "FLOPs", "parameters", "tokens", "loss"):
        table.add_column(name, justify="right", no_wrap=True)
    wide = console.width >= 90  # else the loss stands without its interval
    for row in rows:
        loss = _between(row, "loss") if wide else f"{row['loss']:.3f}"
        table.add_row(say_usd(row["usd"]), powers(row["flops"]), _between(row, "parameters"), _between(row, "tokens"), loss)
    console.print(table)
    return 0


def _between(row: dict[str, Any], name: str) -> str:
    def shown(value: float) -> str:
        return f"{value:.3f}" if name == "loss" else say(value)

    return shown(row[name]) + (f" [{shown(row[f'{name}_low'])}, {shown(row[f'{name}_high'])}]" if f"{name}_low" in row else "")
