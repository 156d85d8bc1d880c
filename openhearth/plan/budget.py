"""From a budget of time to a plan: shape, tokens, batch, learning rate, and the seconds that it will take.

Pure arithmetic over facts that are handed in; the machine is measured through a `Bench`, so that this room needs no torch and a
test can hand in a machine of its choice. Every decision leaves a sentence in `why`: the plan can be read by a person.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from openhearth.budget_text import LONGEST, say_seconds
from openhearth.energy import ESTIMATED, WATTS_PER_CORE
from openhearth.errors import RecipeError
from openhearth.model.config import ModelConfig
from openhearth.plan import prediction

PLAN_FORMAT = "openhearth-plan/1"

LADDER = ((2, 64), (2, 96), (2, 128), (2, 192), (2, 256), (4, 256), (4, 384), (6, 384), (8, 512), (12, 768))
"""(layers, width) of the shapes tried, small to large."""

WIDTHS = (64, 96, 128, 192, 256, 320, 384, 512, 640, 768, 1024)
"""Of the miniatures of a family, whose depth follows from its width per layer."""

TOKENS_PER_PARAMETER = 1.5
"""No shape is taken that sees fewer tokens per matmul parameter: the ladder's runs with fewer are few (docs/log.md)."""

MOST_TOKENS_PER_PARAMETER = 10
"""Nor one that sees more, while a larger one can be had: beyond it small shapes end above the law, which saw no more (docs/log.md)."""

MAX_EPOCHS = 12
"""More passes than this over the same text only memorise it (Muennighoff et al. 2023: little is gained beyond 16)."""

SFT_SHARE = 0.12
"""Part of the training time that goes to fine-tuning."""

REFERENCE_BATCH = 8192
"""Tokens per update at which shapes are measured and rates were swept."""

FEWEST_UPDATES, ENOUGH_UPDATES = 200, 2000
"""The batch is halved when fewer updates would remain, and doubled only while at least ENOUGH_UPDATES do."""

LARGEST_BATCH = 65536

COMPILE_SECONDS, COMPILE_GAIN = 35.0, 0.2
"""What torch.compile takes with nothing cached, and the part of a step's time outside of matrix products that it removes: measured 0.19
in fp32 without AVX-512, and 0.36 in bf16 with AMX (docs/log.md); the smaller is taken. It is used when it saves twice what it takes."""

REFERENCE_RATES = {"matrix": 0.04, "embedding": 0.2, "head": 0.015, "gain": 0.01}
"""Peak learning rates at REFERENCE_BATCH, swept on shape 2 x 128 (docs/log.md)."""

ADAMW_MATRIX_RATE = 0.003
"""Peak learning rate of the matrices when AdamW updates them."""


def context_for(budget_seconds: float) -> int:
    """Tokens of context: up to 5 M tokens of training 512 cost more than they gain (docs/log.md)."""
    return 256 if budget_seconds < 600 else 512


@dataclass(frozen=True)
class Facts:
    """What the plan starts from. Overrides are None where the plan decides."""

    budget_seconds: float
    spent: dict[str, float]  # seconds of the stages before this one
    train_tokens: int
    train_bytes: int
    heldout_bytes: int
    vocab_size: int
    bos_token_id: int
    eos_token_id: int
    machine: dict[str, Any]
    threads: int
    dtype: str
    sequence_length: int
    num_layers: int | None = None
    hidden_size: int | None = None
    batch_tokens: int | None = None
    tokens: int | None = None
    learning_rate_scale: float = 1.0
    optimizer: str = "muon"
    compile: bool | None = False  # None: decided here, by whether it pays
    with_sft: bool = True
    with_evaluate: bool = True
    budget_flops: float | None = None  # of training, where the budget is not time; then the seconds are a guess
    budget_why: tuple[str, ...] = ()
    family: Mapping[str, Any] | None = None  # proportions of a published model (`published.Proportions`)
    source: str = "text"  # "stdlib" when the corpus is that of the ladder by which loss is predicted

    @property
    def sft_share(self) -> float:
        """Part of the training that goes to fine-tuning."""
        return SFT_SHARE if self.with_sft else 0.0


