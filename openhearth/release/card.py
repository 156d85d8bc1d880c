"""The model card: `README.md` with the header that the Hugging Face Hub reads, written from the record and from nothing else.

Every figure in it is read from the ledger, the plan, the evaluation or the table of documents that lie beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openhearth.energy import total_energy
from openhearth.ledger import Json, Ledger, read_json
from openhearth.release import layout


@dataclass(frozen=True)
class DataLicences:
    """The documents of a corpus counted by licence, evidence and split: [licence, evidence, split, documents, bytes]."""

    rows: list[tuple[str, str, str, int, int]]

    @property
    def names(self) -> list[str]:
        """The licences, the one of most bytes first."""
        sizes: dict[str, int] = {}
        for licence, _, _, _, size in self.rows:
            sizes[licence] = sizes.get(licence, 0) + size
        return sorted(sizes, key=lambda name: (-sizes[name], name))

    def totals(self, split: str) -> tuple[int, int]:
        """Documents and bytes of a split."""
        rows = [row for row in self.rows if row[2] == split]
        return sum(row[3] for row in rows), sum(row[4] for row in rows)

    def table(self) -> str:
        """A Markdown table."""
        lines = ["| licence | evidence | split | documents | bytes |", "|---|---|---|---:|---:|"]
        lines += [f"| {_plain(a)} | {_plain(b)} | {c} | {n:,} | {size:,} |" for a, b, c, n, size in self.rows]
        return "\n".join(lines)

    def page(self, *, with_text: bool) -> str:
        """`data/LICENCES.md`."""
        text = (
            "The text of the documents is in `documents.parquet`."
            if with_text
            else "The text itself is not in this release; its digests are."
        )
        return (
            "# Licences of the training text\n\n"
            "The licence of the weights is in `LICENSE`. The documents they were trained on keep their own, listed here with the\n"
            "evidence for each; `documents.parquet` has both for every single document, with its origin and the sha256 of its text.\n"
            f"{text}\n\n{self.table()}\n"
        )


def data_licences(documents: Path) -> DataLicences:
    """Count a table of documents."""
    import pyarrow.parquet as pq

    columns = pq.read_table(documents, columns=["licence", "evidence", "split", "bytes"]).to_pydict()
    counted: dict[tuple[str, str, str], tuple[int, int]] = {}
    for licence, evidence, split, size in zip(columns["licence"], columns["evidence"], columns["split"], columns["bytes"], strict=True):
        key = (str(licence), _kind_of_evidence(str(evidence)), str(split))
        documents_so_far, bytes_so_far = counted.get(key, (0, 0))
        counted[key] = documents_so_far + 1, bytes_so_far + int(size)
    return DataLicences([(*key, *value) for key, value in sorted(counted.items())])


def _kind_of_evidence(evidence: str) -> str:
    return evidence if len(evidence) <= 120 else evidence[:117] + "..."


def _plain(text: str) -> str:
    """A cell of a table: no character of Markdown or HTML acts."""
    return "".join(f"\\{c}" if c in "|<>[]*_`\\" else c if c.isprintable() else " " for c in text)


def _fence(text: str) -> str:
    """Text as a code block that it cannot end, without control characters."""
    shown = "".join(c if c in "\n\t" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    longest = run = 0
    for c in shown:
        run = run + 1 if c == "`" else 0
        longest = max(longest, run)
    marks = "`" * max(3, longest + 1)
    return f"{marks}text\n{shown.rstrip()}\n{marks}"


def _interval(figure: Any) -> str:
    """`1.234 (1.200 to 1.270)`."""
    if not isinstance(figure, dict) or figure.get("value") is None:
        return "not measured"
    low, high = figure.get("low"), figure.get("high")
    return f"{figure['value']:.3f}" + (f" ({low:.3f} to {high:.3f})" if low is not None and high is not None else "")


def card(folder: Path, *, title: str, license: str, licences: DataLicences, with_text: bool) -> str:
    """The card of the release in `folder`, whose record must already be there; `with_text` says whether the training text is too."""
    header = [
        f"license: {license.lower()}",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        "tags:",
        "- openhearth",
        "- qwen3",
        "- text-generation",
        "- reproducible",
    ]
    parts = [
        "---\n" + "\n".join(header) + "\n---",
        f"# {_plain(title)}",
        _opening(folder, with_text),
        "## Use\n\n" + _USE,
        "## How good it is\n\n" + _evaluation(read_json(folder / "evaluations/evaluation.json"), with_text),
        "## What it was made from\n\n" + _data(licences, with_text),
        "## How it was made\n\n" + _making(folder),
        "## Limits\n\n" + _LIMITS,
        "## Check it, make it again\n\n" + (_CHECK if with_text else _CHECK.replace(*_OWN_TEXT)),
    ]
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


_USE = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(".")
tokenizer = AutoTokenizer.from_pretrained(".")
question = [{"role": "user", "content": "Write a Python function that reverses a list."}]
ids = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
print(tokenizer.decode(model.generate(**ids, max_new_tokens=128)[0]))
```

or, with OpenHearth, `hearth chat .` and `hearth generate . "prompt"`."""

