"""`recipe`: what a model takes on named hardware, before it is spent: layout, memory, time, money, energy; and what it buys: loss, by the
laws.

The model is a recipe of the record, a config.json, or a size. Time has two cases: the best, a step as the fastest published software does
it, and the typical, which is what whole runs reached of that. Every figure that was not given has its source in `notes`.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from openhearth.errors import HearthError, RecipeError
from openhearth.inputs import read_small
from openhearth.plan import catalogue, cost, layout, returns, speed
from openhearth.plan.catalogue import Device
from openhearth.plan.decoders import decoder
from openhearth.plan.memory import memory
from openhearth.plan.published import Published
from openhearth.plan.quantities import count, say
from openhearth.plan.rates import step_law
from openhearth.plan.scaling_laws import DEFAULT, Law, effective_tokens
from openhearth.plan.scaling_laws import law as law_named
from openhearth.plan.shapes import CONVENTIONS, MAX_BYTES, Shape

ROUNDED = 0.05
"""By how much a published batch may be off, for being printed as 4M."""
LONGEST = 8192
"""Of the sequence that is assumed when nobody says: models may stand for more positions than they are trained on."""
TIMES = 4.0
"""The larger model that this one is compared with."""
RECIPES = Path(__file__).parents[2] / "recipes"


@dataclass(frozen=True)
class Model:
    """What is to be trained."""

    name: str
    shape: Shape
    published: Published | None = None
    half: str | None = None
    """'bf16' or 'fp16' where the configuration names it."""


def recipe(
    model: Path | str | Mapping[str, Any] | Shape,
    *,
    on: str | None = None,
    tokens: float | None = None,
    active_parameters: float | None = None,
    sequence_length: int | None = None,
    batch_tokens: float | None = None,
    precision: str | None = None,
    optimizer: str = "adamw",
    layout_text: str | None = None,
    mfu: float | None = None,
    peak_tflops: float | None = None,
    convention: str = "full",
    usd_per_hour: float | None = None,
    watts: float | None = None,
    pue: float | None = None,
    kg_per_kwh: float | None = None,
    unique_tokens: float | None = None,
    law: str | Law | None = None,
) -> dict[str, Any]:
    """Everything about one model on one machine, as plain values; keys in docs/plan/hardware.md.

    model: the path of a recipe with [published] or of a config.json, its content, a `Shape`, or a size as text ('7B').
    on: hardware, '2048xa100-80'; without, what the authors state. tokens: without, the published ones, else the compute-optimal ones.
    mfu: takes the place of the predicted utilisation, in FLOPs of `convention`. layout_text: 'dp=256,tp=8' fixes choices of the layout.

    Raises HearthError for anything that cannot be followed, and where the model does not fit.
    """
    known = read_model(model, active_parameters)
    shape, published, notes = known.shape, known.published, list(known.shape.notes)
    warnings: list[str] = []
    number, device = _hardware(on, published, notes)
    precision = _precision(precision, known, device, notes)
    if peak_tflops is not None:
        device = device.with_peak(peak_tflops, precision)
    warnings += device.questions
    length = _sequence_length(sequence_length, known, notes)
    trained = _tokens(tokens, known, law, notes)
    batch = _batch(batch_tokens, known, trained, number, length, notes)
    if convention not in CONVENTIONS:
        shape.flops_per_token(length, convention)  # says which there are
    warnings += _mixture(shape, convention, known.name)
    fixed = {} if layout_text is None else layout.parse(layout_text)
    try:
        choice = layout.choose(
            shape, device, number, sequence_length=length, batch_tokens=batch, precision=precision, optimizer=optimizer, fixed=fixed
        )
    except HearthError as error:
        raise HearthError(f"{known.name} {error}" if str(error).startswith("does not fit") else str(error)) from None
    if not choice.fits:
        warnings.append("the layout that was asked for does not fit: its time is what it would take if it did")
    power = cost.power(device, watts=watts, pue=pue, kg_per_kwh=kg_per_kwh)
    flops = {name: float(shape.flops_per_token(length, name)) * trained for name in ("full", "causal", "6n", "6n-total")}
    flops[convention] = float(shape.flops_per_token(length, convention)) * trained
    share = speed.whole_run_share()
    peak = device.peak(precision)
    best_hours = trained / float(choice.step.tokens_per_second_per_device) / 3600
    if mfu is not None:
        best_hours = typical_hours = flops[convention] / (peak * speed.checked(mfu)) / 3600
        notes.append(f"utilisation as given: {mfu:.1%} of {peak / 1e12:g} TFLOP/s, FLOPs by '{convention}'")
    else:
        typical_hours = best_hours / share[0]
        if not speed.family(device):
            borrowed = f"{device.id} is not among the measured devices: its efficiency is borrowed ({speed.lender(device)})"
            notes.append(f"{borrowed}; expect 20 % or more off")

    def case(hours: float) -> dict[str, Any]:
        bill = cost.cost(hours, device, power_model=power, usd_per_hour=usd_per_hour)
        return {
            "mfu": flops["full"] / (peak * hours * 3600),
            "mfu_6n": flops["6n"] / (peak * hours * 3600),
            "chip_hours": hours,
            "hours": hours / number,
            "days": hours / number / 24,
            "tokens_per_second_per_device": trained / hours / 3600,
            "usd": bill.usd,
            "usd_low": bill.usd_low,
            "usd_high": bill.usd_high,
            "mwh": None if bill.kwh is None else bill.kwh / 1000,
            "tco2e": bill.tco2e,
        }

    price = cost.cost(1.0, device, usd_per_hour=usd_per_hour).price
    return {
        "model": known.name,
        "parameters": shape.parameters,
        "active_parameters": shape.active_parameters,
        "tokens": trained,
        "tokens_per_parameter": trained / shape.active_parameters,
        "sequence_length": length,
        "batch_tokens": batch,
        "steps": trained / batch,
        "training_flops": flops,
        "devices": number,
        "device": device.id,
        "device_name": device.name,
        "precision": precision,
        "peak_flops": peak,
        "optimizer": optimizer,
        "best": case(best_hours),
        "typical": case(typical_hours),
        "mfu_source": "as given" if mfu is not None else "predicted",
        "typical_share": {"median": share[0], "low": share[1], "high": share[2], "runs": len(speed.whole_runs())},
        "typical_days": None if mfu is not None else [best_hours / value / number / 24 for value in (share[2], share[1])],
        "price": None if price is None else asdict(price),
        "power": None if power is None else asdict(power),
        "layout": _layout_facts(choice),
        "memory": memory_facts(choice),
        "would_not_fit": _too_large(choice, shape, length, precision, optimizer),
        "step_seconds": {name: float(np.asarray(value)) for name, value in choice.step.seconds.items()},
        "law": _law_facts(law, shape, trained, unique_tokens),
        "data": _data_facts(trained, unique_tokens),
        "stated": _stated(published, trained, best_hours, typical_hours),
        "source": None if published is None else published.source,
        "notes": notes,
        "warnings": warnings,
    }


def affordable_tokens(
    model: Path | str | Mapping[str, Any] | Shape,
    on: str,
    *,
    seconds: float | None = None,
    usd: float | None = None,
    chip_hours: float | None = None,
    flops: float | None = None,
    **options: Any,
) -> dict[str, float]:
    """{'best': tokens, 'typical': tokens} that a budget of one kind trains the model on; `options` are those of `recipe`.

    Raises HearthError unless exactly one budget is given, and for money where no price is known.
    """
    given = {"seconds": seconds, "usd": usd, "chip_hours": chip_hours, "flops": flops}
    named = [(name, value) for name, value in given.items() if value is not None]
    if len(named) != 1 or not 0 < named[0][1] < math.inf:
        raise HearthError(f"give one budget above zero of {', '.join(given)}")
    name, value = named[0]
    facts = recipe(model, on=on, **{"tokens": 1e9, **options})
    if name == "flops":
        bought = value * facts["tokens"] / facts["training_flops"]["full"]
        return {"best": bought, "typical": bought}
    if name == "usd" and facts["price"] is None:
        raise HearthError(f"the catalogue has no price of {facts['device']}; give usd_per_hour")
    rate = {"seconds": facts["devices"] / 3600, "chip_hours": 1.0, "usd": 1 / facts["price"]["typical"] if name == "usd" else 0.0}[name]
    return {case: facts["tokens"] * value * rate / facts[case]["chip_hours"] for case in ("best", "typical")}


# -- what is asked -----------------------------------------------------------------------------------------------------------------


def read_model(model: Path | str | Mapping[str, Any] | Shape, active_parameters: float | None = None) -> Model:
    """The model in a recipe, a config.json or a folder with one, or a decoder of a size ('7B'). Raises HearthError."""
    if isinstance(model, Shape):
        return Model(model.model_type, model)
    if isinstance(model, Mapping):
        return Model(str(model.get("model_type", "model")), Shape.from_hf(model), half=_half(model))
    path = _find(Path(model))
    if not path.exists() and (size := _size(str(model))) is not None:
        return Model(str(model), decoder(size, active_parameters))
    if active_parameters is not None:
        raise HearthError("--active goes with a size ('47B --active 13B'); a recipe or a config.json says itself what a token meets")
    if path.suffix == ".toml":
        published = _published(path)
        return Model(path.stem, published.shape(), published, _half(published.model))
    name = path.name if path.is_dir() or path.name != "config.json" else path.resolve().parent.name or "config.json"
    shape = Shape.load(path)
    import json

    config = json.loads(read_small(path / "config.json" if path.is_dir() else path, limit=MAX_BYTES, what="configuration", suffix=".json"))
    return Model(name, shape, half=_half(config))


def _find(path: Path) -> Path:
    """`recipes/llama-65b.toml` also where the working directory is another, and 'llama-65b' by itself."""
    for candidate in (path, Path("recipes") / f"{path}.toml", RECIPES / path.name, RECIPES / f"{path.name}.toml", *_installed(path)):
        if candidate.is_file() or candidate.is_dir():
            return candidate
    return path


def _installed(path: Path) -> list[Path]:
    if RECIPES.is_dir():
        return []
    import importlib.metadata

    name = path.name if path.suffix == ".toml" else f"{path.name}.toml"
    files = importlib.metadata.files("openhearth") or []
    return [Path(str(file.locate())) for file in files if file.as_posix().endswith(f"openhearth/recipes/{name}")]


def _published(path: Path) -> Published:
    text = read_small(path, limit=MAX_BYTES, what="recipe", suffix=".toml")
    try:
        table = tomllib.loads(text).get("published")
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{path}: not TOML ({str(error) or 'nested too deeply'})") from None
    if not isinstance(table, dict):
        raise RecipeError(f"{path}: has no [published] model to plan on hardware; recipes/llama-65b.toml has one")
    try:
        return Published(**table)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise RecipeError(f"{path}: [published] {key}: {first['msg'].lower()}") from None


def _half(config: Mapping[str, Any]) -> str | None:
    return {"bfloat16": "bf16", "float16": "fp16"}.get(str(config.get("dtype") or config.get("torch_dtype")))


def _size(text: str) -> float | None:
    try:
        return count(text, "size", low=1e5, high=1e15, unit="parameters")
    except HearthError:
        return None


def _hardware(on: str | None, published: Published | None, notes: list[str]) -> tuple[int, Device]:
    if on is not None:
        return catalogue.parse(on)
    if published is None or published.hardware is None:
        raise HearthError("--on is missing: name the hardware, as in --on 8xh100 or --on 2048xa100-80")
    number, device = catalogue.parse(published.hardware, "[published] hardware")
    if not re.match(r"\d+\s*x", published.hardware):
        raise HearthError(f"--on is missing: the authors name {published.hardware}, and not how many; give --on 1024x{device.id}")
    notes.append(f"hardware as the authors state it: {published.hardware}")
    return number, device


def _precision(asked: str | None, known: Model, device: Device, notes: list[str]) -> str:
    """'bf16-mixed' ...; refuses what the device lacks."""
    kind = asked if asked is not None else known.half
    if kind is None:
        kind, _ = device.training_peak()
        if kind != "bf16":
            notes.append(f"{device.id} has no bf16 units: planned in {kind}{' with loss scaling' if kind == 'fp16' else ''}")
    device.peak(kind)
    return kind if kind == "fp32" or "-" in kind else f"{kind}-mixed"


def _sequence_length(asked: int | None, known: Model, notes: list[str]) -> int:
    if asked is not None:
        if isinstance(asked, bool) or not isinstance(asked, int) or not 1 <= asked <= 100_000_000:
            raise HearthError(f"sequence_length must be a whole number between 1 and 100,000,000, not {asked!r}")
        return asked
    if known.published is not None and known.published.sequence_length is not None:
        return known.published.sequence_length
    length = min(known.shape.max_position_embeddings or 4096, LONGEST)
    notes.append(f"sequences of {length:,} tokens, as nobody says")
    return length


def _tokens(asked: float | None, known: Model, law: str | Law | None, notes: list[str]) -> float:
    if asked is not None:
        if not 1e6 <= asked <= 1e18:
            raise HearthError(f"tokens {asked}: must lie between 1e6 and 1e18")
        return float(asked)
    if known.published is not None and known.published.tokens is not None:
        return known.published.tokens
    chosen = law_named(law if law is not None else DEFAULT)
    budget = chosen.budget_for(parameters=_counted(chosen, known.shape))
    tokens = float(chosen.optimal(budget)[1])
    notes.append(f"tokens are not given: {say(tokens)} are compute-optimal for this size by the law {chosen.name}; --tokens overrides")
    return tokens


def _batch(asked: float | None, known: Model, tokens: float, devices: int, length: int, notes: list[str]) -> float:
    if asked is not None:
        if not length <= asked <= 1e10:
            raise HearthError(f"batch_tokens {asked:g}: must lie between one sequence ({length:,} tokens) and 1e10")
        return float(asked)
    if known.published is not None and known.published.batch_tokens is not None:
        return shared_batch(known.published.batch_tokens, devices, length, ROUNDED)
    batch = default_batch(known.shape.active_parameters, tokens, devices, length)
    notes.append(f"batches of {say(batch)} tokens, by StepLaw's rule; --batch-tokens overrides")
    return batch


def default_batch(parameters: float, tokens: float, devices: int, length: int) -> float:
    """StepLaw's batch in whole sequences; at least a sequence for eight devices, so that they have something to share."""
    best = float(step_law(parameters, tokens)[1])
    return shared_batch(max(best, devices * length / 8), devices, length, 0.5)


