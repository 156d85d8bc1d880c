"""`hearth plan claims`: the statements with their figures, verdicts, and the commands that print the figures again."""

from __future__ import annotations

import json as jsonlib
import textwrap
from collections.abc import Callable
from typing import Any

from openhearth.plan.commands.optimal import finite
from openhearth.plan.commands.optimal_text import powers
from openhearth.plan.quantities import say, say_usd
from openhearth.plan.statements import Claim, claims

COLOURS = {"true": "green", "partly true": "yellow", "false": "red"}


def claims_command(name: str | None = None, *, json: bool = False) -> int:
    """Print all claims, or one with its published facts."""
    found = claims(name)
    if json:
        print(jsonlib.dumps([claim_facts(each) for each in found], indent=2, ensure_ascii=False))
    else:
        _show(found, whole=name is not None)
    return 0


def claim_facts(claim: Claim) -> Any:
    """What --json prints of one."""
    return finite(
        {
            "claim": claim.name,
            "statement": claim.statement,
            "asks": claim.asks,
            "value": claim.value,
            "interval": None if claim.interval is None else list(claim.interval),
            "unit": claim.unit,
            "by_law": dict(claim.by_law),
            "verdict": claim.verdict,
            "sentence": claim.sentence,
            "command": claim.command,
            "key": claim.key,
            "sources": list(claim.sources),
            "details": dict(claim.details),
        }
    )


def said(value: float, unit: str) -> str:
    """A figure in its unit."""
    forms: dict[str, Callable[[float], str]] = {
        "count": say,
        "flops": powers,
        "usd": say_usd,
        "share": lambda share: f"{share:.2%}" if share < 0.01 else f"{share:.1%}",
        "days": lambda days: f"{days:.1f} days",
        "ratio": lambda ratio: f"{ratio:.3f}",
        "nats": lambda nats: f"{nats:.3f} nats",
    }
    return forms[unit](value)


def _apart(text: str) -> tuple[str, str]:
    """A figure and the word behind it."""
    figure, _, word = text.partition(" ")
    return figure, f" {word}" if word else ""


def _show(found: list[Claim], whole: bool) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for claim in found:
        console.print(Text.assemble((claim.statement, "bold"), "  ", (claim.verdict, f"bold {COLOURS[claim.verdict]}")))
        value, unit = _apart(said(claim.value, claim.unit))
        between = "" if claim.interval is None else f" [{', '.join(_apart(said(end, claim.unit))[0] for end in claim.interval)}]"
        lines = [Text(f"{value}{between}{unit}: {claim.asks}"), Text(claim.sentence)]
        lines.append(Text(", ".join(f"{name} {_apart(said(value, claim.unit))[0]}" for name, value in claim.by_law.items()), style="dim"))
        if whole:
            lines += [Text(f"source: {source}", style="dim") for source in claim.sources]
        lines.append(Text(f"$ {claim.command}", style="cyan"))
        for line in lines:
            for part in textwrap.wrap(line.plain, console.width - 2, break_on_hyphens=False):
                console.print(Text(f"  {part}", style=line.style))
        console.print()
