"""The stage `outcome`: what reinforcement learning changed, on functions of held-out packages, beside the model that it began with.

Both models are asked the same questions with the same random numbers. A higher share of answers that parse is worth little by itself,
so what it may have cost stands beside it: trivial functions, answers that are all alike, length, divergence, and bits per byte of
held-out text (the alignment tax). Every difference has a 95 % interval over the questions or the documents, paired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from openhearth.ledger import read_json, write_json
from openhearth.stage import Made, Seeded, Tell
from openhearth.train.settings import MOST_HELDOUT_BYTES, MOST_NEW_TOKENS, MOST_PROMPTS

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from openhearth.align.rewards import Answer

MODELS = ("sft", "rl")


class Outcome(Seeded):
    """Measure the policy after reinforcement learning beside the one before it, on held-out text."""

    kind: ClassVar[str] = "outcome"
    needs: ClassVar[tuple[str, ...]] = ("corpus", "tokenizer", "plan", "sft", "rl")

    seed: int | None = Field(default=None, ge=0, lt=2**63)
    """Keys the choice of functions, the answers and the resampling; by default the seed of the recipe."""
    prompts: int = Field(default=64, ge=1, le=MOST_PROMPTS)
    """Held-out functions to ask for at most."""
    max_new_tokens: int = Field(default=128, ge=1, le=MOST_NEW_TOKENS)
    """Tokens of an answer at most."""
    temperature: float = Field(default=1.0, ge=0.0, le=100.0)
    """Of the answers; 1 as in training, 0 is greedy."""
    heldout_bytes: int | None = Field(default=None, ge=1, le=MOST_HELDOUT_BYTES)
    """Bytes of held-out text for bits per byte at most; by default as planned for the evaluation."""

    def run(self, made: Made, out: Path, tell: Tell) -> None:
        """Write `outcome.json` and `answers.json`."""
        import numpy as np

        from openhearth.align.examples import Limits, make_examples, read_documents
        from openhearth.align.policy_training import read_rows
        from openhearth.align.rewards import Answer, parses, parses_with_body
        from openhearth.data.tokenizer import Tokenizer
        from openhearth.errors import HearthError
        from openhearth.evaluate import bits_per_byte, functions, heldout
        from openhearth.model.generate import Sampling
        from openhearth.model.hf import load_model
        from openhearth.train.machine import prepare

        assert self.seed is not None, "resolve() fills in the seed"
        plan = read_json(made["plan"].path / "plan.json")
        prepare(plan["pretrain"]["threads"])
        tokenizer = Tokenizer.load(made["tokenizer"].path)
        documents = read_documents(made["corpus"].path / "documents.parquet")
        enough = Limits(examples=64 + 8 * self.prompts)
        examples = make_examples(documents, "heldout", tokenizer, plan["sft"]["sequence_length"], enough, self.seed).kept
        context = plan["model"]["max_position_embeddings"]
        tasks = functions.tasks(examples, tokenizer, self.prompts, self.max_new_tokens, context)
        if not tasks:
            raise HearthError(f"[outcome] finds no held-out function that fits {self.max_new_tokens:,} tokens: raise max_new_tokens")
        text = heldout.choose(documents, self.heldout_bytes or plan["evaluate"]["heldout_bytes"], tokenizer, self.seed)
        window = min(plan["pretrain"]["sequence_length"], context)
        sampling = Sampling(max_new_tokens=self.max_new_tokens, temperature=self.temperature, seed=self.seed)
        measures = {"parses": parses, "parses_with_body": parses_with_body, "trivial": _trivial, "one_line": _one_line}
        total, done = 2 * (len(tasks) + text.tokens // 64), 0.0

        def add(work: float, doing: str) -> None:
            nonlocal done
            done = min(total, done + work)
            tell.progress(done, total, doing=doing)

        nats, answers = {}, {}
        for name in MODELS:
            model = load_model(made[name].path)
            answered = partial(add, doing=f"functions, {name}")
            written = functions.answers(model, tokenizer, [task.chat_prompt for task in tasks], sampling, answered)
            answers[name] = [
                Answer(task.question, task.name, one.text, task.chat_prompt, one.ids, one.reason == "stop")
                for task, one in zip(tasks, written, strict=True)
            ]
            nats[name] = bits_per_byte.nats(model, text.ids, tokenizer.bos, window, max(1, window // 2), names=text.uris)
            add(text.tokens // 64, f"bits per byte, {name}")
        scores = {name: {key: np.array(measure(answers[name])) for key, measure in measures.items()} for name in MODELS}
        found: dict[str, Any] = {"questions": len(tasks), "temperature": self.temperature}
        for key in measures:
            found[key] = {name: _share(scores[name][key]) for name in MODELS} | {"difference": _paired(scores, key, self.seed)}
        lengths = {name: {"tokens": np.array([float(len(one.ids)) for one in answers[name]])} for name in MODELS}
        found["tokens"] = {name: float(lengths[name]["tokens"].mean()) for name in MODELS}
        found["tokens"]["difference"] = _paired(lengths, "tokens", self.seed)
        found["distinct"] = {name: len({one.text for one in answers[name]}) / len(tasks) for name in MODELS}
        sizes = [len(data) for data in text.texts]
        tax = {name: bits_per_byte.bits_per_byte(nats[name], sizes, text.units, self.seed) for name in MODELS}
        tax["difference"] = bits_per_byte.bits_per_byte(nats["rl"] - nats["sft"], sizes, text.units, self.seed)
        found["bits_per_byte"] = {name: asdict(estimate) for name, estimate in tax.items()}
        rows = read_rows(made["rl"].path / "rollouts.jsonl")
        found["training"] = {name: rows[-1][name] for name in ("kl", "entropy", "reward")} | {"iterations": len(rows)}
        write_json(out / "outcome.json", found)
        transcripts = [
            {"name": task.name, "question": task.question, "reference": task.reference}
            | {name: {"text": answers[name][row].text} | {key: bool(scores[name][key][row]) for key in measures} for name in MODELS}
            for row, task in enumerate(tasks)
        ]
        write_json(out / "answers.json", {"answers": transcripts})
        tell.record(**{key: found[key] for key in ("parses", "parses_with_body", "trivial", "distinct", "bits_per_byte")})
        tell.note(_said(found))


def _trivial(answers: Sequence[Answer]) -> list[float]:
    """1 where the answer parses and every function in it is trivial."""
    from openhearth.align import code
    from openhearth.align.rewards import is_trivial

    defined = [code.defined(answer.text) for answer in answers]
    return [float(bool(nodes) and all(is_trivial(node) for node in nodes)) for nodes in defined]


def _one_line(answers: Sequence[Answer]) -> list[float]:
    """1 where the answer parses and says one statement at most besides its docstring."""
    import ast

    from openhearth.align import code

    return [
        float(any(len(node.body) - (ast.get_docstring(node) is not None) <= 1 for node in code.defined(answer.text))) for answer in answers
    ]


def _share(scores: npt.NDArray[np.float64]) -> dict[str, Any]:
    from openhearth.evaluate.statistics import wilson

    return asdict(wilson(int(scores.sum()), len(scores)))


def _paired(scores: dict[str, dict[str, npt.NDArray[np.float64]]], key: str, seed: int) -> dict[str, Any]:
    """The mean over questions of after less before, with its interval over questions."""
    import numpy as np

    from openhearth.evaluate.statistics import bootstrap_ratio

    return asdict(bootstrap_ratio(scores["rl"][key] - scores["sft"][key], np.ones(len(scores["rl"][key])), seed))


def _said(found: dict[str, Any]) -> str:
    """One line of what changed."""
    share, tax, trivial = found["parses"], found["bits_per_byte"]["difference"], found["trivial"]
    change = share["difference"]
    interval = "" if change["low"] is None else f" ({change['low']:+.1%} to {change['high']:+.1%})"
    return (
        f"functions that parse: {share['sft']['value']:.1%} before, {share['rl']['value']:.1%} after, {change['value']:+.1%}{interval} on "
        f"{found['questions']} held-out functions; trivial {trivial['sft']['value']:.1%} and {trivial['rl']['value']:.1%}; "
        f"bits per byte {tax['value']:+.4f}"
    )
