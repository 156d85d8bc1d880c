"""What a plan.json may say. A plan can come from anywhere (`--plan`, a release), so every value in it is bounded before it is followed.

The training settings are declared in `settings.py` and the shape in `model/config.py`; here stands what holds between them, and what
this machine can do. No torch.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from openhearth.budget_text import LONGEST
from openhearth.errors import RecipeError
from openhearth.ledger import canonical_json
from openhearth.model.config import LOGITS_CHUNK, ModelConfig
from openhearth.plain_words import in_plain_words, shown
from openhearth.plan import host
from openhearth.plan.budget import PLAN_FORMAT
from openhearth.plan.budgets import FASTEST_RATE
from openhearth.train.settings import MOST_HELDOUT_BYTES, MOST_NEW_TOKENS, MOST_PROMPTS, Settings

MOST_LAYERS, WIDEST = 200, 16_384
"""Of a shape that is trained here."""

MOST_THREADS = 256
"""That any machine may be asked for, so that the plan of a larger machine can be followed; threads without end crash the runtime."""

Model = TypeVar("Model", bound=BaseModel)

Seconds = Annotated[float, Field(ge=0, le=LONGEST)]


class _Sizes(BaseModel):
    """How much is evaluated."""

    model_config = ConfigDict(extra="forbid")

    heldout_bytes: int = Field(ge=0, le=MOST_HELDOUT_BYTES)
    prompts: int = Field(ge=0, le=MOST_PROMPTS)
    max_new_tokens: int = Field(ge=0, le=MOST_NEW_TOKENS)


class _Energy(BaseModel):
    joules: float = Field(ge=0)
    source: str


class _Loss(BaseModel):
    value: float
    low: float
    high: float


class _Predicted(BaseModel):
    """What the plan foretells; other figures beside these are only read by people."""

    seconds: dict[str, Seconds]
    energy: _Energy | None = None
    bits_per_byte: _Loss | None = None


class _Rest(BaseModel):
    """The parts that are neither shape nor training."""

    budget_seconds: float | None = Field(default=None, gt=0)
    budget_flops: float | None = Field(default=None, gt=0)
    machine: dict[str, Any] = {}
    evaluate: _Sizes
    predicted: _Predicted
    why: list[str] = []


def check_plan(plan: dict[str, Any], where: str) -> dict[str, Any]:
    """The plan itself, when it has every part in its right form and within bounds; raises RecipeError naming the value."""
    if not isinstance(plan, dict) or plan.get("format") != PLAN_FORMAT:
        raise RecipeError(f"{where}: not a plan of the format {PLAN_FORMAT}")
    try:
        canonical_json(plan)
    except (ValueError, RecursionError):
        raise RecipeError(f"{where}: holds a number that is not finite, or what is not JSON; take a plan.json that a run wrote") from None
    for part in ("model", "pretrain", "sft", "evaluate", "predicted"):
        if not isinstance(plan.get(part), dict):
            raise RecipeError(f"{where}: {part} is missing or not a table; take a plan.json that a run wrote")
    config = _read(ModelConfig, plan["model"], f"{where}: model.")
    _read(_Rest, {name: value for name, value in plan.items() if name in _Rest.model_fields}, f"{where}: ")
    if "total" not in plan["predicted"]["seconds"]:
        raise RecipeError(f"{where}: predicted.seconds.total is missing; take a plan.json that a run wrote")
    for name, value, most in (("num_layers", config.num_layers, MOST_LAYERS), ("hidden_size", config.hidden_size, WIDEST)):
        if value > most:
            raise RecipeError(f"{where}: model.{name} is {value:,}; at most {most:,} are trained here")
    for name, token in (("bos_token_id", config.bos_token_id), ("eos_token_id", config.eos_token_id)):
        if not 0 <= token < config.vocab_size:
            raise RecipeError(f"{where}: model.{name} is {token}; the vocabulary has {config.vocab_size:,} ids")
    flops = 0
    for part in ("pretrain", "sft"):
        settings = _settings(plan, part, where)
        _check_settings(settings, config, f"{where}: {part}.")
        flops += settings.tokens * config.flops_per_token(settings.sequence_length)
        if plan[part].get("tokens", settings.tokens) != settings.tokens:
            raise RecipeError(f"{where}: {part}.tokens is {shown(plan[part]['tokens'])}; steps x batch_tokens are {settings.tokens:,}")
    total = plan["predicted"]["seconds"]["total"]
    if flops > FASTEST_RATE * LONGEST or flops > 10 * FASTEST_RATE * total:  # ten: some machine may be faster than any we know of
        raise RecipeError(
            f"{where}: pretrain.steps and sft.steps of this model come to {flops:.3g} FLOPs, which no machine does in the "
            f"{total:,.0f} s of predicted.seconds.total; take a plan.json that a run wrote"
        )
    return plan


def _check_settings(settings: Settings, config: ModelConfig, where: str) -> None:
    sequence, batch = settings.sequence_length, settings.batch_tokens
    if sequence > config.max_position_embeddings:
        raise RecipeError(f"{where}sequence_length is {sequence:,}; model.max_position_embeddings is {config.max_position_embeddings:,}")
    if batch % sequence:
        raise RecipeError(f"{where}batch_tokens is {batch:,}; it must be a multiple of sequence_length, {sequence:,}")
    if settings.micro_batch_tokens > batch:
        raise RecipeError(f"{where}micro_batch_tokens is {settings.micro_batch_tokens:,}; it must be at most batch_tokens, {batch:,}")


def require_here(plan: dict[str, Any], where: str) -> None:
    """Raise RecipeError when this machine has not the threads or the memory that a plan (one that was checked) asks for."""
    config = ModelConfig.model_validate(plan["model"])
    for part in ("pretrain", "sft"):
        settings = settings_of(plan, part)
        if settings.threads > most_threads():
            raise RecipeError(
                f"{where}: {part}.threads is {settings.threads:,}; this machine has {host.usable_threads()} processors, "
                f"at most {most_threads():,} threads are started"
            )
        at_once = max(settings.micro_batch_tokens, settings.sequence_length)
        require_memory(
            training_bytes(config, at_once, settings.dtype),
            f"{where}: model and {part}.micro_batch_tokens need",
            "follow the plan of a smaller model",
        )


def most_threads() -> int:
    """Threads that a followed plan may ask for here."""
    return max(MOST_THREADS, 4 * host.usable_threads())


PROCESS_BYTES, WORKING_WIDTHS = 314_000_000, 40
"""Of the interpreter with PyTorch; and, per token in flight, what is alive for a moment only and what the allocator leaves in between, in
widths of the model: fitted to measured peaks of seven shapes, all within 10 % (docs/benchmarks.md)."""


def training_bytes(config: ModelConfig, tokens_at_once: int, dtype: str, *, saves: bool = True) -> int:
    """The physical memory that training takes at most, in bytes; where nothing is saved (`saves`) without the copy that a checkpoint is
    written from.

    Master weights, two moments, accumulated gradient, and a gradient with a copy to compute with; for every token that is in flight, what
    each layer keeps for its gradients and room to work in; a chunk of logits; the gradients of embedding and head before they are added.
    """
    size = 2 if dtype == "bfloat16" else 4
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    kept = config.num_layers * (4 * config.hidden_size + 5 * queries + keys + 3 * config.intermediate_size)
    logits = 3 * 4 * min(LOGITS_CHUNK, tokens_at_once) * config.vocab_size
    ends = 8 * config.vocab_size * config.hidden_size
    in_flight = tokens_at_once * size * (kept + WORKING_WIDTHS * config.hidden_size)
    states = (20 + 12 * saves) * config.parameters
    return PROCESS_BYTES + states + in_flight + logits + ends


def require_memory(needed: int, what: str, remedy: str) -> None:
    """Raise RecipeError ('WHAT 99 GB to train, this machine has 24 GB; REMEDY') when it has less memory than that."""
    memory = host.memory_bytes()
    if memory is not None and needed > memory:
        raise RecipeError(f"{what} {needed / 1e9:,.0f} GB to train, this machine has {memory / 1e9:,.0f} GB; {remedy}")


def settings_of(plan: dict[str, Any], part: str) -> Settings:
    """The training settings of `pretrain` or `sft` in a plan that was checked."""
    return _settings(plan, part, "the plan")


def _settings(plan: dict[str, Any], part: str, where: str) -> Settings:
    return _read(Settings, {key: value for key, value in plan[part].items() if key != "tokens"}, f"{where}: {part}.")


def _read(model: type[Model], content: dict[str, Any], where: str) -> Model:
    """A record from a part of the plan; `where` ends in the part's name and a dot."""
    try:
        return model.model_validate_json(json.dumps(content), strict=True)  # strict JSON: "5" is no number, 5 is a float
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        inside = ".".join(map(str, first["loc"]))
        said = f" {in_plain_words(first, model)}"
        raise RecipeError(f"{where}{inside}{said}" if inside else f"{where.rstrip('.')}:{said}") from None
