"""The stage `plan`: measure this machine for a few seconds, derive shape, tokens, batch and rates, write it all down.

A recorded plan can be followed instead (`--plan plan.json`, or a rebuild): then nothing is measured and the same bytes are the
artifact, so that everything after it is the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from openhearth.budget_text import LONGEST, say_seconds
from openhearth.errors import DamagedError, RecipeError
from openhearth.ledger import Ledger, read_json, write_json
from openhearth.model.config import ModelConfig
from openhearth.plan import host
from openhearth.plan.budget import REFERENCE_BATCH, Facts, context_for, derive
from openhearth.plan.budgets import FASTEST_RATE
from openhearth.stage import Made, Setting, Stage, Tell
from openhearth.train.plan_file import MOST_LAYERS, WIDEST, check_plan, require_here, require_memory, training_bytes
from openhearth.train.plan_file import settings_of as settings_of
from openhearth.train.settings import LARGEST_BATCH, LONGEST_SEQUENCE, OptimizerName

FASTEST_CORE = 2e11
"""FLOP/s that no processor core exceeds in training: its peak in fp32 with AVX-512."""

MEASURING = 20.0
"""Seconds that measuring may take, or a tenth of the budget where that is more."""

SMALLEST = (2, 64, 4096)
"""Layers, width and vocabulary of the least that is tried, to bound what settings cost before anything is measured."""


class Planning(Stage):
    """Turn the budget into a plan, by measurement and by rules with their sources."""

    kind: ClassVar[str] = "plan"
    needs: ClassVar[tuple[str, ...]] = ("corpus", "tokenizer")

    budget_seconds: float | None = Field(default=None, gt=0)
    """Seconds for the whole run; taken from the recipe's `budget`."""
    budget_flops: float | None = Field(default=None, gt=0, exclude_if=lambda value: value is None)
    """FLOPs of training, where the recipe's `budget` is FLOPs, chip-hours or money; then the seconds are a first guess."""
    budget_why: tuple[str, ...] = Field(default=(), exclude_if=lambda value: not value)
    """How the budget became FLOPs; set from the recipe's `budget`."""
    num_layers: int | None = Field(default=None, ge=1, le=MOST_LAYERS)
    """Layers; decided from the budget when left out."""
    hidden_size: int | None = Field(default=None, ge=32, le=WIDEST, multiple_of=32)
    """Width, a multiple of 32; decided from the budget when left out."""
    sequence_length: int | None = Field(default=None, ge=32, le=LONGEST_SEQUENCE)
    """Tokens of context; 256 for a budget under ten minutes, else 512, when left out."""
    batch_tokens: int | None = Field(default=None, ge=32, le=LARGEST_BATCH)
    """Tokens per update; decided from the budget when left out."""
    tokens: int | None = Field(default=None, ge=1)
    """Tokens to pretrain on; decided from the budget when left out."""
    optimizer: OptimizerName = "muon"
    """'muon' for the matrices with AdamW for the rest, or 'adamw' for all."""
    learning_rate_scale: float = Field(default=1.0, gt=0, le=100)
    """Factor on every learning rate that the plan chooses."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """What products are computed in; 'auto' measures both."""
    compile: bool | None = None
    """Run blocks through torch.compile, which needs a C++ compiler and, the first time, about half a minute; decided when left out."""
    threads: int | None = Field(default=None, ge=1, le=4096)
    """Processor threads; all that this process may use when left out."""
    family: dict[str, Any] | None = Field(default=None, exclude_if=lambda value: value is None)
    """Proportions that a miniature keeps; set from the recipe's [published]."""
    followed: dict[str, Any] | None = Field(default=None, exclude_if=lambda value: value is None)
    """The content of a recorded plan to follow; set by `--plan`, not in a recipe."""

    def resolve(self, setting: Setting) -> Planning:
        followed = dict(setting.followed_plan) if setting.followed_plan is not None else None
        update: dict[str, Any] = {"budget_seconds": self.budget_seconds or setting.budget_seconds, "followed": followed}
        update["family"] = self.family or (dict(setting.family) if setting.family is not None else None)
        if self.budget_seconds is None:
            update |= {"budget_flops": self.budget_flops or setting.budget_flops, "budget_why": setting.budget_why}
        return self.model_copy(update=update)

    def preflight(self) -> None:
        if self.followed is not None:
            require_here(check_plan(self.followed, "the recorded plan"), "the recorded plan")
            return
        assert self.budget_seconds is not None, "resolve() fills in the budget"
        sequence = self.sequence_length or context_for(self.budget_seconds)
        if self.batch_tokens is not None and self.batch_tokens % sequence:
            raise RecipeError(f"plan.batch_tokens is {self.batch_tokens}; it must be a multiple of the sequence length, {sequence}")
        if self.threads is not None and self.threads > 4 * host.usable_threads():
            raise RecipeError(f"plan.threads is {self.threads}; this machine has {host.usable_threads()} processors")
        layers, width = self.num_layers or SMALLEST[0], self.hidden_size or SMALLEST[1]
        least = ModelConfig(
            vocab_size=SMALLEST[2], hidden_size=width, intermediate_size=8 * width // 3, num_layers=layers, num_heads=width // 32,
            num_kv_heads=1, head_dim=32, max_position_embeddings=sequence,
        )  # fmt: skip
        at_once = max(sequence, min(self.batch_tokens or REFERENCE_BATCH, REFERENCE_BATCH))
        self._require_time(least.flops_per_token(sequence), sequence)
        what = self._given("num_layers", "hidden_size", "sequence_length") or "the smallest model"
        dtype = "bfloat16" if self.dtype == "auto" else self.dtype
        require_memory(training_bytes(least, at_once, dtype), f"{what}: needs", "lower them")

    def _require_time(self, token_flops: int, sequence: int) -> None:
        """Raise RecipeError for what no machine trains in the longest run, and for what this one cannot measure in time."""
        if self.tokens is not None and self.tokens * token_flops > FASTEST_RATE * LONGEST:
            most = FASTEST_RATE * LONGEST / token_flops
            raise RecipeError(
                f"plan.tokens is {self.tokens:,}; even the fastest machine trains on no more than {most:.2g} in the longest run, "
                f"{say_seconds(LONGEST)}: lower it"
            )
        assert self.budget_seconds is not None
        # four updates are timed, and two readings of eight sequences, each a third of the work of training on them
        tokens = 4 * (self.batch_tokens or max(sequence, REFERENCE_BATCH)) + 16 * sequence // 3
        rate = min(FASTEST_RATE, FASTEST_CORE * host.usable_threads())
        seconds, allowed = tokens * token_flops / rate, max(MEASURING, 0.1 * self.budget_seconds)
        if seconds > allowed:
            given = self._given("batch_tokens", "sequence_length", "num_layers", "hidden_size")
            raise RecipeError(
                f"{given or 'the smallest model'}: only to measure that takes {say_seconds(seconds)} or more on this machine, "
                f"{say_seconds(allowed)} are allowed: lower {'it' if given.count('plan.') == 1 else 'them'}, or give a larger budget"
            )

    def _given(self, *names: str) -> str:
        """'plan.batch_tokens is 4,096, plan.num_layers is 2', of those that the recipe decides."""
        return ", ".join(f"plan.{name} is {value:,}" for name in names if (value := getattr(self, name)) is not None)

    def run(self, made: Made, out: Path, tell: Tell) -> None:
        summary = read_json(made["tokenizer"].path / "summary.json")
        if self.followed is not None:
            plan = check_plan(self.followed, "the recorded plan")
            if plan["model"]["vocab_size"] != summary["vocab_size"]:
                raise RecipeError(
                    f"the recorded plan is for a vocabulary of {plan['model']['vocab_size']:,}, this text's tokenizer has "
                    f"{summary['vocab_size']:,}; follow a plan with the text that it was made for"
                )
            tell.note("following the recorded plan; nothing is measured")
        else:
            plan = self._derive(made, out, summary, tell)
        total, budget = plan["predicted"]["seconds"]["total"], plan.get("budget_seconds") or LONGEST
        if total > 1.02 * budget:
            tell.note(f"this will take about {say_seconds(total)}, more than the budget of {say_seconds(budget)}: plan.json says why")
        write_json(out / "plan.json", plan)
        tell.record(parameters=ModelConfig(**plan["model"]).parameters, tokens_planned=plan["pretrain"]["tokens"])

    def _derive(self, made: Made, out: Path, summary: dict[str, Any], tell: Tell) -> dict[str, Any]:
        from openhearth.data.tokenizer import Tokenizer
        from openhearth.train.machine import compiler_available
        from openhearth.train.probe import MachineBench

        if self.compile and not compiler_available():
            raise RecipeError("plan.compile is true, but no C++ compiler (c++, g++ or clang++) is on this machine; set it to false")
        tokenizer = Tokenizer.load(made["tokenizer"].path)
        tell.note("measuring this machine")
        threads = self.threads or host.usable_threads()
        bench = MachineBench(threads)
        machine = host.describe() | {"product_gflops": {name: round(rate / 1e9, 1) for name, rate in bench.rates.items()}}
        assert self.budget_seconds is not None, "resolve() fills in the budget"
        facts = Facts(
            budget_seconds=self.budget_seconds,
            budget_flops=self.budget_flops,
            budget_why=self.budget_why,
            spent=Ledger(out.parents[1] / "ledger.jsonl").stage_seconds(("corpus", "tokenizer")),
            train_tokens=summary["train_tokens"],
            train_bytes=summary["train_bytes"],
            heldout_bytes=summary["heldout_bytes"],
            vocab_size=summary["vocab_size"],
            bos_token_id=tokenizer.bos,
            eos_token_id=tokenizer.im_end,
            machine=machine,
            threads=threads,
            dtype=bench.best_dtype() if self.dtype == "auto" else self.dtype,
            sequence_length=self.sequence_length or context_for(self.budget_seconds),
            num_layers=self.num_layers,
            hidden_size=self.hidden_size,
            batch_tokens=self.batch_tokens,
            tokens=self.tokens,
            learning_rate_scale=self.learning_rate_scale,
            optimizer=self.optimizer,
            compile=self.compile if self.compile is not None or compiler_available() else False,
            family=self.family,
            source=read_json(made["corpus"].path / "report.json")["source"],
        )
        return check_plan(derive(facts, bench), "the plan")


def read_plan(made: Made) -> dict[str, Any]:
    """The plan among the artifacts; raises DamagedError when it is not one."""
    path = made["plan"].path / "plan.json"
    try:
        return check_plan(read_json(path), str(path))
    except RecipeError as error:
        raise DamagedError(str(error)) from None
