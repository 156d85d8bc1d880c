"""The model of step times, fitted to published measurements, and how far it is off on models that it has not seen.

    .venv/bin/python benchmarks/mfu_calibration.py            # print
    .venv/bin/python benchmarks/mfu_calibration.py --write    # and write the coefficients and the tables in docs/plan

Reads openhearth/plan/tables/mfu_benchmarks.csv, throughput.csv and published_runs.csv; writes openhearth/plan/tables/speed.toml. No clock
and no random numbers: the same tables give the same figures. Some ten seconds.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from openhearth.plan import backtesting, calibration, speed
from openhearth.plan.calibration import HeldOut, Prepared, summary
from openhearth.plan.commands.backtest import summary as summary_lines
from openhearth.plan.quantities import say

DOCS = Path(__file__).parents[1] / "docs/plan"
END = "<!-- end -->"
TITLES = {"model": "one model at a time", "size": "all models of 13B and more at once", "software": "one project's measurements at a time"}


def table(found: dict[str, HeldOut]) -> str:
    """The table of the docs: median / 90th percentile / largest of the absolute errors, in percent."""
    lines = [
        "| held out | device, precision | rows | this model | one constant, causal | one constant, full |",
        "|---|---|---|---|---|---|",
    ]
    for split, held in found.items():
        seen = np.isfinite(held.errors)
        kinds = sorted({(row.device.id, row.precision) for row, used in zip(held.rows, seen, strict=True) if used})
        for device, precision in kinds:
            places = [i for i, row in enumerate(held.rows) if (row.device.id, row.precision) == (device, precision) and seen[i]]
            lines.append(_line(TITLES[split], f"{device}, {precision.removesuffix('-mixed')}", held, places))
        if split == "model":
            lines.append(_line(TITLES[split], "h100-sxm, bf16, of `throughput.csv`", held, calibration.issue_rows(held.rows)))
        lines.append(_line(TITLES[split], "**all**", held, [i for i, used in enumerate(seen) if used]))
    return "\n".join(lines) + "\n"


def _line(split: str, kind: str, held: HeldOut, places: Sequence[int]) -> str:
    cells = " | ".join(_errors(errors[places]) for errors in (held.errors, held.baseline, held.baseline_full))
    return f"| {split} | {kind} | {len(places)} | {cells} |"


def _errors(errors: Any) -> str:
    if not np.isfinite(errors).any():
        return "no such rows"
    return " / ".join(f"{100 * value:.1f}" for value in summary(errors)) + " %"


def runs_table(facts: Mapping[str, Any]) -> str:
    """The table of docs/plan/backtest.md."""
    lines = ["| run | on | reported hours | best | typical | error | 8 of 10 |", "|---|---|---|---|---|---|---|"]
    for row in facts["runs"]:
        if row["error"] is not None:
            hours = " | ".join(say(row[key]) for key in ("reported_chip_hours", "best_chip_hours", "typical_chip_hours"))
            inside = "inside" if row["inside"] else "outside"
            lines.append(f"| {row['run']} | {row['chips']:,} {row['device']} | {hours} | {row['error']:+.0%} | {inside} |")
    lines += ["", *(line.strip() + "  " for line in summary_lines(facts))]
    return "\n".join(lines) + "\n"


def share() -> str:
    """The sentence about whole runs in docs/plan/hardware.md."""
    middle, low, high = speed.whole_run_share()
    runs = len(speed.whole_runs())
    return f"{runs} published whole runs reached {middle:.2f} of their best case (median; quartiles\n{low:.2f} and {high:.2f})"


def put(page: Path, start: str, text: str) -> None:
    """Between a mark and the next end."""
    before, rest = page.read_text("utf-8").split(start, 1)
    page.write_text(before + start + text + END + rest.split(END, 1)[1], "utf-8")


def write(fitted: speed.Coefficients, shares: dict[str, float]) -> None:
    """Write speed.toml."""
    lines = ["# The coefficients of openhearth/plan/speed.py, written by benchmarks/mfu_calibration.py.", "", "[coefficients]"]
    lines += [f"{name} = {getattr(fitted, name):.6g}" for name in ("moved", "logits", "again", "data", "tensor", "hop")]
    for name in ("products", "attention", "software", "best"):
        lines += ["", f"[coefficients.{name}]"] + [f'"{key}" = {value:.6g}' for key, value in getattr(fitted, name).items()]
    lines += ["", "# The share of the best case that published whole runs reached.", "[whole_runs]"]
    lines += [f'"{name}" = {value:.4g}' for name, value in shares.items()]
    speed.TABLE.write_text("\n".join(lines) + "\n", "utf-8")
    speed.coefficients.cache_clear()
    speed.whole_runs.cache_clear()


def main() -> None:
    """Fit, hold out, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write speed.toml and the tables in docs/plan")
    arguments = parser.parse_args()
    data = Prepared.of(calibration.rows())
    fitted = calibration.fit(data)
    own = np.exp(data.log_seconds) / data.seconds(fitted) - 1
    shown = table({split: calibration.held_out(data, split) for split in calibration.SPLITS})
    print(f"{len(data.rows)} rows; in the fit itself {_errors(own)}")
    print(fitted)
    print(shown)
    for lender, borrower in (("hopper", "ampere"), ("ampere", "hopper")):
        print(f"{borrower} with the coefficients of {lender}: {_errors(calibration.borrowed(data, lender, borrower))}")
    if arguments.write:
        write(fitted, speed.whole_runs())  # type: ignore[arg-type]
        shares = backtesting.shares()  # by the new coefficients
        write(fitted, shares)
        put(DOCS / "hardware.md", "<!-- table: calibration -->\n", shown)
        put(DOCS / "hardware.md", "<!-- share -->", share())
        put(DOCS / "backtest.md", "<!-- table: backtest -->\n", runs_table(backtesting.backtest()))
    middle, low, high = speed.whole_run_share()
    print(f"whole runs reach {middle:.2f} of the best case (quartiles {low:.2f} and {high:.2f}, {len(speed.whole_runs())} runs)")


if __name__ == "__main__":
    main()
