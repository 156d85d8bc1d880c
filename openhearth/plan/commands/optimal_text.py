"""How `hearth plan optimal` reads in a terminal: the answer, what to know about it, the laws side by side, what more would buy."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from openhearth.plan.quantities import say, say_usd

WIDE = 125
"""Columns of a terminal that take the intervals of tokens and of tokens per parameter too."""
BINDS = {
    "compute": "compute",
    "money": "money",
    "data": "unique data",
    "serving": "serving",
    "quality": "the quality asked for",
}


def show(facts: dict[str, Any]) -> None:
    """Print it."""
    console = Console(highlight=False)
    for text in headline(facts):
        console.print(text, soft_wrap=True)
    console.print()
    if len(facts["laws"]) > 1 or facts["not_answered"]:
        console.print(_table(facts, wide=console.width >= WIDE))
        for line in [*disagreement(facts), *silent(facts)]:
            console.print(Text(line), soft_wrap=True)
        console.print()
    for line in more(facts):
        console.print(Text(line, style="dim"), soft_wrap=True)


def headline(facts: dict[str, Any]) -> list[Text]:
    """The answer, what binds it, and its warnings."""
    asked, interval = facts["question"], facts["interval"] or {}
    lines = [Text(_asked(asked, facts), style="dim")]
    answer = Text.assemble((say(facts["parameters"]), "bold"), f"{_between(interval, 'parameters')} parameters on ")
    answer.append_text(Text.assemble((say(facts["tokens"]), "bold"), f"{_between(interval, 'tokens')} tokens, "))
    answer.append(f"{facts['tokens_per_parameter']:.3g}{_between(interval, 'tokens_per_parameter')} a parameter")
    if facts["loss"] is not None:
        answer.append_text(Text.assemble(", loss ", (f"{facts['loss']:.3f}", "bold"), _between(interval, "loss", ".3f"), " nats a token"))
    answer.append(f" ({facts['law']}{'; 95 % intervals' if interval else ''})")
    lines.append(answer)
    lines.append(Text(_binding(facts)))
    if facts["usd"] is not None:
        served = facts["serving_flops"] / facts["total_flops"]
        lines.append(Text(f"Costs {say_usd(facts['usd'])}{f', {served:.0%} of it for serving' if served else ''}."))
    elif facts["serving_flops"]:
        served, total = facts["serving_flops"] / facts["total_flops"], facts["total_flops"]
        parts = f"Training {powers(facts['training_flops'])} FLOPs, serving {powers(facts['serving_flops'])}"
        lines.append(Text(f"{parts}: {served:.0%} of {powers(total)}."))
    if facts["saving"] is not None:
        saved = facts["saving"]
        than = f"{say(saved['parameters'])} on {say(saved['tokens'])}, the cheapest of this quality to train"
        lines.append(Text(f"In all {saved['share']:.1%} cheaper than {than}."))
    if "best_case" in facts:
        best = facts["best_case"]
        lines.append(
            Text(
                f"Best case, {best['mfu']:.0%} of peak as in well-tuned benchmarks: "
                f"{say(best['parameters'])} on {say(best['tokens'])} tokens ({powers(best['training_flops'])} FLOPs)."
            )
        )
    if facts["warning"]:
        lines.append(Text(f"Warning: this {facts['warning']}.", style="yellow"))
    lines += [Text(f"Note: {note}.", style="dim") for note in facts["notes"]]
    return lines


def powers(value: float) -> str:
    """'5.76e23'."""
    return f"{value:.3g}".replace("e+", "e")


def _asked(asked: dict[str, Any], facts: dict[str, Any]) -> str:
    if asked["quality_of"] is not None:
        said = f"As good as the compute-optimal model of {say(asked['quality_of'])} parameters, at least cost"
    elif asked["tokens"] is not None:
        said = f"As good as the compute-optimal run of {say(asked['tokens'])} tokens, at least cost"
    elif asked["loss"] is not None:
        said = f"A loss of {asked['loss']:g}, at least cost"
    elif asked["usd"] is not None:
        said = (
            f"{say_usd(asked['usd'])} on {asked['device']} at {asked['usd_per_hour']:.2f} USD an hour ({asked['price_source']}) and "
            f"{asked['mfu']:.0%} of {asked['peak_flops'] / 1e12:,.0f} TFLOP/s ({asked['mfu_source']}): {powers(asked['flops'])} FLOPs"
        )
    else:
        said = f"{powers(asked['flops'])} FLOPs"
    if asked["unique_tokens"] is not None:
        said += f", {say(asked['unique_tokens'])} unique tokens"
    if asked["serve_tokens_weighted"] is not None:
        said += f", serving {say(asked['serve_tokens_weighted'])} tokens{' at their cost' if asked['usd'] is not None else ''} included"
    return said + (" buy, by " if asked["flops"] is not None else ", by ") + f"{facts['title']}:"


def _binding(facts: dict[str, Any]) -> str:
    gains, binding = facts["gains"], facts["binding"]
    said = f"Binding: {BINDS[binding]}."
    if facts["epochs"] is not None and facts["epochs"] > 1:
        said += f" The unique tokens are passed over {facts['epochs']:.3g} times."
    parts = []
    if gains.get("budget") is not None:
        parts.append(f"a tenth more budget gains {gains['budget']:.4f} nats")
    if "data" in gains:
        parts.append(f"a tenth more unique tokens {gains['data']:.4f}")
    if "serving" in gains:
        parts.append(f"a tenth fewer served tokens {gains['serving']:.4f}")
    return said + (f" {parts[0][0].upper()}{', '.join(parts)[1:]}." if parts else "")


def _between(interval: dict[str, Any], key: str, form: str = "") -> str:
    if key not in interval:
        return ""
    low, high = interval[key]
    if form:
        return f" [{low:{form}}, {high:{form}}]"
    return f" [{low:.3g}, {high:.3g}]" if key == "tokens_per_parameter" else f" [{say(low)}, {say(high)}]"


def _table(facts: dict[str, Any], wide: bool) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    table.add_column("law", no_wrap=True)
    for name in ("parameters", "tokens", "tokens/parameter" if wide else "D/N", "loss"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("decades beyond its data" if wide else "beyond", justify="right", no_wrap=True)
    for row in facts["laws"]:
        interval = row["interval"] or {}
        decades = row["extrapolates_decades"]
        table.add_row(
            Text(row["law"], style="bold" if row["law"] == facts["law"] else ""),
            say(row["parameters"]) + _between(interval, "parameters"),
            say(row["tokens"]) + (_between(interval, "tokens") if wide else ""),
            f"{row['tokens_per_parameter']:.3g}" + (_between(interval, "tokens_per_parameter") if wide else ""),
            "" if row["loss"] is None else f"{row['loss']:.3f}",
            f"{decades:+.1f}" if abs(decades) >= 0.05 else "",
        )
    return table


def disagreement(facts: dict[str, Any]) -> list[str]:
    """How far apart the laws are."""
    spread = facts["disagreement"]
    if spread is None:
        return []
    every, core = spread["all"], spread["core"]
    low, high = every["parameters"]
    lines = [
        f"The laws disagree {_times(every['factor'])}-fold: {say(low)} ({every['laws'][0]}) to {say(high)} ({every['laws'][1]}) parameters."
    ]
    if core is not None:
        low, high = core["parameters"]
        lines[0] += f" Without Kaplan 2020, Gadre and rounded coefficients {_times(core['factor'])}-fold: {say(low)} to {say(high)}."
    lines.append("Losses are of each law's own text and tokenizer: compare them down a law, not across.")
    return lines


def _times(factor: float) -> str:
    return f"{factor:.1f}" if factor < 1000 else f"{powers(factor)}"


def silent(facts: dict[str, Any]) -> list[str]:
    """The laws that do not answer, by reason."""
    reasons: dict[str, list[str]] = {}
    for name, reason in facts["not_answered"].items():
        reasons.setdefault(reason.replace(f"the law {name} ", "").split("; take")[0], []).append(name)
    return [f"No answer from {', '.join(names)}: {reason}." for reason, names in reasons.items()]


def more(facts: dict[str, Any]) -> list[str]:
    """What more would buy, and the batch and learning rate that rules of the field give."""
    lines = []
    large = facts["bigger"]
    if large is not None:
        times, tie = f"{large['factor']:g} times", large["tokens_to_tie"]
        tied = (
            "never ties with it"
            if tie == float("inf")
            else f"ties with it after {say(tie)} tokens, {large['tie_compute_share']:.2f} of its compute"
        )
        line = (
            f"{times} the size on the same tokens: {-large['nats']:+.3f} nats ({-large['perplexity']:+.1%} perplexity) "
            f"for {times} the compute; this model {tied}."
        )
        after = large["break_even_tokens"]
        if tie != float("inf"):
            line += " Training this one longer is cheaper " + ("from the start." if after == 0 else f"once {say(after)} tokens are served.")
        lines.append(line)
        lines.append(
            f"The best model {times} as large takes {large['optimal_compute_factor']:.3g} times the compute "
            f"and gains {large['optimal_nats']:.3f} nats."
        )
    gain = facts["more_budget"]
    if gain is not None:
        between = "" if gain["interval"] is None else f" [{gain['interval'][0]:.3f}, {gain['interval'][1]:.3f}]"
        lines.append(
            f"{gain['factor']:g} times the budget gains {gain['nats']:.3f}{between} nats: {say(gain['parameters'])} parameters on "
            f"{say(gain['tokens'])} tokens, loss {gain['loss']:.3f}. "
            f"Twice the tokens for this size gains {facts['twice_the_tokens_nats']:.3f}."
        )
    rates = facts["rates"]
    best, critical, rate = rates["batch_tokens"], rates["critical_batch_tokens"], rates["learning_rate"]
    lines.append(
        f"Batch by four rules {say(best[0], 2)} to {say(best[1], 2)} tokens (critical: {say(critical[0], 2)} to {say(critical[1], 2)}), "
        f"learning rate by three {rate[0]:.1e} to {rate[1]:.1e}."
    )
    return lines
