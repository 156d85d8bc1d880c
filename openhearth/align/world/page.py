"""The page of results: tables with intervals, plots as SVG, the judge's calibration, what each stage cost, fifty random transcripts.

Written from results.json alone. What fails is on it as well as what works: that is a matter of showing every policy and every split.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from openhearth.align.packing import keyed_order
from openhearth.ledger import write_atomic
from openhearth.report import quantity

NAMES = {
    "helpful": "helpful only",
    "sl_cai": "SL-CAI",
    "rl_cai": "RL-CAI",
    "shuffled_labels": "control: shuffled labels",
    "inverted_constitution": "control: inverted constitution",
    "gold_answers": "control: gold answers",
    "always_refuse": "baseline: always refuse",
    "keyword_refuser": "baseline: keyword",
}
SPLITS = {
    "test": "pairs never seen",
    "unseen_phrasing": "asked in a way never aligned on",
    "unseen_item": "things never aligned on",
    "unseen_law": "a law never shown",
}
TRANSCRIPTS = 50
SIZE, LEFT, TOP = 400, 60, 20


def write_page(results: dict[str, Any], answers: Sequence[dict[str, Any]], out: Path, *, seed: int) -> None:
    """`result.md`, `pareto.svg` and `calibration.svg` in `out`; `answers` are those of the last model, for transcripts."""
    write_atomic(out / "pareto.svg", pareto(results["policies"]).encode())
    write_atomic(out / "calibration.svg", calibration(results["judge"]).encode())
    write_atomic(out / "result.md", page(results, answers, seed).encode())


def page(results: dict[str, Any], answers: Sequence[dict[str, Any]], seed: int) -> str:
    """The whole page."""
    parts = [
        f"# Constitutional AI in the generated world, seed {results['seed']}",
        f"{quantity(results['parameters'])} parameters, from random weights. Shares in per cent with 95 % intervals (Wilson). Harmful\n"
        "compliance: a harmful request is done; less is better. Benign help: a harmless one is done; more is better.",
        "![Benign help against harmless refusal, with 95 % intervals](pareto.svg)",
        "## On pairs that no training saw",
        _policies(results["policies"]),
        "## Where it generalises, and where it does not",
        _splits(results["policies"]),
        "## Revision by revision (prompts to align on)",
        _revisions(results["revisions"]),
        "## The judge, on the pairs that the policy was trained on",
        _judge(results["judge"]),
        "![How often the judge is right against how sure it is](calibration.svg)",
        "## Compute",
        _compute(results),
        "## What this does and does not show",
        LIMITS,
        f"## {TRANSCRIPTS} answers of the last model, drawn at random",
        _transcripts(answers, seed),
    ]
    return "\n\n".join(parts) + "\n"


LIMITS = """- The critic was taught on DEMO pairs how a principle is applied; on ALIGN and TEST pairs it saw none. A model of this
  size reads a principle as a pattern of tokens, not as English. The controls show whether the pattern matters.
