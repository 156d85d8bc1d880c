"""`hearth plan RECIPE --budget ...`: what the dial of `hearth run` would choose, said as prose, without training.

Time on this machine can only be planned by measuring this machine, so that budget makes the run's first stages, up to its plan, in the
run's own folder: `hearth run` with the same words goes on from there. Money, chip-hours and FLOPs are answered by the laws at once.
"""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Any

from openhearth.budget_text import say_seconds
from openhearth.plan.budgets import FASTEST_RATE, Budget, read_budget
from openhearth.plan.quantities import say

LEAST = 1e15
"""FLOPs below which the laws are not asked."""


def dial_command(model: str, text: str, *, law: str | None = None, folder: Path | None = None, json: bool = False) -> int:
    """Print the derivation, each step with its source. Raises HearthError for a budget or a recipe that cannot be followed."""
    budget = read_budget(text)
    return _here(Path(model), text, folder, json=json) if budget.seconds is not None else _by_laws(model, budget, law, json=json)


def _here(path: Path, text: str, folder: Path | None, *, json: bool) -> int:
    """Time: measure this machine, as the run's own plan does."""
    import shlex

    from openhearth import progress, runner
    from openhearth.commands import plan_steps
    from openhearth.ledger import read_json
    from openhearth.recipe import Recipe

    parsed = Recipe.load(path, budget=text)
    with progress.watcher() as watcher:
        result = runner.run(parsed, folder, until="plan", watcher=watcher)
    plan = read_json(result.made["plan"].path / "plan.json")
    if json:
        print(jsonlib.dumps(plan, indent=2, ensure_ascii=False))
        return 0
    plan_steps(plan)
    where = "" if folder is None else f" --dir {shlex.quote(str(folder))}"
    print(f"\nNothing is trained yet. To go on from here: hearth run {shlex.quote(str(path))} --budget {shlex.quote(text)}{where}")
    return 0


def _by_laws(model: str, budget: Budget, law: str | None, *, json: bool) -> int:
    """FLOPs, wherever they came from: the compute-optimal model, and on named hardware what it takes."""
    from openhearth.plan import questions
    from openhearth.plan.commands.optimal import answer_facts, finite
    from openhearth.plan.commands.optimal_text import headline
    from openhearth.plan.recipes import read_model, recipe

    if Path(model).suffix != ".toml" or not Path(model).exists():
        read_model(model)  # says what is wrong with it
    assert budget.flops is not None, "time is planned by measurement"
    optimum = answer_facts(questions.ask(budget.flops), law) if budget.flops >= LEAST else None
    facts: dict[str, Any] = {"budget": budget.text, "flops": budget.flops, "usd": budget.usd, "chip_hours": budget.chip_hours}
    facts |= {"why": list(budget.why), "optimum": optimum, "on": None}
    if budget.device is not None and optimum is not None:
        facts["on"] = recipe(say(optimum["parameters"]), on=f"{budget.chips or 1}x{budget.device}", tokens=optimum["tokens"], law=law)
    if json:
        print(jsonlib.dumps(finite(facts), indent=2, ensure_ascii=False))
        return 0
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for line in budget.why:
        console.print(Text(line), soft_wrap=True)
    if optimum is None:
        console.print(Text(f"{budget.flops:.3g} FLOPs are fewer than any published law has seen ({LEAST:.0e}): none is asked."))
    for piece in headline(optimum) if optimum is not None else []:
        console.print(piece, soft_wrap=True)
    if facts["on"] is not None:
        from openhearth.plan.commands.on import show

        console.print()
        show(facts["on"])
    if budget.flops <= FASTEST_RATE * 86_400:
        seconds = say_seconds(budget.nominal_seconds)
        line = f"A laptop trains that many FLOPs too, in about {seconds}: hearth run {model} --budget {budget.text!r}"
        console.print(Text(line), soft_wrap=True)
    return 0
