"""`hearth plan optimal`: read the question, ask every law, show the answers side by side with what divides them."""

from __future__ import annotations

import json as jsonlib
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from openhearth.errors import HearthError
from openhearth.plan import optimum, questions, rates, returns
from openhearth.plan.budgets import read_budget
from openhearth.plan.optimum import Optimum
from openhearth.plan.quantities import count, count_and_device, price_per_hour, say
from openhearth.plan.quantities import flops as read_flops
from openhearth.plan.questions import Question
from openhearth.plan.scaling_laws import DEFAULT, LAWS, Law
from openhearth.plan.scaling_laws import law as law_named


@dataclass(frozen=True)
class Money:
    """How a budget in money becomes FLOPs."""

    device: str
    usd_per_hour: float
    price_source: str
    peak_flops: float
    mfu: float
    mfu_source: str
    best_mfu: float | None = None
    """Of well-tuned benchmarks, where `mfu` is what whole runs typically reach."""

    @property
    def usd_per_flop(self) -> float:
        """At `mfu`."""
        price = questions.price_of_a_flop(self.usd_per_hour, self.peak_flops, self.mfu)
        assert price is not None
        return price


def optimal_command(
    *,
    flops: str | None = None,
    law: str | None = None,
    unique_tokens: str | None = None,
    serve_tokens: str | None = None,
    budget: str | None = None,
    usd: str | None = None,
    on: str | None = None,
    mfu: float | None = None,
    price: str | None = None,
    serve_mfu: float | None = None,
    quality_of: str | None = None,
    tokens: str | None = None,
    loss: float | None = None,
    sequence_length: str | None = None,
    more: float = 2.0,
    bigger: float = 4.0,
    json: bool = False,
    plot: Path | None = None,
) -> int:
    """Answer, print, and draw if asked. Raises HearthError on a question that cannot be answered."""
    if plot is not None:
        from openhearth.plan import pictures

        pictures.check(plot)
    if law is not None and law != "all":
        law_named(law)
    asked_flops = None if flops is None else read_flops(flops)
    asked_usd = None if usd is None else count(usd.lstrip("$"), "--usd")
    if budget is not None:
        if usd is not None:
            raise HearthError("--budget and --usd: give one of them")
        asked_usd, by_text, on, price = _read_budget(budget, on, price)
        if by_text is not None and asked_flops is not None:
            raise HearthError("--budget and --flops: give one of them, or a budget in money")
        asked_flops = by_text if by_text is not None else asked_flops
    money = money_on(on, price, mfu) if asked_usd is not None or on is not None else None
    if asked_usd is not None and money is None:
        raise HearthError("a budget in money needs hardware to be spent on; add --on h100")
    if serve_mfu is not None and money is None:
        raise HearthError("--serve-mfu: only where money is spent; add --on h100")
    if (asked_flops, asked_usd, quality_of, tokens, loss) == (None, None, None, None, None):
        raise HearthError(
            "nothing is asked; give --flops 5.76e23, or --budget '$1M' --on h100, or --quality-of 13B, or --tokens 300B, or --loss 2.0"
        )
    for name, value in (("--more", more), ("--bigger", bigger)):
        if not 1 < value <= 1e9:
            raise HearthError(f"{name} {value:g}: how many times as much; above 1 and at most 1e9")
    question = questions.ask(
        asked_flops,
        unique_tokens=None if unique_tokens is None else count(unique_tokens, "--unique-tokens", low=1e6, high=1e18, unit="tokens"),
        serve_tokens=None if serve_tokens is None else count(serve_tokens, "--serve-tokens", low=1, high=1e21, unit="tokens"),
        usd=asked_usd,
        usd_per_flop=None if money is None else money.usd_per_flop,
        serving_costs=1.0 if serve_mfu is None or money is None else money.mfu / _utilisation(serve_mfu, "--serve-mfu"),
        quality_of=None if quality_of is None else count(quality_of, "--quality-of", low=1e6, high=1e15, unit="parameters"),
        tokens=None if tokens is None else count(tokens, "--tokens", low=1e6, high=1e18, unit="tokens"),
        loss=loss,
        sequence_length=None if sequence_length is None else count(sequence_length, "--sequence-length", low=1, high=1e8, unit="tokens"),
    )
    facts = answer_facts(question, law, money, asked_usd, more, bigger)
    if plot is not None:
        _draw(plot, question, facts)
    if json:
        print(jsonlib.dumps(finite(facts), indent=2, ensure_ascii=False))
    else:
        from openhearth.plan.commands.optimal_text import show

        show(facts)
    return 0