def shared_batch(batch: float, devices: int, length: int, leeway: float) -> float:
    """A batch of about as many tokens whose sequences all devices share evenly, or half of them, or a quarter ...: what is printed as 4M
    on 2,048 devices is 2,048 sequences of 2,048 tokens. At most a share of `leeway` apart, else in whole sequences.
    """
    sequences, unit = max(1.0, batch / length), float(devices)
    while unit > 1 and abs(max(1, round(sequences / unit)) * unit / sequences - 1) > leeway:
        unit /= 2
    whole = max(1, round(sequences / unit)) * unit if unit == int(unit) else round(sequences)
    return float(whole * length)


def _mixture(shape: Shape, convention: str, name: str) -> list[str]:
    """What is wrong with pricing a mixture by all its parameters."""
    if shape.experts is None or shape.active_parameters == shape.parameters:
        return _known_mixture(shape, name)
    times = shape.parameters / shape.active_parameters
    said = f"a token meets {say(shape.active_parameters)} of the {say(shape.parameters)} parameters of this mixture of experts"
    if convention == "6n-total":
        return [f"{said}: FLOPs by all of them (6n-total) are {times:.1f} times too many"]
    return [f"{said}: priced by those; by all of them it would be {times:.1f} times as much"]


def _known_mixture(shape: Shape, name: str) -> list[str]:
    """A size given as a number that is the total of a known mixture."""
    if shape.model_type != "decoder":
        return []
    from openhearth.plan.published_runs import read

    known = [(run.name, run.parameters, run.active_parameters) for run in read() if run.active_parameters and run.parameters]
    known.append(("Mixtral 8x7B", 46_702_792_704, 12_879_925_248))
    for other, total, active in known:
        if abs(shape.parameters / total - 1) < 0.012:
            said = f"{name} is the size of {other}, a mixture of which a token meets {say(active)}"
            return [f"{said}: if that is meant, add --active {say(active)}"]
    return []


