"""What a budget buys, before it is spent: scaling laws, cost, memory, layout, price. Useful by itself; never imports torch.

Every command of `hearth plan` has a function of the same name here, imported when it is first asked for. No module of this room has the
name of a command: the module would take the function's place.

    optimal(flops=...)     parameters, tokens and loss that a budget buys, by each law, with intervals
    loss(N, D)             what a model of N parameters reaches after D tokens, by each law
    shape(path)            parameters to the unit, FLOPs per token and memory of any Hugging Face configuration
    ladder(...)            what each tenfold budget buys
    recipe(path, on=...)   time, money, energy, memory and layout of a recipe on named hardware
    fit(...)               the coefficients of a law from runs, with their uncertainty
    claims()               well-known statements about scale, tested
    backtest()             predictions for published runs against what was reported
    laws()                 the laws: formula, coefficients, source, the runs behind them
    hardware()             the catalogue of devices: peaks, memory, power, dated prices (also `accelerators`)
    energy(hours, on)      energy, CO2 and money of chip-hours
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what type checkers and editors see; at run time a name is imported when it is first asked for
    from openhearth.plan.backtesting import backtest
    from openhearth.plan.catalogue import accelerators, hardware
    from openhearth.plan.cost import energy
    from openhearth.plan.describing import shape
    from openhearth.plan.fitting import fit
    from openhearth.plan.losses import loss
    from openhearth.plan.optimum import optimal
    from openhearth.plan.recipes import recipe
    from openhearth.plan.rungs import ladder
    from openhearth.plan.scaling_laws import laws
    from openhearth.plan.statements import claims

_HOMES = {
    "optimal": "openhearth.plan.optimum",
    "loss": "openhearth.plan.losses",
    "shape": "openhearth.plan.describing",
    "recipe": "openhearth.plan.recipes",
    "ladder": "openhearth.plan.rungs",
    "fit": "openhearth.plan.fitting",
    "claims": "openhearth.plan.statements",
    "backtest": "openhearth.plan.backtesting",
    "energy": "openhearth.plan.cost",
    "laws": "openhearth.plan.scaling_laws",
    "hardware": "openhearth.plan.catalogue",
    "accelerators": "openhearth.plan.catalogue",
}
__all__ = ["accelerators", "backtest", "claims", "energy", "fit", "hardware", "ladder", "laws", "loss", "optimal", "recipe", "shape"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'openhearth.plan' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """So that completion in a Python shell offers them."""
    return sorted({*globals(), *_HOMES})
