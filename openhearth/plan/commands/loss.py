"""`hearth plan loss`: models named by size and tokens, their losses by every law, and what more of either would gain them."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from openhearth.errors import HearthError
from openhearth.plan import losses, returns
from openhearth.plan.commands.optimal import finite
from openhearth.plan.optimum import beyond
from openhearth.plan.quantities import count, say
from openhearth.plan.scaling_laws import DEFAULT, Law, Terms
from openhearth.plan.scaling_laws import law as law_named

CURVE_POINTS = 120


def loss_command(
    models: Sequence[str],
    *,
    law: str | None = None,
    unique_tokens: str | None = None,
    bigger: float = 4.0,
    json: bool = False,
    plot: Path | None = None,
) -> int:
    """Compare models written as PARAMETERS:TOKENS, the first being what the others are held against."""
    if plot is not None:
        from openhearth.plan import pictures

        pictures.check(plot)
    pairs = [_model(text) for text in models]
    unique = None if unique_tokens is None else count(unique_tokens, "--unique-tokens", low=1e6, high=1e18, unit="tokens")
    chosen = law_named(law if law not in (None, "all") else DEFAULT if unique is None else "muennighoff")
    if bigger <= 0 or not np.isfinite(bigger):
        raise HearthError(f"--bigger {bigger}: must be a finite number above zero")
    facts = loss_facts(pairs, chosen, None if law in (None, "all") else [chosen.name], unique, bigger)
    if plot is not None:
        _draw(plot, pairs, chosen, unique)
    if json:
        print(jsonlib.dumps(finite(facts), indent=2, ensure_ascii=False))
    else:
        _show(facts)
    return 0


def loss_facts(
    pairs: Sequence[tuple[float, float]], chosen: Law, only: list[str] | None = None, unique: float | None = None, bigger: float = 4.0
) -> dict[str, Any]:
    """What --json prints; keys in docs/plan/laws.md."""
    rows = []
    first_n, first_d = pairs[0]
    first = losses.loss(first_n, first_d, law="all", unique_tokens=unique)
    for n, d in pairs:
        by_law = losses.loss(n, d, law="all", unique_tokens=unique)
        if only is not None:
            by_law = {name: chosen.loss(n, d, unique) for name in only}
            first = {name: chosen.loss(first_n, first_d, unique) for name in only}
        row: dict[str, Any] = {
            "parameters": n,
            "tokens": d,
            "training_flops": 6 * n * d,
            "loss": by_law[chosen.name],
            "interval": losses.loss_interval(n, d, law=chosen, unique_tokens=unique),
            "over_first": by_law[chosen.name] / first[chosen.name],
            "over_first_interval": losses.ratio_interval((n, d), (first_n, first_d), law=chosen, unique_tokens=unique),
            "laws": by_law,
            "over_first_by_law": {name: value / first[name] for name, value in by_law.items()},
            "extrapolates_decades": chosen.domain.decades(6 * n * d),
        }
        if chosen.additive:
            row |= _more(n, d, chosen, unique, bigger)
        rows.append(row)
    return {"law": chosen.name, "unique_tokens": unique, "models": rows}


def _more(n: float, d: float, chosen: Law, unique: float | None, factor: float) -> dict[str, Any]:
    parts = returns.gain_by_size_and_data(n, d, chosen)
    twice = returns.doubling(d, chosen)
    return {
        "left_by_size": parts["parameters"],
        "left_by_data": twice["left"],
        "twice_the_tokens_nats": twice["twice"],
        "twice_the_tokens_interval": chosen.interval(lambda terms: _twice(terms, d)),
        "another_billion_nats": twice["another_billion"],
        "knee_tokens": returns.knee(d, law=chosen) if d > 2e9 else None,
        "bigger": {"factor": factor, **returns.bigger(n, d, factor, chosen, unique)},
    }


def _twice(terms: Terms, d: float) -> Any:
    return terms.B * d**-terms.beta * -np.expm1(-terms.beta * np.log(2))


def _model(text: str) -> tuple[float, float]:
    parameters, colon, tokens = text.partition(":")
    if not colon:
        raise HearthError(f"{text[:40]}: not a model; write parameters and tokens as 70B:1.4T")
    return count(parameters, f"{text[:40]}: parameters", low=1e3, high=1e16), count(tokens, f"{text[:40]}: tokens", low=1e3, high=1e19)


def _show(facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    rows = facts["models"]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    table.add_column("law", no_wrap=True)
    for row in rows:
        table.add_column(f"{say(row['parameters'])} on {say(row['tokens'])}", justify="right", no_wrap=True)
    for name in rows[0]["laws"]:
        cells = [f"{row['laws'][name]:.3f}" + (f" ({row['over_first_by_law'][name]:.4f})" if row is not rows[0] else "") for row in rows]
        table.add_row(Text(name, style="bold" if name == facts["law"] else ""), *cells)
    console.print(table)
    if len(rows) > 1:
        console.print(Text("In brackets: over the first model's, by the same law.", style="dim"))
    console.print()
    for row in rows:
        interval = "" if row["interval"] is None else f" [{row['interval'][0]:.3f}, {row['interval'][1]:.3f}]"
        said = f"{say(row['parameters'])} on {say(row['tokens'])}: {row['loss']:.3f}{interval} nats a token by {facts['law']}."
        if row is not rows[0] and row["over_first_interval"] is not None:
            low, high = row["over_first_interval"]
            said += f" Over the first: {row['over_first']:.4f} [{low:.4f}, {high:.4f}]."
        if "left_by_size" in row:
            said += (
                f" Endless tokens would gain {row['left_by_data']:.3f}, endless parameters {row['left_by_size']:.3f}; "
                f"twice the tokens {row['twice_the_tokens_nats']:.3f}, "
                f"{row['bigger']['factor']:g} times the size {row['bigger']['nats']:.3f}."
            )
        warning = beyond(row["extrapolates_decades"])
        console.print(Text(said), soft_wrap=True)
        if warning:
            console.print(Text(f"    {warning}", style="yellow"), soft_wrap=True)


def _draw(file: Path, pairs: Sequence[tuple[float, float]], chosen: Law, unique: float | None) -> None:
    from openhearth.plan import pictures

    low, high = min(d for _, d in pairs) / 100, max(d for _, d in pairs) * 10
    tokens = np.geomspace(max(low, 1e6), high, CURVE_POINTS)
    curves: list[tuple[Any, ...]] = []
    for n in dict.fromkeys(n for n, _ in pairs):
        band = losses.loss_interval(n, tokens, law=chosen, unique_tokens=unique)
        curves.append((say(n), tokens, chosen.loss(n, tokens, unique), *(band or ())))
    pictures.loss_curves(
        file,
        title=f"Loss over tokens by the law {chosen.name}",
        curves=curves,
        doubling_at=sorted({d for _, d in pairs}),
        note="" if unique is None else f"{say(unique)} unique tokens",
    )