# -- what is said ------------------------------------------------------------------------------------------------------------------


def _layout_facts(choice: layout.Choice) -> dict[str, Any]:
    return {
        **asdict(choice.layout),
        "micro_batches": choice.micro_batches,
        "in_words": layout.describe(choice.layout),
        "short": layout.short(choice.layout),
        "fits": choice.fits,
        "why": list(choice.reasons),
        "tried": choice.tried,
        "fitting": choice.fitting,
    }


def memory_facts(choice: layout.Choice) -> dict[str, Any]:
    """Bytes per part on the fullest device, their sum, and what may be filled."""
    parts = {name: float(np.asarray(value)) for name, value in choice.memory.parts().items()}
    return {**parts, "total": sum(parts.values()), "limit": choice.limit}


def _too_large(choice: layout.Choice, shape: Shape, length: int, precision: str, optimizer: str) -> list[dict[str, Any]]:
    """The layouts that do not fit, with how much they exceed."""
    found = []
    for each in choice.too_large:
        held = memory(shape, each.layout, sequence_length=length, precision=precision, optimizer=optimizer)
        parts = {name: float(np.asarray(value)) for name, value in held.parts().items()}
        over = each.bytes - choice.limit
        said = {"what": each.why, "in_words": layout.describe(each.layout), "short": layout.short(each.layout)}
        found.append({**said, "bytes": each.bytes, "over": over, "memory": parts})
    return found