class Bench(Protocol):
    """Measurements on this machine, taken when asked for."""

    def step_seconds(self, config: ModelConfig, settings: dict[str, Any]) -> float:
        """Seconds of one optimiser step."""
        ...

    def reading_rate(self, config: ModelConfig) -> float:
        """Tokens per second that an fp32 model of this shape can score."""
        ...

    def decode_seconds(self, config: ModelConfig, prompts: int) -> float:
        """Seconds to generate one more token for each of `prompts` prompts, fp32 with a cache."""
        ...

    def elapsed(self) -> float:
        """Seconds since the plan stage began."""
        ...

    def watts(self) -> float | None:
        """Power of the processor while it was measured; None where it has no counter."""
        ...


def shape(layers: int, width: int, facts: Facts) -> ModelConfig:
    """The Qwen3-layout shape of a rung of the ladder: head_dim 64 (32 where 64 does not divide it), SwiGLU 8/3 rounded to 64.

    With a family, in its proportions: width of the feed-forward, queries per width, heads per key/value head, tied or not.
    """
    head_dim = 64 if width % 64 == 0 else 32
    if width % head_dim:
        raise RecipeError(f"plan.hidden_size is {width}; it must be a multiple of 32")
    family = facts.family or {}
    ratio = family.get("intermediate_ratio", 8 / 3) * (1 if family.get("gated", True) else 2 / 3)
    heads = max(1, round(width * family.get("query_ratio", 1.0) / head_dim))
    most = max(1, heads // family.get("heads_per_kv_head", 1))
    return ModelConfig(
        vocab_size=facts.vocab_size,
        hidden_size=width,
        intermediate_size=max(64, round(width * ratio / 64) * 64),
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=next(count for count in range(most, 0, -1) if heads % count == 0),
        head_dim=head_dim,
        max_position_embeddings=facts.sequence_length,
        tie_word_embeddings=family.get("tied", False),
        bos_token_id=facts.bos_token_id,
        eos_token_id=facts.eos_token_id,
    )


def ladder(facts: Facts) -> list[ModelConfig]:
    """The shapes tried, small to large: LADDER, or widths at the family's width per layer."""
    if facts.family is None:
        return [shape(layers, width, facts) for layers, width in LADDER]
    per_layer = facts.family["width_per_layer"]
    return [shape(max(1, round(width / per_layer)), width, facts) for width in WIDTHS]


def say_family(family: Mapping[str, Any]) -> list[str]:
    """What a miniature keeps of the model it is named after, and what it cannot."""
    kept = (
        f"A miniature: it keeps {family['width_per_layer']:.0f} of width per layer, a feed-forward of {family['intermediate_ratio']:.3g} x "
        f"the width, {family['heads_per_kv_head']} query heads per key/value head, and an embedding that is "
        f"{'tied to the head' if family['tied'] else 'not tied to the head'} ([published.model]); the budget sets the size."
    )
    changed = []
    if not family["gated"]:
        changed.append("the feed-forward is gated, two thirds as wide for the same FLOPs")
    if family["experts"]:
        changed.append(
            f"the {family['experts']} experts are one feed-forward as wide as the {family['experts_per_token']} that a token meets"
        )
    return [kept, *([f"Not kept, since one layout is trained here (Qwen3's): {'; '.join(changed)}."] if changed else [])]


def learning_rates(batch_tokens: int, facts: Facts) -> dict[str, float]:
    """Peak rates by optimiser group: the swept ones, scaled with the square root of the batch."""
    factor = facts.learning_rate_scale * (batch_tokens / REFERENCE_BATCH) ** 0.5
    rates = {group: rate * factor for group, rate in REFERENCE_RATES.items()}
    if facts.optimizer == "adamw":
        rates["matrix"] = ADAMW_MATRIX_RATE * factor
    return {group: float(f"{rate:.4g}") for group, rate in rates.items()}


@dataclass
class _Draft:
    """A plan in the making."""

    facts: Facts
    bench: Bench
    why: list[str] = field(default_factory=list)

    def settings(self, config: ModelConfig, batch_tokens: int, steps: int, seconds: float) -> dict[str, Any]:
        return {
            "sequence_length": self.facts.sequence_length,
            "batch_tokens": batch_tokens,
            "micro_batch_tokens": min(batch_tokens, 8192),
            "steps": steps,
            "learning_rate": learning_rates(batch_tokens, self.facts),
            "dtype": self.facts.dtype,
            "compile": bool(self.facts.compile),
            "threads": self.facts.threads,
            "checkpoint_steps": max(5, round(15 / seconds)),
            "optimizer": self.facts.optimizer,
        }

    def step_seconds(self, config: ModelConfig, batch_tokens: int) -> float:
        return self.bench.step_seconds(config, self.settings(config, batch_tokens, 1000, 1.0))

    def first_batch(self) -> int:
        sequence = self.facts.sequence_length
        return self.facts.batch_tokens or max(sequence, REFERENCE_BATCH // sequence * sequence)


def predicted_energy(watts: float | None, threads: int, seconds: float) -> dict[str, Any]:
    """Joules of a run of so many seconds, and how they are known."""
    if watts is not None:
        return {"joules": round(watts * seconds, 1), "source": f"from {watts:.0f} W measured while planning (RAPL)"}
    return {"joules": round(WATTS_PER_CORE * threads * seconds, 1), "source": ESTIMATED}


def evaluation_plan(facts: Facts, bench: Bench, config: ModelConfig) -> tuple[dict[str, int], float]:
    """How much to evaluate within a tenth of the budget, and the seconds it will take."""
    allowance = 0.1 * facts.budget_seconds
    bytes_per_token = facts.train_bytes / max(1, facts.train_tokens)
    rate = bench.reading_rate(config)
    # two models, and a stride of half a window scores every token while reading it twice
    wanted = int(0.5 * allowance * rate / 4 * bytes_per_token)
    heldout_bytes = min(facts.heldout_bytes, max(40_000, min(wanted, 400_000)))
    prompts = 32 if facts.budget_seconds < 150 else 64
    max_new_tokens = 96 if facts.budget_seconds < 150 else 160
    decode = bench.decode_seconds(config, prompts)
    # three batches of answers, and two small ones for the samples
    seconds = 0.7 + 4 * heldout_bytes / bytes_per_token / rate + 5 * max_new_tokens * decode + heldout_bytes * 3e-6
    return {"heldout_bytes": heldout_bytes, "prompts": prompts, "max_new_tokens": max_new_tokens}, seconds


def affordable(facts: Facts, config: ModelConfig, batch_tokens: int, step_seconds: float, training_seconds: float) -> float:
    """Tokens of pretraining that the budget buys: in `training_seconds` for a budget of time, by FLOPs for one of FLOPs."""
    if facts.budget_flops is not None:
        return (1 - facts.sft_share) * facts.budget_flops / config.flops_per_token(facts.sequence_length)
    return training_seconds / step_seconds * batch_tokens


def choose_shape(draft: _Draft, training_seconds: float) -> tuple[ModelConfig, float]:
    """The rung that the law of the ladder expects most of, and the seconds of its step with the smallest batch.

    Only shapes that look best are measured: each measurement corrects the guesses of its neighbours, until the best one is measured.
    """
    facts, batch = draft.facts, draft.first_batch()
    if facts.num_layers is not None or facts.hidden_size is not None:
        config = shape(facts.num_layers or 4, facts.hidden_size or 256, facts)
        seconds = draft.step_seconds(config, batch)
        draft.why.append(f"The shape, {config.num_layers} layers x {config.hidden_size}, is the recipe's.")
        return config, seconds
    rungs = ladder(facts)
    measured: dict[int, float] = {}

    def tokens_per_parameter(rung: int, seconds: float) -> float:
        tokens = min(affordable(facts, rungs[rung], batch, seconds, training_seconds), MAX_EPOCHS * facts.train_tokens)
        return tokens / rungs[rung].matmul_parameters

    def guess(rung: int) -> float:
        """Seconds if they grew as the FLOPs do from the nearest shape measured: too many for a larger one, whose products run better."""
        near = min(measured, key=lambda known: abs(known - rung))
        flops = [config.flops_per_token(facts.sequence_length) for config in (rungs[rung], rungs[near])]
        return measured[near] * flops[0] / flops[1]

    def expected(rung: int, seconds: float) -> float:
        """Bits per byte by the law of the ladder, whose order of shapes is taken for any text."""
        tokens = min(affordable(facts, rungs[rung], batch, seconds, training_seconds), MAX_EPOCHS * facts.train_tokens)
        return prediction.loss(rungs[rung].matmul_parameters, max(tokens, 1.0), max(facts.train_tokens, 1))

    while True:
        ratios = {rung: tokens_per_parameter(rung, measured.get(rung) or guess(rung)) for rung in range(len(rungs))} if measured else {}
        enough = [rung for rung, ratio in ratios.items() if ratio >= TOKENS_PER_PARAMETER]
        allowed = [rung for rung in enough if ratios[rung] <= MOST_TOKENS_PER_PARAMETER] or enough[-1:] or [0]
        best = min(allowed, key=lambda rung: expected(rung, measured.get(rung) or guess(rung))) if measured else 0
        if best in measured:
            break
        if draft.bench.elapsed() > min(12.0, 0.1 * facts.budget_seconds) and measured:
            draft.why.append("Not every shape was measured: the time for measuring was used up.")
            best = min(measured, key=lambda rung: expected(rung, measured[rung]))
            break
        measured[best] = draft.step_seconds(rungs[best], batch)
    config = rungs[best]
    tried = ", ".join(
        f"{rungs[rung].num_layers} x {rungs[rung].hidden_size} {expected(rung, seconds):.3f}" for rung, seconds in sorted(measured.items())
    )
    draft.why.append(
        f"{config.num_layers} layers x {config.hidden_size} ({config.parameters / 1e6:.2f} M parameters, "
        f"{config.matmul_parameters / 1e6:.2f} M of them in matrix products) is the best shape for that, of those that see "
        f"{TOKENS_PER_PARAMETER} to {MOST_TOKENS_PER_PARAMETER} tokens per matmul parameter, by the law of the ladder "
        f"(bits per byte of the laptop recipe's text; "
        f"docs/plan.md); measured here: {tried}."
    )
    return config, measured[best]


def choose_batch(draft: _Draft, config: ModelConfig, seconds: float, training_seconds: float) -> tuple[int, float]:
    """Tokens per update, and the seconds of one: small batches while updates are few, larger ones when there are plenty."""
    facts, batch = draft.facts, draft.first_batch()
    if facts.batch_tokens is not None:
        draft.why.append(f"The batch, {batch:,} tokens, is the recipe's.")
        return batch, seconds
    updates = affordable(facts, config, batch, seconds, training_seconds) / batch
    halved = batch // 2
    if updates < FEWEST_UPDATES and halved >= facts.sequence_length and halved % facts.sequence_length == 0:
        batch = halved
    while updates / 2 >= ENOUGH_UPDATES and batch * 2 <= LARGEST_BATCH:
        batch, updates = batch * 2, updates / 2
    if batch != draft.first_batch():
        seconds = draft.step_seconds(config, batch)
    updates = affordable(facts, config, batch, seconds, training_seconds) / batch
    draft.why.append(f"A batch of {batch:,} tokens leaves about {updates:,.0f} updates.")
    return batch, seconds


def decide_compile(draft: _Draft, config: ModelConfig, batch_tokens: int, seconds: float, training_seconds: float) -> tuple[Facts, float]:
    """Whether torch.compile pays for itself within the budget, and the seconds of a step with what was decided.

    It cannot be tried within the seconds that a plan may take, so its gain is estimated from what it can remove: the time of a step that is
    not matrix products, at the rate measured here.
    """
    rate = draft.facts.machine.get("product_gflops", {}).get(draft.facts.dtype, 0.0) * 1e9
    products = batch_tokens * config.flops_per_token(draft.facts.sequence_length) / rate if rate else seconds
    compiled = seconds - COMPILE_GAIN * max(0.0, seconds - products)
    if draft.facts.budget_flops is not None:
        training_seconds = draft.facts.budget_flops / (batch_tokens * config.flops_per_token(draft.facts.sequence_length)) * seconds
    saved = training_seconds * (1 - compiled / seconds)
    pays = saved > 2 * COMPILE_SECONDS
    draft.facts = replace(draft.facts, compile=pays)
    draft.why.append(
        f"torch.compile would save about {saved:,.0f} s of training ({1 - products / seconds:.0%} of a step is not matrix products, and a "
        f"{COMPILE_GAIN:.0%} of that can go) and take about {COMPILE_SECONDS:.0f} s itself: {'it is used' if pays else 'it is not used'}."
    )
    return draft.facts, compiled if pays else seconds


def derive(facts: Facts, bench: Bench) -> dict[str, Any]:
    """The content of `plan.json`. Raises RecipeError when an override cannot work."""
    if facts.batch_tokens is not None and facts.batch_tokens % facts.sequence_length:
        raise RecipeError(f"plan.batch_tokens ({facts.batch_tokens}) is not a multiple of the sequence length ({facts.sequence_length})")
    draft = _Draft(facts, bench)
    spent = sum(facts.spent.values())
    machine = f"this machine ({facts.machine.get('processor')}, {facts.threads} threads)"
    draft.why += facts.budget_why
    if facts.family is not None:
        draft.why += say_family(facts.family)
    if facts.budget_flops is None:
        draft.why.append(f"The budget is {facts.budget_seconds:,.0f} s of {machine}; {spent:,.1f} s went to corpus and tokenizer.")
    else:
        draft.why.append(f"The budget is {facts.budget_flops:.3g} FLOPs of training, spent on {machine}.")
    draft.why.append(f"Products are computed in {facts.dtype}, by measurement here; master weights, losses, norms and evaluation are fp32.")
    rough_overhead = 0.1 * facts.budget_seconds * facts.with_evaluate + min(20.0, 0.1 * facts.budget_seconds) + 2.0
    rough = max(5.0, (facts.budget_seconds - spent - rough_overhead))
    sft_share = facts.sft_share
    config, seconds = choose_shape(draft, rough * (1 - sft_share))
    batch, seconds = choose_batch(draft, config, seconds, rough * (1 - sft_share))
    step_flops = batch * config.flops_per_token(facts.sequence_length)
    if facts.budget_flops is not None:
        facts = draft.facts = replace(facts, budget_seconds=1.15 * (facts.budget_flops / step_flops * seconds + spent + 10.0))
    evaluate, evaluate_seconds = evaluation_plan(facts, bench, config) if facts.with_evaluate else ({}, 0.0)
    release_seconds = 0.2 + 30e-9 * 4 * config.parameters
    planning = bench.elapsed()
    left = facts.budget_seconds - spent - planning - evaluate_seconds - release_seconds
    if facts.compile is None:
        facts, seconds = decide_compile(draft, config, batch, seconds, rough)
    start = 0.3 + (COMPILE_SECONDS if facts.compile else 0.0)
    step_cost = seconds + 0.002 + 12e-9 * config.parameters * seconds / 15  # a checkpoint every 15 s
    if facts.budget_flops is not None:
        updates = facts.budget_flops / step_flops
        steps, sft_steps = max(1, int((1 - sft_share) * updates)), max(1, int(sft_share * updates)) if facts.with_sft else 0
    else:
        steps = max(10, int(((1 - sft_share) * left - start) / step_cost))
        sft_steps = max(5, int((sft_share * left - start - 1.0) / step_cost)) if facts.with_sft else 0
    if facts.tokens is not None:
        steps = max(1, facts.tokens // batch)
        draft.why.append(f"The number of tokens, {steps * batch:,}, is the recipe's.")
    elif steps * batch > MAX_EPOCHS * facts.train_tokens:
        steps = max(10, MAX_EPOCHS * facts.train_tokens // batch)
        draft.why.append(
            f"There are only {facts.train_tokens:,} tokens of text: {MAX_EPOCHS} passes over them end before the budget does, "
            "and more would only memorise. More text would use the rest."
        )
    tokens = steps * batch
    draft.why.append(
        f"{steps:,} updates of {batch:,} tokens: {tokens / 1e6:.2f} M tokens, "
        f"{tokens / max(1, facts.train_tokens):.2f} passes over the text, "
        f"{tokens / config.matmul_parameters:.2f} tokens per matmul parameter, "
        f"{tokens * config.flops_per_token(facts.sequence_length):.3g} FLOPs "
        "(per token 6 x matmul parameters + 12 x layers x width x sequence)."
    )
    draft.why.append(
        f"{facts.optimizer}: peak learning rates {learning_rates(batch, facts)}; "
        f"swept at {REFERENCE_BATCH:,} tokens, scaled with the square root of the batch."
    )
    predicted = {
        **facts.spent,
        "plan": planning,
        "pretrain": start + steps * step_cost,
        **({"sft": start + 1.0 + sft_steps * step_cost} if facts.with_sft else {}),
        **({"evaluate": evaluate_seconds} if facts.with_evaluate else {}),
        "release": release_seconds,
    }
    total = sum(predicted.values())
    if total > LONGEST and facts.tokens is not None:
        raise RecipeError(
            f"plan.tokens is {facts.tokens:,}; on this machine that takes about {total / 86_400:,.0f} days, the longest run is "
            f"{say_seconds(LONGEST)}: lower it"
        )
    if total > LONGEST:
        raise RecipeError(
            f"the budget takes about {say_seconds(total)} on this machine; the longest run is {say_seconds(LONGEST)}: lower the budget, "
            "or see what it buys elsewhere with hearth plan"
        )
    if facts.budget_flops is None and total > 1.02 * facts.budget_seconds:
        what = "The smallest sensible run" if facts.tokens is None else "A run on as many tokens as the recipe says"
        draft.why.append(f"{what} takes {total:,.0f} s here, more than the budget of {facts.budget_seconds:,.0f} s.")
    foreseen = None
    if facts.source == "stdlib" and (facts.vocab_size, facts.sequence_length) == (prediction.VOCABULARY, prediction.CONTEXT):
        foreseen = prediction.facts(config.matmul_parameters, tokens, facts.train_tokens, evaluate["heldout_bytes"])
        draft.why.append(
            f"By that law the held-out text will take {foreseen['value']:.3f} bits per byte before fine-tuning "
            f"({foreseen['low']:.3f} to {foreseen['high']:.3f}, 95 % of single runs)."
        )
        if evaluate["heldout_bytes"] < prediction.HELD_OUT_BYTES:
            draft.why.append(
                f"Only {evaluate['heldout_bytes'] / 1e3:,.0f} kB of held-out text will be read, less than in the runs behind the law: "
                f"the interval is wider by {prediction.LESS_TEXT:.0%} on both sides."
            )
        if tokens > prediction.COPYING_TOKENS:
            draft.why.append(
                f"Beyond {prediction.COPYING_TOKENS / 1e6:.1f} M tokens a small model may learn to copy from its context, which lowers the "
                f"loss by about {prediction.COPYING_GAIN:.0%} at once; the law cannot say when, so the interval reaches down that far."
            )
    elif facts.source == "stdlib":
        draft.why.append(
            f"No loss is predicted: the ladder's runs had {prediction.VOCABULARY:,} ids and {prediction.CONTEXT} tokens of context, and "
            "this run has others."
        )
    energy = predicted_energy(bench.watts(), facts.threads, total)
    draft.why.append(f"{energy['joules'] / 3600:,.1f} Wh, {energy['source']}.")
    settings = draft.settings(config, batch, steps, seconds)
    return {
        "format": PLAN_FORMAT,
        "budget_seconds": round(facts.budget_seconds, 1),
        **({"budget_flops": facts.budget_flops} if facts.budget_flops is not None else {}),
        "machine": facts.machine,
        "model": config.model_dump(),
        "pretrain": {**settings, "tokens": tokens},
        "sft": {**draft.settings(config, batch, max(1, sft_steps), seconds)},
        "evaluate": evaluate,
        "predicted": {
            "seconds": {name: round(value, 2) for name, value in {**predicted, "total": total}.items()},
            "step_seconds": round(seconds, 5),
            "energy": energy,
            **({"bits_per_byte": foreseen} if foreseen is not None else {}),
        },
        "why": draft.why,
    }
