"""`claims`: well-known statements about scale, each turned into a number, computed by every law, and judged.

A claim is a question with a figure: what `hearth plan` prints for the command beside it. Nothing is stored but the published facts
(`tables/claims.toml`); figures, intervals, verdicts and the numbers in the sentences are computed when they are asked for, so that a new
law or another price changes them.
"""

from __future__ import annotations

import functools
import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from openhearth.errors import HearthError, nearest
from openhearth.plan import losses, returns
from openhearth.plan.optimum import optimal
from openhearth.plan.quantities import say, say_usd
from openhearth.plan.scaling_laws import LAWS, TABLES, effective_tokens, law

TRUE, PARTLY, FALSE = "true", "partly true", "false"
REFIT = "refit"


@dataclass(frozen=True)
class Claim:
    """One statement, tested."""

    name: str
    statement: str
    asks: str
    """What the figure is."""
    value: float
    interval: tuple[float, float] | None
    """95 % by resamples of the law, or the range that the sentence names; None where there is none."""
    unit: str
    """How the figure is said: count, flops, nats, ratio, share, days, usd."""
    by_law: Mapping[str, float]
    """The same figure by each law that gives one (or under each assumption, where no law is asked)."""
    verdict: str
    """true, partly true or false."""
    sentence: str
    command: str
    """Prints the figure."""
    key: str
    """Where it stands in what the command prints with --json."""
    sources: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


def claims(only: str | None = None) -> list[Claim]:
    """All statements, or the one of that name. Raises HearthError with the nearest name."""
    if only is not None and only not in CLAIMS:
        raise HearthError(f"no claim '{only[:40]}'{nearest(only, CLAIMS)}; the claims are {', '.join(CLAIMS)}")
    return [make() for name, make in CLAIMS.items() if only in (None, name)]


@functools.cache
def facts() -> dict[str, Any]:
    """The table of published facts."""
    with (TABLES / "claims.toml").open("rb") as file:
        return tomllib.load(file)


def _fold(low: float, high: float) -> str:
    return f"{high / low:.2g}"


# -- size for a budget ------------------------------------------------------------------------------------------------------


def _table_stakes(name: str) -> Claim:
    answers = optimal(flops=1e23, law="all")
    sizes = {each: found.parameters for each, found in answers.items()}
    value = sizes[REFIT]
    starts = law(REFIT).budget_for(parameters=10e9)
    longer = 1e23 / (6 * 10e9)
    return Claim(
        name=name,
        statement="1e23 FLOPs are table stakes for a model of more than 10B parameters",
        asks="parameters that 1e23 FLOPs train best",
        value=value,
        interval=answers[REFIT].interval["parameters"],
        unit="count",
        by_law=sizes,
        verdict=TRUE if starts >= 1e23 / 2 else PARTLY if starts >= 1e23 / 20 else FALSE,
        sentence=(
            f"The right order: 10B parameters are already best at {_e(starts)} FLOPs, and 1e23 trains {say(value)} best, on "
            f"{say(answers[REFIT].tokens)} tokens; a 10B model that takes 1e23 sees {say(longer)} tokens, "
            f"{longer / 10e9:.0f} a parameter."
        ),
        command="hearth plan optimal --flops 1e23",
        key="parameters",
    )


def _larger(name: str) -> Claim:
    first = (facts()["chinchilla"]["parameters"], facts()["chinchilla"]["tokens"])
    base = 6 * first[0] * first[1]
    gains = {each: returns.more_budget(base, 100, each)["nats"] for each, one in LAWS.items() if one.additive}
    ten, hundred = (returns.more_budget(base, times) for times in (100, 1e4))
    alone = [returns.bigger(*first, times)["nats"] for times in (10, 100)]
    public, web = facts()["stock"]["all public text"], facts()["stock"]["FineWeb"]
    return Claim(
        name=name,
        statement="Models 10 to 100 times larger are the way on",
        asks="nats that 100 times Chinchilla's compute gains: 10 times the size and the data",
        value=gains[REFIT],
        interval=ten["interval"],
        unit="nats",
        by_law=gains,
        verdict=TRUE if hundred["tokens"] <= web else PARTLY if ten["tokens"] <= web else FALSE,
        sentence=(
            f"Each factor of ten in size costs a hundred in compute, since the data must grow as well: {say(ten['parameters'])} on "
            f"{say(ten['tokens'])} tokens gains {ten['nats']:.3f} nats over 70B, {say(hundred['parameters'])} on "
            f"{say(hundred['tokens'])} "
            f"{hundred['nats']:.3f}, for ten thousand times the compute and {hundred['tokens'] / public:.0%} of "
            "all public text. Size alone, "
            f"on the same tokens, gains {alone[0]:.3f} and {alone[1]:.3f}."
        ),
        command=f"hearth plan optimal --flops {_e(base)} --more 100",
        key="more_budget.nats",
    )