_LIMITS = """- It is small and has seen little text. It knows that text and little else; what it says is often wrong.
- Nobody has taught it to refuse anything or to be careful. Do not give it a task in which a wrong answer does harm.
- Code that it writes may parse and still not do what was asked. Read it before you run it.
- It can repeat passages of the text it was trained on; the licences of that text are in `data/LICENCES.md`."""

_CHECK = """```
hearth verify .     every byte is the listed one, the weights are as configured, the record is whole
hearth rebuild .    makes the weights again from the recorded recipe and text, and compares them
hearth openness .   how open it is under each definition, and the file that proves it
```

`MANIFEST.json` lists every file with its sha256; its root digest stands for all of them. Equal bits are promised on the same class
of processor with the same number of threads and the same versions of the packages (`environment.json`); elsewhere the rebuild says
where the first difference is."""


_OWN_TEXT = (
    "hearth rebuild .    makes the weights again from the recorded recipe and text, and compares them",
    "hearth rebuild .    makes the weights again from the recorded recipe and a copy of the same text, and compares them:\n"
    "                    --text PATH..., or the same version of Python where its library is the text",
)
"""Of `_CHECK`, what is said instead where the release does not hold the text."""


def _opening(folder: Path, with_text: bool) -> str:
    config = read_json(folder / layout.CONFIG)
    plan = read_json(folder / layout.PLAN)
    from openhearth.model.config import ModelConfig

    shape = ModelConfig.from_hf(config)
    budget = plan.get("budget_seconds")
    planned = f", planned for a budget of {budget:,.0f} seconds on one machine" if isinstance(budget, int | float) else ""
    here = (
        "Everything it was made from and everything that was measured is in this folder."
        if with_text
        else "The record of its making and everything that was measured is in this\nfolder; the training text is not, only its digests."
    )
    return (
        f"A language model of {shape.parameters / 1e6:.2f} million parameters that was planned, trained, fine-tuned and evaluated by one\n"
        f"OpenHearth recipe{planned}. {here}\n\n"
        f"Layout of Qwen3: {shape.num_layers} layers, width {shape.hidden_size}, {shape.num_heads} heads of {shape.head_dim} "
        f"({shape.num_kv_heads} for keys and values), feed-forward {shape.intermediate_size}, vocabulary {shape.vocab_size:,}, "
        f"context {shape.max_position_embeddings:,} tokens, fp32 weights."
    )


def _evaluation(evaluation: Json, with_text: bool) -> str:
    parts: list[str] = []
    figures = evaluation.get("bits_per_byte") or {}
    if figures:
        lines = ["| on the held-out text | bits per byte (95 % interval) |", "|---|---|"]
        lines += [
            f"| {name} | {_interval(figures[key])} |"
            for key, name in (("sft", "this model"), ("base", "before fine-tuning"))
            if key in figures
        ]
        lines += [f"| {_plain(name)} | {_interval(value)} |" for name, value in (figures.get("baselines") or {}).items()]
        how = (
            f"{figures.get('documents', 0):,} documents, {figures.get('bytes', 0):,} bytes, never trained on in any stage. Lower is better."
        )
        parts += ["\n".join(lines), how]
    if parses := evaluation.get("parses"):
        lines = ["| functions asked for | share that parses (95 % interval) |", "|---|---|"]
        for key, name in (("sft", "this model"), ("base", "before fine-tuning")):
            if isinstance(parses.get(key), dict):
                share = {"value": parses[key].get("share"), **{bound: parses[key].get(bound) for bound in ("low", "high")}}
                lines.append(f"| {name}, {parses[key].get('n', 0)} prompts | {_interval(share)} |")
        parts += ["\n".join(lines), _plain(str(parses.get("how", "")))]
    if not with_text:
        parts.append(
            "The samples and transcripts in `evaluations/` quote passages of the held-out text, functions and their documentation among "
            "them; they are left out of this page only."
        )
    elif samples := evaluation.get("samples"):
        parts.append("### Samples, not chosen by hand")
        for sample in samples[:3]:
            parts += [
                f"**{_plain(str(sample.get('kind', 'prompt')))}**",
                _fence(str(sample.get("prompt", ""))),
                _fence(str(sample.get("answer", ""))),
            ]
    return "\n\n".join(part for part in parts if part) or "It was not evaluated."