- It validates the pipeline, the losses, the accounting and the controls. It says nothing about the harmlessness of language models.
- The law that no demonstration holds is where self-critique cannot help: its row above is expected to fail.
- Human helpfulness labels of the paper are replaced by the helpful model's own answers; the policy is trained by DPO on the soft labels
  instead of PPO against a preference model."""


def _policies(policies: dict[str, Any]) -> str:
    head = "| policy | harmful compliance | true reason given | evasive | alternative | benign help | sums right |\n" + "|---" * 7 + "|"
    keys = ("harmful_compliance", "reason_correct", "evasive", "alternative", "benign_help")
    lines = []
    for name, label in NAMES.items():
        if name in policies:
            cells = [_share(policies[name]["test"].get(key)) for key in keys]
            lines.append(f"| {label} | {' | '.join(cells)} | {_share(policies[name].get('sums'))} |")
    sizes = next(iter(policies.values()))["test"]
    foot = f"\n\n{sizes['harmful_requests']} harmful and {sizes['harmless_requests']} harmless requests, an answer each (temperature 1)."
    return "\n".join([head, *lines]) + foot


def _splits(policies: dict[str, Any]) -> str:
    rows = ["| requests | policy | harmful compliance | benign help |", "|---|---|---|---|"]
    for split, label in SPLITS.items():
        for name in ("helpful", "sl_cai", "rl_cai", "gold_answers"):
            scores = policies.get(name, {}).get(split)
            if scores:
                rows.append(
                    f"| {label} | {NAMES[name]} | {_share(scores.get('harmful_compliance'))} | {_share(scores.get('benign_help'))} |"
                )
    return "\n".join(rows)


def _revisions(rounds: Sequence[dict[str, Any]]) -> str:
    rows = ["| revision | harmful compliance | true reason given | benign help |", "|---|---|---|---|"]
    for row in rounds:
        cells = (_share(row[key]) for key in ("harmful_compliance", "reason_correct", "benign_help"))
        rows.append(f"| {row['round'] or 'first answer'} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _judge(judge: dict[str, Any]) -> str:
    rows = ["| labels | right | calibration error | Brier |", "|---|---|---|---|"]
    for name in ("all_principles", "general_principles"):
        if figures := judge.get(name):
            cells = [_share(figures["accuracy"]), *(_number(figures[key]) for key in ("calibration_error", "brier"))]
            rows.append(f"| {name.replace('_', ' ')} | {' | '.join(cells)} |")
    gap = judge["order"]["gap"]
    foot = (
        f"\n\n{judge['rows']:,} labels ({', '.join(judge['kinds'])}), {judge['decided_by_gold']:,} of pairs with one really better answer. "
        "Most principles are about one kind of harm or about manner, and are right to be unsure of the rest.\n"
        f"Liking for the first place: {_number(gap)} (0: none)."
    )
    return "\n".join(rows) + foot


def _compute(results: dict[str, Any]) -> str:
    rows = ["| stage | FLOPs | of them training | tokens sampled | tokens judged |", "|---|---|---|---|---|"]
    for kind, row in results["compute"].items():
        trained = row["training_flops"] if row["training_flops"] is not None else row["flops"]
        cells = (row["flops"], trained, row["sampling_tokens"] or 0, row["judging_tokens"] or 0)
        rows.append(f"| {kind} | {cells[0]:.2e} | {cells[1]:.2e} | {cells[2]:,} | {cells[3]:,} |")
    share = f"\n\nAlignment (all but the base model) took {results['alignment_share']:.0%} of the FLOPs, sampling and judging included. "
    return (
        "\n".join(rows)
        + share
        + "Seconds: `hearth show`. For models that people use the published shares are a few per cent: here the base is tiny."
    )


def _transcripts(answers: Sequence[dict[str, Any]], seed: int) -> str:
    from openhearth.align.world.gold import grade
    from openhearth.align.world.house import Pair

    rows = ["| | request | answer | |", "|---|---|---|---|"]
    for number in keyed_order(len(answers), seed, "transcripts")[:TRANSCRIPTS]:
        row = answers[number]
        graded = grade(row["answer"], Pair(row["item"], row["place"]))
        right = graded.reasoned if graded.harmful_request else graded.done
        kind = "harmful" if graded.harmful_request else "harmless"
        rows.append(f"| {kind} | {row['prompt']} | {row['answer'].replace('|', '/')} | {'right' if right else '**wrong**'} |")
    return "\n".join(rows)


def _share(found: dict[str, Any] | None) -> str:
    return "" if found is None else f"{100 * found['value']:.0f} ({100 * found['low']:.0f} to {100 * found['high']:.0f})"


def _number(found: dict[str, Any]) -> str:
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


# -- plots ------------------------------------------------------------------------------------------------------------------


def _frame(body: Sequence[str], across: str, up: str, labels: Sequence[str]) -> str:
    """A square plot of [0, 1] x [0, 1] with axes; `labels` are the texts at 0, 1/2 and 1 of both axes."""
    ticks = []
    for place, label in zip((0.0, 0.5, 1.0), labels, strict=True):
        ticks.append(f'<text x="{_x(place):.0f}" y="{TOP + SIZE + 18}" text-anchor="middle">{label}</text>')
        ticks.append(f'<text x="{LEFT - 8}" y="{_y(place) + 4:.0f}" text-anchor="end">{label}</text>')
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + SIZE + 200} {TOP + SIZE + 50}"',
            ' font-family="sans-serif" font-size="12">',
            f'<rect x="{LEFT}" y="{TOP}" width="{SIZE}" height="{SIZE}" fill="white" stroke="#999"/>',
            *ticks,
            f'<text x="{LEFT + SIZE / 2}" y="{TOP + SIZE + 40}" text-anchor="middle">{across}</text>',
            f'<text transform="translate(16 {TOP + SIZE / 2}) rotate(-90)" text-anchor="middle">{up}</text>',
            *body,
            "</svg>",
        ]
    )


def _x(value: float) -> float:
    return LEFT + SIZE * value


def _y(value: float) -> float:
    return TOP + SIZE * (1 - value)


def pareto(policies: dict[str, Any]) -> str:
    """Harmless against helpful on the test pairs, each policy with its two intervals."""
    body = []
    for number, (name, label) in enumerate((name, label) for name, label in NAMES.items() if name in policies):
        harm, help_ = policies[name]["test"]["harmful_compliance"], policies[name]["test"]["benign_help"]
        colour = f"hsl({number * 45} 70% 40%)"
        x, y = _x(help_["value"]), _y(1 - harm["value"])
        low, high = _y(1 - harm["high"]), _y(1 - harm["low"])
        body += [
            f'<path d="M{_x(help_["low"]):.1f} {y:.1f}H{_x(help_["high"]):.1f}M{x:.1f} {low:.1f}V{high:.1f}" stroke="{colour}"/>',
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>',
            f'<circle cx="{LEFT + SIZE + 16}" cy="{TOP + 16 + 20 * number}" r="4" fill="{colour}"/>',
            f'<text x="{LEFT + SIZE + 26}" y="{TOP + 20 + 20 * number}">{label}</text>',
        ]
    return _frame(body, "harmless requests done", "harmful requests not done", ("0", "50 %", "100 %"))


def calibration(judge: dict[str, Any]) -> str:
    """How often right against how sure, both from one half to one; the area of a dot is its share of the rows."""
    body = [f'<path d="M{_x(0)} {_y(0)}L{_x(1)} {_y(1)}" stroke="#999" stroke-dasharray="4"/>']
    for colour, name in (("#38c", "all_principles"), ("#c53", "general_principles")):
        rows = judge.get(name, {}).get("calibration", [])
        total = sum(row["rows"] for row in rows)
        for row in rows:
            place = _x(2 * row["sure"] - 1), _y(max(0.0, 2 * row["right"] - 1))
            size = 3 + 25 * (row["rows"] / total) ** 0.5
            body.append(f'<circle cx="{place[0]:.1f}" cy="{place[1]:.1f}" r="{size:.1f}" fill="{colour}" fill-opacity="0.6"/>')
    for number, (colour, label) in enumerate((("#38c", "all principles"), ("#c53", "general principles"))):
        body.append(f'<text x="{LEFT + SIZE + 16}" y="{TOP + 20 + 20 * number}" fill="{colour}">{label}</text>')
    return _frame(body, "how sure the judge is", "how often it is right", ("50 %", "75 %", "100 %"))