def _balance(name: str) -> Claim:
    exponents = {each: one.exponent for each, one in LAWS.items()}
    value, interval = exponents[REFIT], law(REFIT).interval(lambda terms: terms.exponent)
    assert interval is not None
    even = [each for each, exponent in exponents.items() if 0.4 <= exponent <= 0.6]
    odd = [each for each in exponents if each not in even]
    return Claim(
        name=name,
        statement="Size and data must be kept in balance: both grow with the square root of compute",
        asks="a in N_opt ~ C^a; 0.5 is an even balance",
        value=value,
        interval=interval,
        unit="ratio",
        by_law=exponents,
        verdict=TRUE if interval[0] <= 0.5 <= interval[1] and len(odd) <= 2 else PARTLY,
        sentence=(
            f"{len(even)} of {len(exponents)} laws put a between 0.4 and 0.6, so that twice the size wants about twice the tokens "
            f"({2 ** (1 / value - 1):.1f} times by {REFIT}); {' and '.join(odd)} stands apart at {exponents[odd[0]]:.2f}, "
            f"where {2 ** (1 / exponents[odd[0]] - 1):.1f} times would do."
        ),
        command="hearth plan optimal --flops 1e23 --law refit",
        key="exponent",
    )


# -- one model against another ----------------------------------------------------------------------------------------------


def _chinchilla(name: str) -> Claim:
    first = (facts()["chinchilla"]["parameters"], facts()["chinchilla"]["tokens"])
    rivals = {each: tuple(pair) for each, pair in facts()["rivals"].items() if pair[0] * pair[1] < 2 * first[0] * first[1]}
    best = min(rivals, key=lambda each: losses.loss(*rivals[each]))
    ratios = {each: losses.loss(*rivals[best], law=each) / losses.loss(*first, law=each) for each, one in LAWS.items() if one.has_loss}
    interval = losses.ratio_interval(rivals[best], first)
    assert interval is not None
    against = [each for each, ratio in ratios.items() if ratio < 1]
    palm = losses.loss(*facts()["rivals"]["PaLM 540B"]) - losses.loss(*first)
    models = " ".join(f"{say(n)}:{say(d)}" for n, d in (first, *rivals.values()))
    return Claim(
        name=name,
        statement="Chinchilla 70B is better than models several times its size",
        asks=f"loss of the best of them by {REFIT} ({best}) over Chinchilla's",
        value=ratios[REFIT],
        interval=interval,
        unit="ratio",
        by_law=ratios,
        verdict=TRUE if interval[0] > 1 else PARTLY if ratios[REFIT] > 1 else FALSE,
        sentence=(
            f"Better than all {len(rivals)} of 2.5 to 7.6 times its size by {len(ratios) - len(against)} of {len(ratios)} laws "
            f"({', '.join(against)} would prefer {best}): they saw 0.5 to 1.7 tokens a parameter. PaLM 540B is "
            f"ahead by {-palm:.3f} nats, "
            "for 4.3 times the compute."
        ),
        command=f"hearth plan loss {models}",
        key=f"models.{1 + list(rivals).index(best)}.over_first",
        sources=(facts()["chinchilla"]["source"],),
    )


def _thirty(name: str) -> Claim:
    small, large = (30e9, 450e9), (120e9, 450e9)
    ratios = {each: losses.loss(*large, law=each) / losses.loss(*small, law=each) for each, one in LAWS.items() if one.has_loss}
    more = returns.bigger(*small, 4)
    later = returns.bigger(small[0], 1.4e12, 4)
    apart = [each for each, ratio in ratios.items() if ratio < 0.95]
    return Claim(
        name=name,
        statement="A 30B model fits the data 95 % as well as one of four times its size",
        asks="loss of 120B over that of 30B, both on 450B tokens",
        value=ratios[REFIT],
        interval=losses.ratio_interval(large, small),
        unit="ratio",
        by_law=ratios,
        verdict=FALSE if ratios[REFIT] < 0.95 else PARTLY,
        sentence=(
            f"To the letter yes{', except by ' + ', '.join(apart) if apart else ''}, and it says little: most of "
            "a loss is the text's own "
            f"entropy. Perplexity falls {more['perplexity']:.1%}, and of the loss that can be reduced "
            f"{more['reducible_ratio']:.0%} is left. The "
            f"30B ties after {say(more['tokens_to_tie'])} tokens, {more['tie_compute_share']:.2f} of the larger "
            "one's compute; on 1.4T each, "
            f"after {say(later['tokens_to_tie'])}, {later['tie_compute_share']:.1f} times its compute."
        ),
        command="hearth plan loss 30B:450B 120B:450B",
        key="models.1.over_first",
    )


