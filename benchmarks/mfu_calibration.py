"""The model of step times, fitted to published measurements, and how far it is off on models that it has not seen.

    .venv/bin/python benchmarks/mfu_calibration.py            # print
    .venv/bin/python benchmarks/mfu_calibration.py --write    # and write the coefficients and the table in docs/plan/hardware.md

Reads openhearth/plan/tables/mfu_benchmarks.csv, throughput.csv and published_runs.csv; writes openhearth/plan/tables/speed.toml. No clock
and no random numbers: the same tables give the same figures. Some ten seconds.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from openhearth.plan import backtesting, calibration, speed
from openhearth.plan.calibration import HeldOut, Prepared, summary

PAGE = Path(__file__).parents[1] / "docs/plan/hardware.md"
START, END = "<!-- table: calibration -->\n", "<!-- end -->"
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
    parser.add_argument("--write", action="store_true", help="write speed.toml and the table in docs/plan/hardware.md")
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
        if PAGE.is_file():
            text = PAGE.read_text("utf-8")
            before, rest = text.split(START, 1)
            PAGE.write_text(before + START + shown + END + rest.split(END, 1)[1], "utf-8")
    middle, low, high = speed.whole_run_share()
    print(f"whole runs reach {middle:.2f} of the best case (quartiles {low:.2f} and {high:.2f}, {len(speed.whole_runs())} runs)")


if __name__ == "__main__":
    main()
