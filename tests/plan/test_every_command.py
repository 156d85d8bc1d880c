"""What holds for every command of `hearth plan`: a function of its name, --json, keys that its page documents, no PyTorch."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import openhearth.plan
from openhearth import cli, cli_plan

ROOT = Path(__file__).parents[2]
RUNS = "openhearth/plan/tables/gadre_runs_104.csv"
COMMANDS = {
    "optimal": (
        ["--quality-of", "13B", "--serve-tokens", "2T", "--law", "all"], ["--budget", "$1M on h100"],
        ["--flops", "1e23", "--unique-tokens", "1T"],
    ),
    "loss": (["30B:450B", "120B:450B"], ["7B:1T", "--unique-tokens", "100B"]),
    "ladder": (["--on", "h100"],),
    "laws": ([], ["porian"]),
    "shape": (["recipes/mixtral-8x7b.toml"], ["recipes/llama-65b.toml"]),
    "fit": (
        [RUNS, "--form", "gadre", "--where", "train=c4_original", "--column", "loss=loss_c4_val", "--column", "parameters=params",
         "--bootstraps", "20", "--flops", "1e21", "--predict", "N=1B,D=20B"],
    ),
    "claims": ([], ["alignment"]),
    "backtest": ([],),
    "hardware": ([], ["h100"]),
    "accelerators": ([],),
    "energy": (["--chip-hours", "1022362", "--on", "a100-80", "--watts", "400"],),
    "recipe": (
        ["recipes/llama-65b.toml", "--on", "2048xa100-80"], ["7B", "--on", "8xh100", "--unique-tokens", "50B"],
        ["recipes/laptop.toml", "--budget", "$100 on 8xh100"], ["7B", "--budget", "1e22 flop"],
    ),
}  # fmt: skip
"""Questions to each command that between them show every key."""
PAGES = {
    "shape": "memory", "fit": "fit", "claims": "claims", "backtest": "backtest", "hardware": "hardware", "accelerators": "hardware",
    "energy": "hardware", "recipe": "hardware",
}  # fmt: skip
"""Of docs/plan; all others stand in laws.md."""
NAMED_BY_VALUE = {
    "laws", "over_first_by_law", "by_law", "not_answered", "coefficients", "printed", "details", "peak_tflops", "rules", "step_seconds",
    "by_group", "flops_per_token", "training_flops", "state_bytes", "activation_bytes_per_token", "weight_bytes", "profiles", "columns",
    "fixed", "with", "without", "shape",
}  # fmt: skip
"""Keys whose own keys are names of laws, devices, conventions and the like, which are said where they are defined."""


SAID_ELSEWHERE = {"loss": {"bigger"}, "recipe": {"optimum", "four_times_the_size"}}
"""Keys that hold what another command prints."""
HEADS = {"recipe": "RECIPE", "accelerators": "hardware"}


def keys(value: Any, closed: set[str]) -> Iterator[str]:
    if isinstance(value, list):
        for each in value:
            yield from keys(each, closed)
    elif isinstance(value, dict):
        for key, each in value.items():
            yield key
            if key not in closed:
                yield from keys(each, closed)


def documented(command: str) -> tuple[set[str], set[str]]:
    """All words in backticks of the sections on --json of a command's page, and those in the first column of their tables."""
    text = (ROOT / f"docs/plan/{PAGES.get(command, 'laws')}.md").read_text("utf-8")
    sections = [section for section in re.split(r"^## ", text, flags=re.MULTILINE) if "--json`" in section]
    passages = "".join(sections)
    parts = re.split(r"(?=`hearth plan [^`]*--json`)", passages)  # where a page has several commands
    passages = "".join(part for part in parts if part.startswith(f"`hearth plan {HEADS.get(command, command)} ")) or passages
    rows = re.findall(r"^\| (`[^|]*) \|", passages, flags=re.MULTILINE)
    return set(re.findall(r"`([a-z_0-9]+)`", passages)), set(re.findall(r"`([a-z_0-9]+)`", "".join(rows)))


def test_the_table_holds_every_command() -> None:
    names = {command.name or command.callback.__name__ for command in cli_plan.app.registered_commands if command.callback}
    assert names == set(COMMANDS) == set(cli_plan.COMMANDS) == set(openhearth.plan.__all__)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_prints_json_with_the_keys_that_its_page_documents(
    command: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    found: set[str] = set()
    for arguments in COMMANDS[command]:
        assert cli._status(["plan", command, *arguments, "--json"]) == 0
        facts = json.loads(capfd.readouterr().out, parse_constant=pytest.fail)
        found |= set(keys(facts, NAMED_BY_VALUE | SAID_ELSEWHERE.get(command, set())))
    words, table = documented(command)
    assert found - words == set(), f"not in docs/plan/{PAGES.get(command, 'laws')}.md"
    assert table - found == set(), f"in docs/plan/{PAGES.get(command, 'laws')}.md, and never printed"


def test_every_command_is_a_function_whose_import_loads_neither_torch_nor_the_command_line() -> None:
    """In one process, after all of the room's modules: none of them may take a function's place."""
    code = (
        "import importlib, pkgutil, sys, openhearth.plan as plan\n"
        "for each in pkgutil.walk_packages(plan.__path__, 'openhearth.plan.'):\n"
        "    if 'pictures' not in each.name and '.commands' not in each.name: importlib.import_module(each.name)\n"
        "assert all(callable(getattr(plan, name)) for name in plan.__all__), plan.__all__\n"
        "heavy = {'torch', 'typer', 'rich', 'matplotlib', 'scipy', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("name", openhearth.plan.__all__)
def test_a_function_is_lazy(name: str) -> None:
    assert name not in vars(openhearth.plan) or callable(vars(openhearth.plan)[name])
    assert callable(getattr(openhearth.plan, name)) and getattr(openhearth.plan, name).__doc__


def test_the_functions_are_offered_for_completion() -> None:
    assert set(openhearth.plan.__all__) <= set(dir(openhearth.plan))


def test_what_the_room_lacks_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'optimum_of'"):
        openhearth.plan.optimum_of  # noqa: B018
