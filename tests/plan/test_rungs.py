"""The ladder of budgets against the planning reference's own table, and its command."""

from __future__ import annotations

import json

import pytest

from openhearth import cli
from openhearth.plan import ladder

H100 = 2.95 / 3600 / (989e12 * 0.40)
"""USD per FLOP at 2.95 USD an hour and 40 % of the dense bf16 peak."""

COMPUTED = {
    1e2: (588e6, 13.7e9, 2.65),
    1e3: (1.92e9, 42e9, 2.37),
    1e4: (6.3e9, 128e9, 2.19),
    1e5: (20.5e9, 393e9, 2.06),
    1e6: (66.8e9, 1.20e12, 1.979),
    1e7: (218e9, 3.7e12, 1.924),
    1e8: (0.71e12, 11.3e12, 1.888),
}
"""Computed by another program from the same law, printed to two or three digits."""


def test_each_rung_is_the_optimum_of_its_budget() -> None:
    for row in ladder(usd_per_flop=H100):
        parameters, tokens, loss = COMPUTED[row["usd"]]
        assert row["parameters"] == pytest.approx(parameters, rel=0.01)
        assert row["tokens"] == pytest.approx(tokens, rel=0.012)
        assert row["loss"] == pytest.approx(loss, abs=0.006)
        assert row["flops"] == pytest.approx(6 * row["parameters"] * row["tokens"])
        assert all(row[f"{name}_low"] < row[name] < row[f"{name}_high"] for name in ("parameters", "tokens", "loss"))


def test_the_command_prints_every_rung_and_gives_the_same_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["plan", "ladder", "--on", "h100", "--price", "2.95/h", "--mfu", "0.40"]
    assert cli._status(options) == 0
    printed = capsys.readouterr().out
    assert cli._status([*options, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [row["usd"] for row in facts["rungs"]] == list(COMPUTED)
    assert facts["rungs"][4]["parameters"] == pytest.approx(66.8e9, rel=0.01) and "$1M" in printed and "66.9B" in printed


def test_a_law_without_a_loss_and_an_unknown_device_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for options, said in ((["--law", "deepseek"], "deepseek"), (["--on", "h10"], "did you mean 'h100'")):
        assert cli._status(["plan", "ladder", *options]) == 2
        complaint = capsys.readouterr().err
        assert said in complaint and complaint.count("\n") == 1
