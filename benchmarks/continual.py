"""Does a small model keep what it knows when it goes on learning? The controls of Ibrahim et al. 2024 (table 1), with seeds.

    .venv/bin/python benchmarks/continual.py [--seeds 3] [--tokens 500000] [--new-tokens 500000] [--replay 0.05] [--dir runs/continual]

A model is trained on the standard library, then continued on packages that are installed here (their .py files), or on the folders after
--text. Every arm has the same tokens, tokenizer and held-out documents; each seed has first weights and orders of its own. It prints the
table, and for each of the paper's orderings whether the interval of the difference (whole documents drawn again, seeds averaged) says so.
Killed, it goes on. One thread.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

from openhearth import commands, progress
from openhearth.experiments.continual import ARMS, Arm, controls, facts, show
from openhearth.recipe import Recipe
from openhearth.runner import run

PACKAGES = ("rich", "pip", "click", "typer", "pydantic", "jinja2", "requests", "setuptools", "pygments", "markdown")
"""Packages in pure Python, of which those that are installed here are the new text."""

CLAIMS = (
    ("no-replay", "old", 1, "without replay more is forgotten"),
    ("no-replay", "new", -1, "without replay the new text is learned a little better"),
    ("constant", "old", -1, "a constant low rate forgets less"),
    ("constant", "new", 1, "a constant low rate adapts less"),
    ("scratch", "new", 1, "the old text helps with the new (forward transfer)"),
)
"""Arm, text, the sign of its difference to re-warming with replay, and what that means."""


def packages() -> list[str]:
    """The folders of the installed packages."""
    found = [importlib.util.find_spec(name) for name in PACKAGES]
    return [str(Path(spec.origin).parent) for spec in found if spec is not None and spec.origin is not None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=500_000, help="of pretraining")
    parser.add_argument("--new-tokens", type=int, default=500_000, help="of each continued training, replayed ones included")
    parser.add_argument("--replay", type=float, default=0.05)
    parser.add_argument("--scale", type=float, default=1.0, help="peak rate as a fraction of pretraining's")
    parser.add_argument("--text", nargs="+", default=None, help="new text in place of the installed packages")
    parser.add_argument("--arms", nargs="+", default=["no-replay", "constant", "union", "scratch"], choices=list(ARMS)[1:])
    parser.add_argument("--dir", type=Path, default=Path("runs/continual"))
    asked = parser.parse_args()

    sets = ["plan.num_layers=2", "plan.hidden_size=64", "plan.sequence_length=128", "plan.batch_tokens=2048", "plan.threads=1"]
    sets += ["plan.dtype=float32", "plan.compile=false", "tokenizer.vocab_size=1024", f"plan.tokens={asked.tokens}"]
    laptop = Recipe.load(commands.default_recipe(), sets, "5 min")
    recipe = Recipe.load(
        commands.default_recipe("recipes/continue.toml"),
        [f"continue.tokens={asked.new_tokens}", f"continue.replay={asked.replay}", f"continue.learning_rate_scale={asked.scale}",
         "forgetting.heldout_bytes=100000"],
    ).with_text(asked.text or packages())  # fmt: skip
    found: dict[str, Arm] = {name: Arm(name) for name in ARMS if name in asked.arms or name == next(iter(ARMS))}
    given: dict[str, Path] = {}
    for seed in range(1, asked.seeds + 1):
        base = asked.dir / "base" / f"seed-{seed}"
        with progress.watcher() as watcher:
            made = run(replace(laptop, seed=seed), base, until="pretrain", given=given, watcher=watcher).made
        given = given or {kind: made[kind].path for kind in ("corpus", "tokenizer", "plan")}
        stage = recipe.stages["continue"].model_copy(update={"model": str(base), "seed": seed})
        of_seed = replace(recipe, stages={**recipe.stages, "continue": stage})
        for arm in controls(of_seed, asked.dir / f"seed-{seed}-{asked.replay}-{asked.scale}", list(found), 1, progress.watcher, print):
            found[arm.name].results += arm.results
            found[arm.name].tokens += arm.tokens
    arms = list(found.values())
    show(facts(asked.dir, arms, recipe.seed))
    print()
    for name, text, sign, meaning in CLAIMS:
        if name in found:
            figure = found[name].against(arms[0], text, recipe.seed)
            assert figure.low is not None and figure.high is not None
            seen = (
                "yes"
                if min(sign * figure.low, sign * figure.high) > 0
                else "no"
                if max(sign * figure.low, sign * figure.high) < 0
                else "unclear"
            )
            print(f"{seen:8} {meaning}: {figure.value:+.4f} bits per byte ({figure.low:+.4f} to {figure.high:+.4f})")
    if "union" in found:
        gap = arms[0].figure("mean")[0] - found["union"].figure("mean")[0]
        print(f"re-warming with replay is {gap:+.4f} bits per byte from the union on the mean of both texts (paper: 0.02 nats per token)")


if __name__ == "__main__":
    sys.exit(main())