# -- more tokens ------------------------------------------------------------------------------------------------------------


def _diminishing(name: str) -> Claim:
    ends = {say(end): returns.knee(end) for end in (300e9, 450e9, 1e12, 1.4e12, 2e12)}
    knees = {each: returns.knee(450e9, law=each) for each, one in LAWS.items() if one.additive}
    ten, hundred = returns.doubling(10e9), returns.doubling(100e9)
    value = knees[REFIT]
    return Claim(
        name=name,
        statement="Returns diminish from 10 to 100 billion tokens on",
        asks="tokens at which a curve drawn to 450B bends most",
        value=value,
        interval=law(REFIT).interval(lambda terms: _knee(terms.beta, 450e9)),
        unit="count",
        by_law=knees,
        verdict=PARTLY if 10e9 <= value <= 100e9 else FALSE,
        sentence=(
            f"True of the picture and not of the law: the bend is at {say(ends['300B'])} with the axis to 300B, "
            f"at {say(ends['450B'])} to 450B, "
            f"at {say(ends['2T'])} to 2T, since a power law has none. Twice the tokens gain {ten['twice']:.3f} nats at 10B, "
            f"{hundred['twice']:.3f} at 100B, {returns.doubling(1e12)['twice']:.3f} at 1T."
        ),
        command="hearth plan loss 30B:450B 30B:10B 30B:100B",
        key="models.0.knee_tokens",
    )


def _knee(beta: Any, end: float) -> Any:
    chord = (1e9**-beta - end**-beta) / (end - 1e9)
    return (beta / chord) ** (1 / (1 + beta))


def _asymptote(name: str) -> Claim:
    left = {each: returns.doubling(300e9, each)["left"] for each, one in LAWS.items() if one.additive}
    by_size = returns.bigger(30e9, 300e9, 4)["nats"]
    value = left[REFIT]
    return Claim(
        name=name,
        statement="Models of 30B to 120B are at their asymptote after a few hundred billion tokens",
        asks="nats still to be gained by more tokens than 300B",
        value=value,
        interval=law(REFIT).interval(lambda terms: terms.B * 300e9**-terms.beta),
        unit="nats",
        by_law=left,
        verdict=FALSE if value > by_size else PARTLY,
        sentence=(
            f"Data, not size, held them back: at 300B tokens {value:.3f} nats were left in more text, {value / by_size:.1f} times the "
            f"{by_size:.3f} that four times 30B gain, and {returns.doubling(1.4e12)['left']:.3f} are left at 1.4T."
        ),
        command="hearth plan loss 30B:300B",
        key="models.0.left_by_data",
    )


def _data(name: str) -> Claim:
    stock = facts()["stock"]
    public = stock["all public text"]
    wanted = {each: one.budget_for(tokens=public) for each, one in LAWS.items() if each != "kaplan"}
    found = optimal(tokens=public)
    low, high = (6 * public * size for size in found.interval["parameters"])
    filtered, web = (law(REFIT).budget_for(tokens=stock[each]) for each in ("FineWeb-Edu", "FineWeb"))
    largest = facts()["largest"]
    spent = 6 * largest["parameters"] * largest["tokens"]
    four, more = (effective_tokens(4.0) / 4, effective_tokens(4.0, stock["refitted_repeat_tokens"]) / 4)
    return Claim(
        name=name,
        statement="The field is running out of data",
        asks="FLOPs whose best run wants all public text, about 300T tokens, once",
        value=found.training_flops,
        interval=(low, high),
        unit="flops",
        by_law=wanted,
        verdict=TRUE if found.training_flops <= spent else PARTLY if filtered <= spent else FALSE,
        sentence=(
            "Of filtered text yes, of all text not yet: the best run wants FineWeb-Edu's "
            f"{say(stock['FineWeb-Edu'])} from {_e(filtered)} FLOPs, "
            f"FineWeb's {say(stock['FineWeb'])} from {_e(web)}, all public text from {_e(found.training_flops)}, "
            f"{found.training_flops / spent:,.0f} times what {largest['model']} took; "
            f"over-training for cheap serving gets there sooner. Four passes are worth {four:.0%} to {more:.0%} of new text each."
        ),
        command="hearth plan optimal --tokens 300T",
        key="training_flops",
        sources=("Villalobos et al. 2024, arXiv:2211.04325", "Muennighoff et al. 2023, arXiv:2305.16264"),
    )