def _data(licences: DataLicences, with_text: bool) -> str:
    documents, size = licences.totals("train")
    held, held_size = licences.totals("heldout")
    return (
        f"{documents:,} documents, {size / 1e6:.2f} MB of text to train on; {held:,} documents, {held_size / 1e6:.2f} MB held out. "
        "Each has its origin, licence, the evidence for it and its sha256 in `data/documents.parquet`; what was left out, and by which "
        f"rule, is in `data/drops.parquet`.{'' if with_text else ' The text itself is not in this release.'}\n\n{licences.table()}"
    )


def _making(folder: Path) -> str:
    plan = read_json(folder / layout.PLAN)
    lines = []
    if why := plan.get("why"):
        lines.append("The plan, in its own words (`plan.json`):\n\n" + "\n".join(f"- {_plain(str(sentence))}" for sentence in why))
    if against := _against(plan, layout.stages_in(Ledger(folder / layout.LEDGER).entries())):
        lines.append("Predicted by the plan, and measured:\n\n" + against)
    stages = _stages(folder)
    if stages:
        lines.append("The stages (`ledger.jsonl`):\n\n" + stages)
    return "\n\n".join(lines)


def _against(plan: Json, stages: Json) -> str:
    """Time, loss and energy, predicted and measured, over the stages before the release."""
    predicted = plan.get("predicted") or {}
    made = [stages[kind] for kind in layout.KINDS if kind in stages]
    seconds = sum(entry.get("seconds") or 0.0 for entry in made)
    foreseen = sum(value for kind, value in (predicted.get("seconds") or {}).items() if kind in stages)
    rows = ["| | predicted | measured |", "|---|---:|---:|"]
    rows.append(f"| seconds, corpus to evaluation | {foreseen:,.1f} | {seconds:,.1f} |")
    measured = ((stages.get("evaluate") or {}).get("facts", {}).get("bits_per_byte") or {}).get("base")
    if isinstance(measured, int | float):
        loss = predicted.get("bits_per_byte")
        rows.append(f"| bits per byte before fine-tuning | {_interval(loss) if loss else 'not predicted'} | {measured:.3f} |")
    if (energy := total_energy(made)) is not None and "energy" in predicted:
        joules = predicted["energy"]["joules"] / 3600
        rows.append(f"| energy, Wh; {energy['source']} | {joules:,.2f} | {energy['joules'] / 3600:,.2f} |")
    return "\n".join(rows) if made and predicted else ""


def _stages(folder: Path) -> str:
    rows = ["| stage | seconds | tokens | FLOPs | artifact |", "|---|---:|---:|---:|---|"]
    last = layout.stages_in(Ledger(folder / layout.LEDGER).entries())
    for kind in layout.KINDS:
        if kind not in last:
            continue
        entry = last[kind]
        facts = entry.get("facts") or {}
        tokens, flops, seconds = facts.get("tokens"), facts.get("flops"), entry.get("seconds")
        cells = [
            f"{seconds:,.1f}" if isinstance(seconds, int | float) else "",
            f"{tokens:,}" if isinstance(tokens, int) else "",
            f"{flops:.3g}" if isinstance(flops, int | float) else "",
        ]
        rows.append(f"| {kind} | {' | '.join(cells)} | `{entry['digest'][:16]}` |")
    return "\n".join(rows) if len(rows) > 2 else ""
