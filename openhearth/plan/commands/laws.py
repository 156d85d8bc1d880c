"""`hearth plan laws`: the table of laws, as it is used."""

from __future__ import annotations

import json as jsonlib
from typing import Any

from openhearth.plan.quantities import say
from openhearth.plan.scaling_laws import laws


def laws_command(name: str | None = None, *, json: bool = False) -> int:
    """Print every law, or one."""
    rows = laws(name)
    if json:
        print(jsonlib.dumps(rows, indent=2, ensure_ascii=False))
    else:
        _show(rows)
    return 0


def _show(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for row in rows:
        console.print(Text.assemble((row["law"], "bold"), f"  {row['title']}"), soft_wrap=True)
        lines = [row["formula"], _values(row["coefficients"])]
        if row["printed"] != row["coefficients"]:
            lines.append(f"printed: {_values(row['printed'])}")
        ranges = (f"{say(row[key][0])} to {say(row[key][1])} {key}" for key in ("parameters", "tokens"))
        lines.append(
            f"runs of {', '.join(ranges)}, {row['flops'][0]:.1e} to {row['flops'][1]:.1e} FLOPs; {row['loss_of']}; N counts {row['counts']}"
        )
        between = "" if row["exponent_interval"] is None else " [{:.3f}, {:.3f}]".format(*row["exponent_interval"])
        lines.append(
            f"N_opt ~ C^{row['exponent']:.3f}{between}: twice the size wants {2 ** (1 / row['exponent'] - 1):.2f} times the tokens"
        )
        if row["resamples"]:
            lines.append(f"intervals from {row['resamples']:,} resamples of its runs")
        if row["exponent_interval_80"]:
            low, high = row["exponent_interval_80"]
            lines.append(f"the paper prints only the exponent's 80 % interval: {low} to {high}")
        lines.append(row["source"])
        if row["note"]:
            lines.append(f"note: {row['note']}")
        for line in lines:
            console.print(Text(f"    {line}", style="dim"), soft_wrap=True)


def _values(coefficients: dict[str, float]) -> str:
    return ", ".join(f"{name} = {value:.7g}" for name, value in coefficients.items())