# -- money, time, alignment -------------------------------------------------------------------------------------------------


def _llama_days(name: str) -> Claim:
    published = facts()["llama"]
    reported = published["chip_hours"] / published["chips"] / 24
    plan = _llama_plan()
    best, typical = plan["best"]["days"], plan["typical"]["days"]
    said = 1.4e12 / (published["tokens_per_second_per_chip"] * published["chips"]) / 86400
    return Claim(
        name=name,
        statement="LLaMA 65B trained on more than a trillion tokens in 21 days on 2,048 A100s",
        asks="days that the planner foretells, best case",
        value=best,
        interval=(best, typical),
        unit="days",
        by_law={"best case": best, "typical case": typical, "by its GPU-hours": reported, "by its tokens a second": said},
        verdict=TRUE if best <= reported * 1.1 and abs(reported - 21) < 0.5 else PARTLY,
        sentence=(
            f"To the day: the {published['chip_hours']:,} GPU-hours of its table are {reported:.1f} days, 380 tokens a second and GPU "
            f"{said:.1f}. The planner foretells {best:.1f} days in the best case and {typical:.1f} in a typical one."
        ),
        command=f"hearth plan {published['recipe']} --on {published['on']}",
        key="best.days",
        sources=("Touvron et al. 2023, arXiv:2302.13971, section 2.4 and table 15",),
    )


def _llama_million(name: str) -> Claim:
    published = facts()["llama"]
    hours = published["chip_hours"]
    bills = {label: hours * price for label, price in published["prices_2022"].items()}
    plan = _llama_plan()
    best, typical = plan["best"]["usd"], plan["typical"]["usd"]
    within = [label for label, usd in bills.items() if usd <= 1.25e6]
    return Claim(
        name=name,
        statement="... for about a million dollars",
        asks="USD of the typical case at the catalogue's price of today",
        value=typical,
        interval=(best, typical),
        unit="usd",
        by_law={**bills, "today, best case": best, "today, typical case": typical},
        verdict=PARTLY if within else FALSE,
        sentence=(
            f"Its {hours:,} GPU-hours cost a million at {1e6 / hours:.3f} USD. In 2022 only the cheapest list price came near "
            f"({say_usd(min(bills.values()))}); large clouds asked {say_usd(bills['A100 80 GB, large clouds'])}. "
            "Today's typical price makes "
            f"it {say_usd(best)} to {say_usd(typical)}."
        ),
        command=f"hearth plan {published['recipe']} --on {published['on']}",
        key="typical.usd",
        sources=("Epoch AI, hardware prices 2022", "Touvron et al. 2023, table 15"),
    )


def _llama_plan() -> Mapping[str, Any]:
    """The planner's own answer for the recipe, as `hearth plan RECIPE --on ... --json` prints it."""
    from openhearth.plan.recipes import recipe

    return recipe(facts()["llama"]["recipe"], on=facts()["llama"]["on"])


