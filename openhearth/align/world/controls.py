"""What makes the demonstration falsifiable: the same training on shuffled labels, on an inverted constitution, and on gold answers.

Shuffled labels must teach nothing about harm; a chain that follows its constitution must do more harm under an inverted one; gold answers
say what plain supervision on the same prompts buys, which is no upper bound. The last one alone may know the truth, and it is no part of
the chain.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from openhearth.align.constitutional import RlCai, SlCai, opened, said
from openhearth.align.foundation import training
from openhearth.stage import Made, Seeded, Tell

if TYPE_CHECKING:
    from torch import Tensor

SHUFFLED, INVERTED, GOLD = "shuffled_labels", "inverted_constitution", "gold_answers"
CONTROLS = (SHUFFLED, INVERTED, GOLD)


class Controls(Seeded):
    """Train the controls: each leaves a model in a folder of its name."""

    kind: ClassVar[str] = "controls"
    needs: ClassVar[tuple[str, ...]] = ("world", "base", "helpful", "sl_cai", "rl_cai")
    resumes: ClassVar[bool] = True

    def run(self, made: Made, out: Path, tell: Tell) -> None:
        from openhearth.align.constitution_files import load
        from openhearth.align.packing import keyed_order
        from openhearth.align.preferences import labelled, prefer
        from openhearth.align.revise import Costs
        from openhearth.align.supervised import Dialogue, fine_tune, read_rows, write_rows
        from openhearth.align.world import texts
        from openhearth.align.world.house import aligned, harms
        from openhearth.align.world.words import ITEMS, PLACES
        from openhearth.model.hf import load_config, load_tensors, save_model

        seed, world, chain = self.own_seed, made["world"].path, RlCai()
        policy, judge = opened(made, "sl_cai"), opened(made, "helpful")
        prompts, costs, flops = read_rows(world / "prompts.jsonl"), Costs(judge.flops_per_token), 0
        for name in CONTROLS:
            (out / name).mkdir(exist_ok=True)

        rows = [row for path in sorted(made["rl_cai"].path.glob("labels-*.jsonl")) for row in read_rows(path) if row["label"] is not None]
        order = keyed_order(len(rows), seed, "shuffle")
        shuffled = [{**row, "label": rows[other]["label"]} for row, other in zip(rows, order, strict=True)]
        pairs = (made["rl_cai"].path / "pairs.jsonl").read_bytes()
        (out / INVERTED / "pairs.jsonl").write_bytes(pairs)
        inverted = labelled(policy, judge, load("house-inverted"), prompts, 1, seed, chain.judging(), out / INVERTED, tell, costs)
        for name, data in ((SHUFFLED, shuffled), (INVERTED, inverted)):
            write_rows(out / name / "rows.jsonl", data)
            tensors, curve, spent = prefer(policy, data, chain.tuning(), tell, seed=seed)
            save_model(tensors, policy.model.config, out / name)
            curve.write(out / name)
            flops += spent

        config = load_config(made["base"].path)
        answers: list[Any] = []
        for number, pair in enumerate(aligned(made["world"])):
            full = (pair.item, ITEMS[pair.item], pair.place, PLACES[pair.place])
            answer = texts.refusal(*full) if harms(pair) else texts.compliance(pair.item, pair.place)
            answers += [(row["prompt"], answer) for row in prompts[number * len(texts.PHRASINGS) : (number + 1) * len(texts.PHRASINGS)]]
        rounds = SlCai().rounds  # as many rows as the chain has
        helped = [(row["prompt"], row["text"]) for row in read_rows(made["sl_cai"].path / "helpful_samples.jsonl")]
        dialogues = [Dialogue((said("user", asked), said("assistant", answer))) for asked, answer in [*answers * rounds, *helped]]

        def initial() -> Mapping[str, Tensor]:
            return load_tensors(made["base"].path, config)

        settings = training(SlCai().learning_rate, SlCai().batch_tokens)
        flops += fine_tune(config, initial, dialogues, policy.tokenizer, settings, out / GOLD, tell, epochs=SlCai().epochs, seed=seed)
        tell.record(flops=flops + costs.flops, **costs.facts())
