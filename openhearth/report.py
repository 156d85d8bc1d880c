"""The end of a run: what it took, how good the model is, what it says, and what to type next. Every figure comes from `record`."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from openhearth.budget_text import say_seconds
from openhearth.ledger import Json
from openhearth.serve.terminal import harmless

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 100
SAMPLE_LINES = 10
BAR = 16


def show(facts: Json, console: Console | None = None) -> None:
    """Print the report."""
    console = console or Console(highlight=False)
    if console.width > WIDTH:
        console.width = WIDTH
    console.print(report(facts))


def report(facts: Json) -> RenderableType:
    """The parts whose stages have run, in order."""
    parts: list[RenderableType] = [
        Text(),
        Rule(Text(f" {facts['run']} ", style="bold"), align="left", style="dim"),
        Text(),
        _summary(facts),
    ]
    for title, body in (
        ("Time", _times(facts)),
        ("Loss, nats per token", _losses(facts)),
        ("Bits per byte on text that was held out (less is better)", _bits(facts)),
        ("Bits per byte on held-out text, before and after (less is better)", _continued(facts)),
        ("Functions that are valid Python", _parses(facts)),
        ("Samples", _samples(facts)),
        ("Next", _next(facts)),
    ):
        if body is not None:
            parts += [Text(), Text(title, style="bold"), Padding(body, (0, 0, 0, 2))]
    return Group(*parts, Text())


def quantity(value: float | None) -> str:
    """'4.13 M', '812 k', '1.2e+15' for what is beyond names."""
    if value is None:
        return ""
    for size, name in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 1e15:
            return f"{value:.2e}"
        if abs(value) >= size:
            return f"{value / size:.3g} {name}"
    return f"{value:g}"


def _summary(facts: Json) -> RenderableType:
    pieces = []
    if facts["parameters"]:
        pieces.append(f"{quantity(facts['parameters'])} parameters")
    tokens = [stage["tokens"] for stage in facts["stages"] if stage["stage"] in ("pretrain", "continue", "sft") and stage["tokens"]]
    if tokens:
        pieces.append(f"trained on {quantity(sum(tokens))} tokens")
    pieces.append(f"{say_seconds(facts['total']['seconds'])} of a budget of {facts['budget']}")
    lines = [Text(" · ".join(pieces))]
    if facts["release"]:
        lines.append(Text.assemble("released in ", (facts["release"], "bold")))
    if facts["state"] != "done":
        lines.append(Text(f"this run is not complete: {facts['state']}", style="yellow"))
    return Padding(Group(*lines), (0, 0, 0, 2))


def _times(facts: Json) -> RenderableType:
    predicted = any(stage["predicted_seconds"] is not None for stage in facts["stages"])
    table = _table("", *(["predicted"] if predicted else []), "measured", "", numbers=3)
    longest = max((stage["seconds"] for stage in facts["stages"]), default=0.0) or 1.0
    for stage in facts["stages"]:
        guess = stage["predicted_seconds"]
        middle = [say_seconds(guess) if guess is not None else ""] if predicted else []
        table.add_row(stage["stage"], *middle, say_seconds(stage["seconds"]), _bar(stage["seconds"] / longest))
    total, guess = facts["total"]["seconds"], facts["total"]["predicted_seconds"]
    middle = [say_seconds(guess) if guess is not None else ""] if predicted else []
    off = f"{(total - guess) / guess:+.0%} against the prediction" if guess else ""
    table.add_row(Text("total", style="bold"), *middle, Text(say_seconds(total), style="bold"), Text(off, style="dim"))
    if (used := facts["total"]["energy"]) is not None:
        foreseen = facts["total"]["predicted_energy"]
        middle = [say_energy(foreseen["joules"]) if foreseen else ""] if predicted else []
        table.add_row("energy", *middle, say_energy(used["joules"]), Text(used["source"], style="dim"))
    return table


def say_energy(joules: float) -> str:
    """'1.3 Wh', '0.42 kWh'."""
    hours = joules / 3600
    return f"{hours:.2g} Wh" if hours < 10 else f"{hours:.0f} Wh" if hours < 1000 else f"{hours / 1000:.3g} kWh"


def _losses(facts: Json) -> RenderableType | None:
    table = _table("", "", "", numbers=0)
    table.show_header = False
    for kind, rows in facts["losses"].items():
        values = [loss for _, loss in rows]
        if len(values) >= 2:
            tail = values[-max(1, len(values) // 50) :]
            table.add_row(kind, Text(sparkline(values, 48), style="cyan"), f"{values[0]:.2f} to {sum(tail) / len(tail):.2f}")
    return table if table.row_count else None


def sparkline(values: Sequence[float], width: int) -> str:
    """The values as `width` bars: each the mean of its part, the largest full height."""
    width = min(width, len(values))
    parts = [values[len(values) * place // width : len(values) * (place + 1) // width] for place in range(width)]
    means = [sum(part) / len(part) for part in parts]
    low, high = min(means), max(means)
    return "".join(BARS[round((mean - low) / ((high - low) or 1.0) * (len(BARS) - 1))] for mean in means)


def _bits(facts: Json) -> RenderableType | None:
    figures = (facts["evaluation"] or {}).get("bits_per_byte")
    if not figures:
        return None
    rows = [("this model", figures.get("sft"), "bold green"), ("before sft", figures.get("base"), "green")]
    rows += [(name, figure, "") for name, figure in (figures.get("baselines") or {}).items()]
    shown = [(name, figure, style) for name, figure, style in rows if figure]
    longest = max(figure["value"] for _, figure, _ in shown)
    table = _table("", "", "", "", numbers=1)
    table.show_header = False
    for name, figure, style in shown:
        value, interval = Text(f"{figure['value']:.3f}", style=style), Text(_interval(figure, "{:.3f}"), style="dim")
        table.add_row(Text(name, style=style, overflow="fold"), value, interval, _bar(figure["value"] / longest, style or "dim"))
    size = f"{figures['documents']:,} documents, {quantity(figures['bytes'])}B"
    lines = [Text(f"on {size}; the range is a 95 % interval over documents", style="dim")]
    if foreseen := facts["bits_per_byte"]["predicted"]:
        off = (figures["base"]["value"] - foreseen["value"]) / foreseen["value"]
        lines.insert(0, Text(f"the plan predicted {foreseen['value']:.3f} ({_interval(foreseen, '{:.3f}')}) before sft: {off:+.1%}"))
    return Group(table, *lines)


def _continued(facts: Json) -> RenderableType | None:
    """The old and the new text, before and after a model was continued."""
    figures = facts.get("forgetting")
    if not figures:
        return None
    table = _table("", "before", "after", "change", "95 %", numbers=3)
    for name in ("old", "new"):
        before, after, change = (figures[name][key] for key in ("before", "after", "change"))
        better = change["value"] < 0
        interval = _interval(change, "{:+.3f}") if change["low"] is not None else "one document"
        table.add_row(
            f"{name} text",
            f"{before['value']:.3f}",
            f"{after['value']:.3f}",
            Text(f"{change['value']:+.3f}", style="green" if better else "yellow"),
            Text(f"{interval}, {figures[name]['documents']:,} documents", style="dim"),
        )
    kept = next(stage["facts"] for stage in facts["stages"] if stage["stage"] == "continue")
    said = f"{quantity(kept['replayed_tokens'])} of the tokens were old text, from {kept['replayed_documents']:,} documents"
    return Group(table, Text(f"{said}; the range is a 95 % interval over documents", style="dim"))


def _parses(facts: Json) -> RenderableType | None:
    parses = (facts["evaluation"] or {}).get("parses")
    if not parses:
        return None
    table = _table("", "", "", "", numbers=1)
    table.show_header = False
    for name, key in (("this model", "sft"), ("before sft", "base")):
        if figure := parses.get(key):
            named = f"; {figure['named']:.0%} have the name asked for" if key == "sft" else "; header and docstring given"
            count = Text(f"{_interval(figure, '{:.0%}')} of {figure['n']}{named}", style="dim")
            table.add_row(name, f"{figure['share']:.0%}", count, _bar(figure["share"]))
    return table


def _samples(facts: Json) -> RenderableType | None:
    samples: list[dict[str, str]] = ((facts["evaluation"] or {}).get("samples") or [])[:3]
    if not samples:
        return None
    parts: list[RenderableType] = []
    for number, sample in enumerate(samples):
        prompt, answer = harmless(sample["prompt"]).strip(), harmless(sample["answer"]).rstrip()
        lines = answer.strip("\n").split("\n")
        more = len(lines) - SAMPLE_LINES
        cut = [*lines[:SAMPLE_LINES], f"... ({more} more {'lines' if more > 1 else 'line'})"] if more > 0 else lines
        parts += [Text()] if number else []
        parts.append(_beside("you  ", Text(_short(prompt, 600), style="cyan")))
        parts.append(_beside("model", Text("\n".join(cut))))
    return Group(*parts)


def _beside(name: str, text: Text) -> RenderableType:
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    table.add_row(name, text)
    return table


def _next(facts: Json) -> RenderableType | None:
    folder, hearth = _typed(facts["folder"]), program()
    commands = []
    if facts["release"]:
        commands = [
            (f"{hearth} chat {folder}", "talk to it"),
            (f"{hearth} verify {folder}", "check every file of the release"),
            (f"{hearth} rebuild {folder}", "make it again and compare the bits"),
        ]
    commands.append((f"{hearth} show {folder}", "what was read, run and made"))
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column(overflow="fold", no_wrap=True)  # must be there to be copied, whole
    table.add_column()
    for command, what in commands:
        table.add_row(Text(command, style="bold"), Text(what, style="dim"))
    return table


# -- small things -----------------------------------------------------------------------------------------------------------


def _table(*columns: str, numbers: int) -> Table:
    """A table without lines; `numbers` columns after the first are right-aligned."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    for place, name in enumerate(columns):
        table.add_column(name, justify="right" if 1 <= place <= numbers and place < len(columns) - (numbers > 1) else "left", no_wrap=True)
    return table


def _bar(share: float, style: str = "cyan", width: int = BAR) -> Text:
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    return Text("█" * (eighths // 8) + (" ▏▎▍▌▋▊▉"[eighths % 8] if eighths % 8 else ""), style=style.replace("bold ", ""))


def _interval(figure: dict[str, Any], form: str) -> str:
    return f"{form.format(figure['low'])} to {form.format(figure['high'])}"


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def program() -> str:
    """How this program is called from here: `hearth` where a shell finds it, else its path, such as .venv/bin/hearth."""
    called = Path(sys.argv[0])
    if called.name != "hearth" or shutil.which("hearth"):
        return "hearth"
    called = called.absolute()
    return _typed(called.relative_to(Path.cwd()) if called.is_relative_to(Path.cwd()) else called)


def _typed(path: str | Path) -> str:
    """As it must be typed in a shell."""
    return shlex.quote(str(Path(path)))
