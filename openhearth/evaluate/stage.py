"""The evaluate stage: what the base and the fine-tuned model make of text that no stage has trained on.

Bits per byte on held-out documents beside what compressors make of the same documents; the share of held-out functions that come
out as Python; three samples. The sizes come from the plan, the choice of documents and prompts from a keyed hash; nothing depends
on the clock.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from openhearth.budget_text import say_seconds
from openhearth.ledger import read_json, write_json
from openhearth.stage import Made, Seeded, Tell
from openhearth.train.settings import MOST_HELDOUT_BYTES, MOST_NEW_TOKENS, MOST_PROMPTS

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from openhearth.align.examples import Example
    from openhearth.data.tokenizer import Tokenizer
    from openhearth.evaluate.functions import Task, Written
    from openhearth.evaluate.heldout import HeldOut
    from openhearth.model.config import ModelConfig
    from openhearth.model.generate import Sampling

WRITING_WEIGHT = 4
"""Seconds for a token written, in seconds for a token read; for the progress line only."""


@dataclasses.dataclass(frozen=True)
class _Job:
    """What both models are given."""

    tokenizer: Tokenizer
    heldout: HeldOut
    tasks: list[Task]
    questions: list[Example]
    openings: list[str]
    window: int
    stride: int
    sampling: Sampling
    seed: int

    @property
    def read(self) -> int:
        """Positions that one model reads to score the held-out text."""
        from openhearth.evaluate.bits_per_byte import windows

        return sum(piece.end - piece.start for ids in self.heldout.ids for piece in windows(0, len(ids), self.window, self.stride))

    @property
    def written(self) -> int:
        """Tokens of all functions asked for and answered once, at most."""
        return sum(len(task.chat_prompt) + self.sampling.max_new_tokens for task in self.tasks)


@dataclasses.dataclass(frozen=True)
class _Found:
    """What one model did."""

    nats: npt.NDArray[np.float64]
    written: dict[str, list[Written]]
    samples: list[dict[str, str]]
    config: ModelConfig


class _Progress:
    """Work done over work to do, in tokens read; a token written weighs more."""

    def __init__(self, tell: Tell, total: int) -> None:
        self.tell, self.total, self.done = tell, total, 0.0

    def add(self, work: float, **figures: float | str) -> None:
        self.done += work
        self.tell.progress(self.done, self.total, **figures)


class Evaluate(Seeded):
    """Measure the base and the fine-tuned model on held-out documents."""

    kind: ClassVar[str] = "evaluate"
    needs: ClassVar[tuple[str, ...]] = ("corpus", "tokenizer", "plan", "pretrain", "sft")

    seed: int | None = Field(default=None, ge=0, lt=2**63)
    """Keys the order of documents and prompts and the resampling; by default the seed of the recipe."""
    heldout_bytes: int | None = Field(default=None, ge=1, le=MOST_HELDOUT_BYTES)
    """Bytes of held-out text to measure at most; by default as planned."""
    prompts: int | None = Field(default=None, ge=0, le=MOST_PROMPTS)
    """Held-out functions to ask for at most; by default as planned."""
    max_new_tokens: int | None = Field(default=None, ge=1, le=MOST_NEW_TOKENS)
    """Tokens of an answer at most; by default as planned."""
    temperature: float = Field(default=0.0, ge=0.0, le=100.0)
    """Of the functions asked for; 0 is greedy. The three samples are drawn as `hearth chat` draws."""

    def run(self, made: Made, out: Path, tell: Tell) -> None:
        """Write `evaluation.json` and `samples.json`."""
        from openhearth.align.examples import read_documents
        from openhearth.evaluate import baselines
        from openhearth.train.machine import prepare

        started = time.perf_counter()
        plan = read_json(made["plan"].path / "plan.json")
        prepare(plan["pretrain"]["threads"])
        documents = read_documents(made["corpus"].path / "documents.parquet")
        job = self._job(documents, made, plan)
        heldout = job.heldout
        sample = baselines.sample_pieces(documents, job.seed)
        compressed, how = baselines.baselines(heldout.texts, heldout.units, sample, job.seed)
        del documents, sample
        if said := _beyond_budget(job, plan):
            tell.note(said)
        seconds = {"prepare and compress": time.perf_counter() - started}

        progress = _Progress(tell, 2 * job.read + 3 * WRITING_WEIGHT * job.written)
        found = {}
        for name, stage in (("base", "pretrain"), ("sft", "sft")):
            before = time.perf_counter()
            found[name] = _measure(name, made[stage].path, job, progress)
            seconds[name] = time.perf_counter() - before

        evaluation = {
            "bits_per_byte": _bits_per_byte(job, found) | {"baselines": _json(compressed), "baselines_how": how},
            "parses": _parses(job, found),
            "samples": found["sft"].samples + found["base"].samples,
        }
        write_json(out / "evaluation.json", evaluation)
        write_json(out / "samples.json", {"samples": evaluation["samples"], "functions": _transcript(job, found)})
        _tell(tell, job, found, evaluation)
        tell.measure(seconds=seconds)

    def _job(self, documents: Any, made: Made, plan: dict[str, Any]) -> _Job:
        from openhearth.align.examples import Limits, make_examples
        from openhearth.data.tokenizer import Tokenizer
        from openhearth.evaluate import functions, heldout, samples
        from openhearth.model.generate import Sampling
        from openhearth.model.hf import load_config

        sizes = plan["evaluate"] | {
            name: value for name in ("heldout_bytes", "prompts", "max_new_tokens") if (value := getattr(self, name)) is not None
        }
        seed = self.seed or 0
        tokenizer = Tokenizer.load(made["tokenizer"].path)
        context = load_config(made["pretrain"].path).max_position_embeddings
        window = min(plan["pretrain"]["sequence_length"], context)
        longest = min(sizes["max_new_tokens"], max(1, context // 2))
        enough = Limits(examples=64 + 8 * sizes["prompts"])
        examples = make_examples(documents, "heldout", tokenizer, plan["sft"]["sequence_length"], enough, seed).kept
        chosen = heldout.choose(documents, sizes["heldout_bytes"], tokenizer, seed)
        questions = samples.questions(examples, tokenizer, context - longest)
        return _Job(
            tokenizer=tokenizer,
            heldout=chosen,
            tasks=functions.tasks(examples, tokenizer, sizes["prompts"], longest, context),
            questions=questions,
            openings=samples.openings(chosen.texts, tokenizer, samples.COUNT - len(questions), context - longest - 1),
            window=window,
            stride=max(1, window // 2),
            sampling=Sampling(max_new_tokens=longest, temperature=self.temperature, seed=seed),
            seed=seed,
        )


def _beyond_budget(job: _Job, plan: dict[str, Any]) -> str:
    """A line when the recipe evaluates so much more than was planned that the run goes beyond its budget, else ''."""
    seconds, sizes = plan.get("predicted", {}).get("seconds", {}), plan["evaluate"]
    planned = (sizes["prompts"] * sizes["max_new_tokens"], sizes["heldout_bytes"])
    asked = (len(job.tasks) * job.sampling.max_new_tokens, job.heldout.bytes)
    factor = max(now / max(1, then) for now, then in zip(asked, planned, strict=True))
    here = factor * seconds.get("evaluate", 0.0)
    total, budget = seconds.get("total", 0.0) - seconds.get("evaluate", 0.0) + here, plan.get("budget_seconds", float("inf"))
    if factor <= 1 or total <= 1.02 * budget:
        return ""
    return (
        f"evaluating {len(job.tasks):,} functions and {job.heldout.bytes:,} bytes will take about {say_seconds(here)}, and the run more "
        f"than its budget of {say_seconds(budget)}: lower evaluate.prompts, evaluate.max_new_tokens or evaluate.heldout_bytes"
    )


def _measure(name: str, folder: Path, job: _Job, progress: _Progress) -> _Found:
    """Everything about one model; it is loaded here and let go, so that one is in memory at a time."""
    from openhearth.evaluate import bits_per_byte, functions, samples
    from openhearth.model.hf import load_model

    model = load_model(folder)
    read = 0

    def scored(done: int, total: int) -> None:
        nonlocal read
        progress.add(done - read, doing=f"bits per byte, {name}")
        read = done

    def answered(count: int) -> None:
        progress.add(WRITING_WEIGHT * job.written * count / len(job.tasks), doing=f"functions, {name}")

    nats = bits_per_byte.nats(model, job.heldout.ids, job.tokenizer.bos, job.window, job.stride, scored, job.heldout.uris)
    written = {}
    if job.tasks:
        written[name if name == "sft" else "base_chat_prompt"] = functions.written_in_chat(
            model, job.tokenizer, job.tasks, job.sampling, answered
        )
        if name == "base":
            written["base"] = functions.written_as_code(model, job.tokenizer, job.tasks, job.sampling, answered)
    if name == "sft":
        shown = samples.ask(model, job.tokenizer, job.questions, job.sampling)
    else:
        shown = samples.go_on(model, job.tokenizer, job.openings, job.sampling)
    return _Found(nats, written, shown, model.config)


def _json(estimates: dict[str, Any]) -> dict[str, Any]:
    return {name: dataclasses.asdict(estimate) for name, estimate in estimates.items()}


def _bits_per_byte(job: _Job, found: dict[str, _Found]) -> dict[str, Any]:
    from openhearth.evaluate.bits_per_byte import bits_per_byte

    heldout = job.heldout
    sizes = [len(text) for text in heldout.texts]
    nats = {name: one.nats for name, one in found.items()} | {"sft_minus_base": found["sft"].nats - found["base"].nats}
    return _json({name: bits_per_byte(value, sizes, heldout.units, job.seed) for name, value in nats.items()}) | {
        "documents": heldout.documents,
        "bytes": heldout.bytes,
        "tokens": heldout.tokens,
        "window": job.window,
        "stride": job.stride,
        "interval_over": heldout.unit,
        "heldout_documents": heldout.available_documents,
        "heldout_bytes": heldout.available_bytes,
    }


def _parses(job: _Job, found: dict[str, _Found]) -> dict[str, Any] | None:
    from openhearth.evaluate import functions

    if not job.tasks:
        return None
    written = found["base"].written | found["sft"].written
    shares = {name: functions.share(written[name]) for name in ("base", "sft", "base_chat_prompt")}
    return shares | {"how": functions.how(job.tasks, job.sampling)}


def _transcript(job: _Job, found: dict[str, _Found]) -> list[dict[str, Any]]:
    """Every function that was asked for, what was written, and how it was judged."""
    written = found["base"].written | found["sft"].written
    return [
        {"name": task.name, "question": task.question, "reference": task.reference}
        | {
            name: {"source": all_of[number].source, "parses": all_of[number].parses, "named": all_of[number].named}
            for name, all_of in sorted(written.items())
        }
        for number, task in enumerate(job.tasks)
    ]


def _tell(tell: Tell, job: _Job, found: dict[str, _Found], evaluation: dict[str, Any]) -> None:
    figures, parses = evaluation["bits_per_byte"], evaluation["parses"]
    tokens = flops = 0
    for one in found.values():
        used = job.read + sum(writing.tokens for all_of in one.written.values() for writing in all_of)
        tokens += used
        flops += used * one.config.flops_per_token(job.window) // 3  # the forward third of the training convention
    tell.record(
        bits_per_byte={name: figures[name]["value"] for name in ("base", "sft")},
        baselines={name: one["value"] for name, one in figures["baselines"].items()},
        parses=None if parses is None else {name: parses[name]["share"] for name in ("base", "sft")},
        documents=figures["documents"],
        bytes=figures["bytes"],
        tokens=tokens,
        flops=flops,
    )