def _counted(law: Law, shape: Shape) -> float:
    """Parameters as the law counts them; of a mixture those that a token meets."""
    if law.counts == "non-embedding":
        return shape.non_embedding_parameters - (shape.parameters - shape.active_parameters)
    return shape.active_parameters


def _law_facts(name: str | Law | None, shape: Shape, tokens: float, unique: float | None) -> dict[str, Any]:
    """The loss that is predicted, where returns diminish, and what four times the size would buy."""
    law = law_named(name if name is not None else DEFAULT if unique is None else "muennighoff")
    parameters = _counted(law, shape)
    flops = 6 * parameters * tokens
    best_n, best_d = (float(value) for value in law.optimal(flops))
    loss = float(law.loss(parameters, tokens, unique))  # refuses a law without one
    arrays = (np.asarray(parameters, float), np.asarray(tokens, float), None if unique is None else np.asarray(unique, float))
    interval = law.interval(lambda terms: terms.loss(*arrays)) if law.additive else None
    more = returns.bigger(parameters, tokens, TIMES, law, unique) if law.additive else None
    return {
        "name": law.name,
        "title": law.title,
        "source": law.source,
        "counts": law.counts,
        "parameters": parameters,
        "loss": loss,
        "loss_of": law.text,
        "interval": None if interval is None else [float(value) for value in interval],
        "optimal_parameters": best_n,
        "optimal_tokens": best_d,
        "optimal_loss": float(law.loss(best_n, best_d)),
        "extrapolates_decades": float(law.domain.decades(flops)),
        "twice_the_tokens": returns.doubling(tokens, law)["twice"] if law.additive and unique is None else None,
        "another_billion_tokens": returns.doubling(tokens, law)["another_billion"] if law.additive and unique is None else None,
        "bottleneck": str(returns.gain_by_size_and_data(parameters, tokens, law)["bottleneck"]) if law.additive else None,
        "four_times_the_size": None if more is None else {key: float(value) for key, value in more.items()},
    }