def _million_billion(name: str) -> Claim:
    growth = facts()["growth"]
    question = {"price_per_hour": float(growth["price"].split("/")[0]), "mfu": growth["mfu"], "peak_flops": _peak(growth["on"])}
    start = optimal(usd=1e6, **question, intervals=False).training_flops
    gains = {each: returns.more_budget(start, 1000, each)["nats"] for each, one in LAWS.items() if one.additive}
    found = returns.more_budget(start, 1000)
    years = [math.log(1000) / math.log(rate) for rate in (growth["per_year"], *reversed(growth["per_year_90"]))]
    before = optimal(flops=start, intervals=False).loss
    reducible = found["nats"] / (before - law(REFIT).terms.E)
    return Claim(
        name=name,
        statement="A million dollars today, a billion tomorrow",
        asks="nats that a billion buys over a million (H100 at 2.95 USD an hour, 40 % of peak)",
        value=gains[REFIT],
        interval=found["interval"],
        unit="nats",
        by_law=gains,
        verdict=TRUE if years[0] <= 10 else PARTLY,
        sentence=(
            f"On trend: at {growth['per_year']} times a year a thousandfold takes {years[0]:.1f} years "
            f"({years[1]:.1f} to {years[2]:.1f}). It buys "
            f"{found['nats']:.3f} nats, from {before:.3f} to {found['loss']:.3f}: {found['perplexity']:.0%} of "
            f"perplexity, {reducible:.0%} of the "
            "loss that can be reduced."
        ),
        command=(f"hearth plan optimal --budget '$1M' --on {growth['on']} --price {growth['price']} --mfu {growth['mfu']:.2f} --more 1000"),
        key="more_budget.nats",
        sources=("Cottier et al. 2024, arXiv:2405.21015",),
    )


def _gpus(name: str) -> Claim:
    asked = facts()["gpus"]
    flops = asked["chips"] * asked["days"] * 86400 * asked["mfu"] * _peak(asked["on"])
    found = {each: returns.more_budget(flops, 2, each) for each, one in LAWS.items() if one.additive}
    values = {each: float(law(each).loss(*law(each).optimal(flops))) for each in found}
    n, d = law(REFIT).optimal(flops)
    first = (facts()["chinchilla"]["parameters"], facts()["chinchilla"]["tokens"])
    gain = losses.loss(*first) - values[REFIT]
    answer = optimal(flops=flops)
    return Claim(
        name=name,
        statement="Tens of thousands of GPUs bring another kind of model",
        asks="loss of the best run on 25,000 H100s for 90 days at 35 % of peak",
        value=values[REFIT],
        interval=answer.interval["loss"],
        unit="nats",
        by_law=values,
        verdict=FALSE if gain < 0.2 else PARTLY,
        sentence=(
            f"{_e(flops)} FLOPs train {say(n)} on {say(d)} tokens to {values[REFIT]:.3f}, {gain:.3f} nats below "
            f"Chinchilla: {-math.expm1(-gain):.1%} "
            "of perplexity. Nothing in the laws of loss marks a threshold there; what such a loss can do they do not say."
        ),
        command=f"hearth plan optimal --flops {_e(flops, 6)}",
        key="loss",
    )


def _alignment(name: str) -> Claim:
    rows = facts()["alignment"]
    shares = {row["model"]: row["share"][0] / row["share"][1] for row in rows}
    plain = [share for row, share in zip(rows, shares.values(), strict=True) if not row["reasoning"]]
    value = shares[rows[0]["model"]]
    reasoning = max(shares.values())
    return Claim(
        name=name,
        statement="Alignment takes a tenth of the compute",
        asks="compute of alignment over that of pre-training, InstructGPT",
        value=value,
        interval=(min(plain), max(plain)),
        unit="share",
        by_law=shares,
        verdict=TRUE if max(plain) <= 0.1 and reasoning < 0.1 else PARTLY,
        sentence=(
            f"Far less where preferences are taught: {min(plain):.2%} to {max(plain):.1%}, {0.1 / max(plain):.0f} "
            f"to {0.1 / min(plain):.0f} times less than "
            f"a tenth. Not where reasoning is reinforced: {reasoning:.0%} and more."
        ),
        command=f"hearth plan claims {name}",
        key="0.value",
        sources=tuple(row["source"] for row in rows),
        details={"published": rows},
    )


def _peak(device: str) -> float:
    from openhearth.plan import catalogue

    return catalogue.device(device).training_peak()[1]


def _e(value: float, digits: int = 3) -> str:
    """'5.88e23'."""
    return f"{value:.{digits}g}".replace("e+", "e")


CLAIMS: dict[str, Callable[[], Claim]] = {
    name: functools.partial(make, name)
    for name, make in {
        "table-stakes": _table_stakes,
        "chinchilla": _chinchilla,
        "llama-days": _llama_days,
        "llama-million": _llama_million,
        "million-billion": _million_billion,
        "larger": _larger,
        "balance": _balance,
        "data": _data,
        "diminishing": _diminishing,
        "asymptote": _asymptote,
        "thirty-billion": _thirty,
        "alignment": _alignment,
        "gpus": _gpus,
    }.items()
}
"""By name, in the order in which they are told."""
