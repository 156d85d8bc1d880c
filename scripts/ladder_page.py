"""Write the law of the ladder, and how it foretells the held-out runs, into docs/plan.md. Run after benchmarks/ladder.py."""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path

from openhearth.plan import prediction

PAGE = Path(__file__).parents[1] / "docs/plan.md"
BEGIN, END = "<!-- ladder: made by scripts/ladder_page.py -->", "<!-- end of ladder -->"


def section() -> str:
    """The generated part: coefficients with intervals, then predicted and measured."""
    fitted = prediction.ladder()
    lines = ["| coefficient | value | 95 % interval |", "|---|---:|---:|"]
    for name, estimate in fitted.estimates.items():
        lines.append(f"| {name} | {estimate.value:.4g} | {estimate.low:.4g} to {estimate.high:.4g} |")
    lines += ["", "| held-out run | tokens | predicted (95 % of single runs) | measured | error |", "|---|---:|---:|---:|---:|"]
    with prediction.TABLE.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["held_out"] != "1":
                continue
            found = prediction.predict(float(row["parameters"]), float(row["tokens"]), float(row["unique_tokens"]))
            measured = float(row["bits_per_byte"])
            lines.append(
                f"| {row['name'].rsplit('-', 1)[0]} | {float(row['tokens']) / 1e6:.2f} M | {found.value:.3f} ({found.low:.3f} to "
                f"{found.high:.3f}) | {measured:.3f} | {(found.value - measured) / measured:+.1%} |"
            )
    return "\n".join(lines)


def page(text: str) -> str:
    """The page with its generated part renewed."""
    return re.sub(f"(?s){re.escape(BEGIN)}.*{re.escape(END)}", lambda _: f"{BEGIN}\n{section()}\n{END}", text)


if __name__ == "__main__":
    new = page(PAGE.read_text())
    if "--check" in sys.argv:
        sys.exit(new != PAGE.read_text())
    PAGE.write_text(new)