def _data_facts(tokens: float, unique: float | None) -> dict[str, Any]:
    """Passes over the unique tokens that there are, and over known open corpora."""
    from openhearth.plan.statements import facts

    corpora = [
        {"name": name, "tokens": size, "passes": tokens / size}
        for name, size in facts()["stock"].items()
        if isinstance(size, float) and size > 1e9
    ]
    if unique is not None and not 1e6 <= unique <= 1e18:
        raise HearthError(f"unique_tokens {unique}: must lie between 1e6 and 1e18")
    epochs = None if unique is None else max(1.0, tokens / unique)
    return {
        "unique_tokens": unique,
        "epochs": epochs,
        "worth_tokens": None if unique is None or epochs is None else float(effective_tokens(epochs)) * min(unique, tokens),
        "corpora": corpora,
    }


def _stated(published: Published | None, tokens: float, best: float, typical: float) -> dict[str, Any] | None:
    """What the authors report, beside what is predicted; None where it is of other tokens."""
    if published is None or published.tokens is None or abs(tokens / published.tokens - 1) > 0.01:
        return None
    hours = published.chip_hours
    return {
        "chip_hours": hours,
        "flops": published.flops,
        "hardware": published.hardware,
        "energy_mwh": published.energy_mwh,
        "carbon_tonnes": published.carbon_tonnes,
        "best_over_stated": None if hours is None else best / hours,
        "typical_over_stated": None if hours is None else typical / hours,
    }
