"""Write what the planner says beside what the authors state, into the comments of recipes/*.toml.

.venv/bin/python scripts/annotate_recipes.py            rewrites the comments of every recipe that has a table [published]
.venv/bin/python scripts/annotate_recipes.py --check    says which are out of date, exit status 1

Only what follows ' | plan: ' in the comment of a line of [published] is touched.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

from openhearth.plan import optimal, recipe
from openhearth.plan.published import Published
from openhearth.plan.quantities import say
from openhearth.plan.rates import rates

RECIPES = Path(__file__).parents[1] / "recipes"
MARK = " | plan: "


def planned(published: Published) -> dict[str, str]:
    """By key of [published]: what the planner has to say to it."""
    shape = published.shape()
    said = {}
    if published.sequence_length:
        each = float(shape.flops_per_token(published.sequence_length))
        said["parameters"] = f"{each:.3g} FLOPs per token, attention included: {each / shape.flops_per_token(1, '6n'):.3f} x 6N"
    if published.tokens is None:
        return said
    flops = 6 * shape.active_parameters * published.tokens
    best = optimal(flops=flops)
    loss = best.law.loss(shape.active_parameters, published.tokens)
    low, high = best.interval["tokens"]
    said["tokens"] = (
        f"loss {loss:.3f}; at the same {flops:.3g} FLOPs {say(best.parameters)} on {say(best.tokens)} [{say(low)}, {say(high)}]"
        f" give {best.loss:.3f} ({best.law.name})"
    )
    if published.chip_hours and published.hardware and published.hardware[0].isdigit():  # where the number of devices is stated
        foreseen = recipe(
            shape,
            on=published.hardware,
            tokens=published.tokens,
            sequence_length=published.sequence_length,
            batch_tokens=published.batch_tokens,
        )
        said["chip_hours"] = f"{say(foreseen['best']['chip_hours'])} at best, {say(foreseen['typical']['chip_hours'])} typically"
    if published.flops:
        said["flops"] = f"6ND is {flops:.3g}"
    rules = rates(shape.active_parameters, published.tokens)
    for key in ("batch_tokens", "learning_rate"):
        low, high = rules[key]
        number = sum(rule["kind"] == "best" and rule[key] is not None for rule in rules["rules"])
        words = {3: "three", 4: "four"}.get(number, str(number))
        said[key] = f"{say(low)} to {say(high)} by {words} rules" if key == "batch_tokens" else f"{low:.2g} to {high:.2g} by {words} rules"
    return said


def annotated(text: str) -> str:
    """The recipe with fresh comments."""
    published = Published.model_validate(tomllib.loads(text)["published"])
    said = planned(published)
    before, table, after = re.split(r"(?s)(?<=\n)(\[published\]\n.*?\n)(?=\n\[published\.model\]\n)", text, maxsplit=1)
    lines = []
    for line in table.split("\n"):
        bare = line.split(MARK)[0]
        key = bare.split(" = ")[0]
        lines.append(bare + MARK + said[key] if key in said and "  # " in bare else bare)
    return before + "\n".join(lines) + after


def main() -> int:
    """Rewrite, or check."""
    stale = []
    for path in sorted(RECIPES.glob("*.toml")):
        old = path.read_text()
        if "\n[published]\n" not in old or (new := annotated(old)) == old:
            continue
        stale.append(path.name)
        if "--check" not in sys.argv:
            path.write_text(new)
    print(("out of date: " if "--check" in sys.argv else "rewritten: ") + (", ".join(stale) or "none"))
    return int(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