def answer_facts(
    question: Question,
    law: str | None,
    money: Money | None = None,
    usd: float | None = None,
    more: float = 2.0,
    bigger: float = 4.0,
) -> dict[str, Any]:
    """What --json prints: the chosen law's answer on the top level, every law's under `laws`. Keys in docs/plan/laws.md."""
    chosen = law_named(law if law not in (None, "all") else DEFAULT if question.unique is None else "muennighoff")
    said = questions.refusal(chosen, question)
    if said is not None:
        raise HearthError(said)
    names = list(LAWS) if law in (None, "all") else [chosen.name]
    refused = {name: reason for name in names if (reason := questions.refusal(LAWS[name], question)) is not None}
    found: dict[str, Optimum] = {}
    for name in names:
        if name in refused:
            continue
        try:
            found[name] = optimum.answer(LAWS[name], question)
        except HearthError as error:  # a loss below what another law holds possible
            if name == chosen.name:
                raise
            refused[name] = str(error)
    answer = found[chosen.name]
    facts = {"question": _question_facts(question, money, usd), **_row(answer)}
    along = chosen.additive and question.plain and question.unique is None
    facts["more_budget"] = returns.more_budget(answer.training_flops, more, chosen) if along else None
    facts["bigger"] = None
    if chosen.additive:
        facts["bigger"] = {"factor": bigger, **returns.bigger(answer.parameters, answer.tokens, bigger, chosen, question.unique)}
    facts["twice_the_tokens_nats"] = returns.doubling(answer.tokens, chosen)["twice"] if along else None
    facts["saving"] = None
    if question.budget is None and question.served is not None:  # over the cheapest to train, serving the same
        n, d = optimum.split(chosen, replace(question, served=None))
        without = question.work.train(n) * d + question.work.serve(n) * question.served
        facts["saving"] = {"parameters": float(n), "tokens": float(d), "share": float(1 - answer.total_flops / without)}
    facts["rates"] = rates.rates(answer.parameters, answer.tokens)
    if money is not None and money.best_mfu is not None and usd is not None and along:
        best = questions.ask(usd=usd, usd_per_flop=money.usd_per_flop * money.mfu / money.best_mfu)
        n, d = optimum.split(chosen, best)
        facts["best_case"] = {"mfu": money.best_mfu, "parameters": float(n), "tokens": float(d), "training_flops": float(best.budget or 0)}
    facts["laws"] = [_row(each) for each in found.values()]
    facts["not_answered"] = refused
    facts["disagreement"] = _disagreement(found)
    return facts


def _row(answer: Optimum) -> dict[str, Any]:
    law = answer.law
    return {
        "law": law.name,
        "title": law.title,
        "source": law.source,
        "counts": law.counts,
        "parameters": answer.parameters,
        "tokens": answer.tokens,
        "tokens_per_parameter": answer.tokens_per_parameter,
        "exponent": law.exponent,
        "exponent_interval": law.interval(lambda terms: terms.exponent),
        "loss": answer.loss,
        "loss_of": law.text,
        "interval": None if answer.interval is None else {name: list(pair) for name, pair in answer.interval.items()},
        "training_flops": answer.training_flops,
        "serving_flops": answer.serving_flops,
        "total_flops": answer.total_flops,
        "usd": answer.usd,
        "epochs": answer.epochs,
        "binding": answer.binding,
        "gains": dict(answer.gains),
        "extrapolates_decades": answer.decades,
        "warning": optimum.beyond(answer.decades) or None,
        "notes": list(answer.notes),
    }


def _disagreement(found: dict[str, Optimum]) -> dict[str, Any] | None:
    """The least and the largest answer, and how many times they differ; also without Kaplan 2020 and what is only printed roundly."""
    if len(found) < 2:
        return None

    def extent(names: list[str]) -> dict[str, Any]:
        sizes = {name: found[name].parameters for name in names}
        tokens = [found[name].tokens for name in names]
        low, high = min(sizes, key=sizes.__getitem__), max(sizes, key=sizes.__getitem__)
        return {
            "parameters": [sizes[low], sizes[high]],
            "laws": [low, high],
            "factor": sizes[high] / sizes[low],
            "tokens": [min(tokens), max(tokens)],
        }

    core = [name for name in found if name != "kaplan" and not name.endswith("-printed") and not name.startswith(("gadre", "openhearth"))]
    return {"all": extent(list(found)), "core": extent(core) if len(core) > 1 else None}


def _question_facts(question: Question, money: Money | None, usd: float | None) -> dict[str, Any]:
    def one(values: Any) -> float | None:
        return None if values is None else float(values)

    return {
        "flops": one(question.budget),
        "usd": usd,
        "unique_tokens": one(question.unique),
        "serve_tokens_weighted": one(question.served),
        "quality_of": one(question.quality_of),
        "tokens": one(question.size_for),
        "loss": one(question.loss),
        "sequence_length": question.work.sequence_length,
        "device": None if money is None else money.device,
        "usd_per_hour": None if money is None else money.usd_per_hour,
        "price_source": None if money is None else money.price_source,
        "peak_flops": None if money is None else money.peak_flops,
        "mfu": None if money is None else money.mfu,
        "mfu_source": None if money is None else money.mfu_source,
        "usd_per_flop": question.usd_per_flop,
    }


def _read_budget(text: str, on: str | None, price: str | None) -> tuple[float | None, float | None, str | None, str | None]:
    """(usd, flops, hardware, price): money with its hardware in the text or beside it, or anything that comes to FLOPs."""
    plain = " ".join(text.strip().split())
    words = plain.split(" on ", 1)
    is_money = "$" in words[0] or "usd" in words[0].lower()
    if is_money and (len(words) == 1 or on is None):
        number = words[0].lower().replace("usd", "").replace("$", "").strip()
        usd = count(number, "--budget")
        if len(words) == 1:
            return usd, None, on, price
        device, _, said = words[1].partition(" at ")
        return usd, None, device, said or price
    if is_money:
        raise HearthError("--budget names hardware, and so does --on; leave one out")
    if re.fullmatch(r"[+-]?[\d._,]+(e[+-]?\d+)?\s*[kmbt]?", plain, re.IGNORECASE):
        raise HearthError(f"--budget {plain}: of what? write '$1M' with --on h100, '1e23 flop', or '100 chip-hours on h100'")
    read = read_budget(text)
    if read.flops is None:
        raise HearthError(f"--budget {text}: time on this machine is planned with a recipe: hearth plan RECIPE --budget {text!r}")
    return None, read.flops, on, price


def money_on(on: str | None, price: str | None, mfu: float | None) -> Money | None:
    """From the catalogue: peak, price, utilisation; `price` and `mfu` override."""
    if on is None:
        return None
    from openhearth.plan import catalogue, speed

    _, name = count_and_device(on)
    device = catalogue.device(name)
    precision, peak = device.training_peak()
    if price is not None:
        per_hour, source = price_per_hour(price), "as given"
    elif device.price is not None:
        per_hour, source = device.price.typical, f"catalogue, typical of {device.price.date}"
    else:
        raise HearthError(f"--on {on}: the catalogue has no price of {device.id}; give one: --price 2.10/h")
    if mfu is not None:
        return Money(device.id, per_hour, source, peak, _utilisation(mfu, "--mfu"), "as given")
    return Money(
        device.id,
        per_hour,
        source,
        peak,
        speed.typical_utilisation(device),
        f"typical of whole runs ({precision})",
        speed.best_utilisation(device),
    )


def _utilisation(value: float, what: str) -> float:
    if not 0 < value <= 1:
        raise HearthError(f"{what} {value}: a utilisation lies above 0 and at most at 1")
    return value


def _draw(file: Path, question: Question, facts: dict[str, Any]) -> None:
    from openhearth.plan import pictures
    from openhearth.plan.commands.optimal_text import powers

    law: Law = law_named(facts["law"])
    if not law.has_loss:
        raise HearthError(f"--plot: the law {law.name} has no loss to draw; take refit")
    unique = question.unique if law.additive else None

    def loss(parameters: Any, tokens: Any) -> Any:
        return law.loss(parameters, tokens, unique)

    budgets = facts["training_flops"] * np.logspace(-3, 3, 25)
    path = None if question.unique is not None else np.array(law.optimal(budgets)).T
    interval = facts["interval"]
    notes = [facts["warning"] or "", "" if question.unique is None else f"{say(float(question.unique))} unique tokens"]
    pictures.loss_plane(
        file,
        title=f"What {powers(facts['total_flops'])} FLOPs buy by the law {law.name}",
        loss=loss,
        optimum=(facts["parameters"], facts["tokens"]),
        interval=None if interval is None else (tuple(interval["parameters"]), tuple(interval["tokens"])),
        path=path,
        models=[] if question.unique is not None else _known_models(),
        note="; ".join(note for note in notes if note),
    )


def _known_models() -> list[tuple[str, float, float]]:
    """Published models to find one's way by."""
    return [
        ("GPT-3", 175e9, 300e9),
        ("Gopher", 280e9, 300e9),
        ("Chinchilla", 70e9, 1.4e12),
        ("LLaMA 7B", 6.74e9, 1e12),
        ("LLaMA 65B", 65.2e9, 1.4e12),
        ("Llama 3 405B", 405e9, 15.6e12),
    ]


def finite(value: Any) -> Any:
    """Infinity and NaN as null: JSON has neither."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(each) for each in value]
    if isinstance(value, np.generic):
        return finite(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value
