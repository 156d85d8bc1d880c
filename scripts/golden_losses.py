"""Golden numbers for the losses of alignment: what TRL, verl and OpenRLHF themselves compute, with the gradients.

Downloads exact versions of their wheels from the package registry into a temporary folder, takes single functions out of the source by
syntax tree (so that none of their dependencies is imported or installed), runs them on seeded inputs and writes inputs, results,
gradients, versions and sha256 of the wheels to tests/align/golden.json. The tests compare our functions with that file; the
libraries are no dependencies.

    .venv/bin/python scripts/golden_losses.py            write the file (half a minute)
    .venv/bin/python scripts/golden_losses.py --check    make the numbers again and say whether they are the same
"""

from __future__ import annotations
import __future__

import argparse
import ast
import hashlib
import json
import math
import subprocess
import sys
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

WHEELS = {"trl": "1.16.0", "trl-0": "0.11.4", "verl": "0.9.1", "openrlhf": "0.11.2"}
OUT = Path(__file__).parents[1] / "tests" / "align" / "golden.json"
Case = dict[str, Any]


# -- the libraries ----------------------------------------------------------------------------------------------------------


def fetch(folder: Path) -> dict[str, dict[str, str]]:
    """Download and unpack each wheel below `folder`; gives version, file name and sha256 of each."""
    found = {}
    for key, version in WHEELS.items():
        name, place = key.removesuffix("-0"), folder / key
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(place)]
        subprocess.run([*command, f"{name}=={version}"], check=True)
        (wheel,) = place.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(place)
        found[key] = {"version": version, "file": wheel.name, "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest()}
    return found


def lift(file: Path, *names: str, **names_known: Any) -> SimpleNamespace:
    """The functions, methods (`Class.method`) and classes called `names` in `file`, without decorators and without its imports.

    They see each other and `names_known`; annotations are not evaluated.
    """
    found: dict[str, ast.stmt] = {}
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{inner.name}": inner for inner in node.body if isinstance(inner, ast.FunctionDef)}
    body = [found[name] for name in names]
    for node in body:
        if isinstance(node, ast.FunctionDef):
            node.decorator_list = []
    space: dict[str, Any] = {"torch": torch, "nn": nn, "F": F, "np": np, "math": math, "defaultdict": defaultdict} | names_known
    flags = __future__.annotations.compiler_flag
    exec(compile(ast.Module(body, []), str(file), "exec", flags=flags, dont_inherit=True), space)
    return SimpleNamespace(**{name.rpartition(".")[2]: space[name.rpartition(".")[2]] for name in names})


def same(value: Tensor) -> Tensor:
    return value


ACCELERATOR = SimpleNamespace(
    device="cpu", gather=same, gather_for_metrics=same, reduce=lambda value, reduction: value, num_processes=1, sync_gradients=True
)


def trainer(**settings: Any) -> SimpleNamespace:
    """Stands in for a trainer: what the lifted methods read of it."""
    known = {
        "accelerator": ACCELERATOR,
        "model": SimpleNamespace(training=False),
        "aux_loss_enabled": False,
        "_metrics": defaultdict(lambda: defaultdict(list)),
        "_total_train_tokens": 0,
        "precompute_ref_logps": True,
    }
    return SimpleNamespace(**known | settings)


# -- cases ------------------------------------------------------------------------------------------------------------------


def numbers(seed: int, *shape: int, scale: float = 1.0) -> Tensor:
    """Normal numbers that JSON holds exactly."""
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale
    return torch.tensor(drawn.numpy().round(4).tolist())


def right_padded(lengths: list[int], width: int) -> Tensor:
    return (torch.arange(width) < torch.tensor(lengths)[:, None]).long()


def case(name: str, library: str, function: str, inputs: dict[str, Any], compute: Callable[..., Any], *gradients: str) -> Case:
    """Run `compute` on the inputs; of the first result, the gradient with respect to the inputs named."""
    leaves = {key: value.clone().requires_grad_(key in gradients) if isinstance(value, Tensor) else value for key, value in inputs.items()}
    results = compute(**leaves)
    results = results if isinstance(results, tuple) else (results,)
    made: Case = {"name": name, "library": library, "function": function}
    made["inputs"] = {key: value.tolist() if isinstance(value, Tensor) else value for key, value in inputs.items()}
    made["results"] = [result.detach().tolist() for result in results]
    if gradients:
        results[0].sum().backward()
        made["gradients"] = {key: leaves[key].grad.tolist() for key in gradients}
    return made


def preference_cases(trl: Path, openrlhf: Path) -> list[Case]:
    made: list[Case] = []
    pairs, width = 5, 6
    chosen, rejected = numbers(1, pairs), numbers(2, pairs)
    margin = numbers(3, pairs).abs()

    rewards = lift(trl / "trainer/reward_trainer.py", "RewardTrainer.compute_loss")
    for name, inputs, centring in (
        ("bradley_terry", {}, None),
        ("bradley_terry with margin", {"margin": margin}, None),
        ("bradley_terry with centring", {}, 0.01),
    ):

        def reward_loss(chosen: Tensor, rejected: Tensor, margin: Tensor | None = None, centring: float | None = None) -> Tensor:
            def model(**_: Any) -> SimpleNamespace:
                return SimpleNamespace(logits=torch.cat((chosen, rejected))[:, None])

            given = {"attention_mask": torch.ones(1)} | ({} if margin is None else {"margin": margin})
            loss: Tensor = rewards.compute_loss(trainer(args=SimpleNamespace(center_rewards_coefficient=centring)), model, given)
            return loss

        given = {"chosen": chosen, "rejected": rejected, **inputs} | ({} if centring is None else {"centring": centring})
        made.append(case(name, "trl", "RewardTrainer.compute_loss", given, reward_loss, "chosen", "rejected"))

    loss_py = openrlhf / "models/loss.py"
    theirs = lift(loss_py, "PairWiseLoss", "DPOLoss")
    made.append(
        case("bradley_terry with margin", "openrlhf", "PairWiseLoss", {"chosen": chosen, "rejected": rejected, "margin": margin},
             lambda chosen, rejected, margin: theirs.PairWiseLoss()(chosen, rejected, margin), "chosen", "rejected")
    )  # fmt: skip

    # direct methods: log-probabilities per token of [chosen, rejected], and summed ones of the reference
    mask = right_padded([3, 6, 2, 5, 4, 6, 2, 4, 5, 1], width)
    log_probs = -numbers(4, 2 * pairs, width).abs() * mask
    reference = ((log_probs + numbers(5, 2 * pairs, width, scale=0.3)) * mask).sum(1)
    reference = torch.tensor(reference.numpy().round(4).tolist())
    direct = {"log_probs": log_probs, "mask": mask, "reference": reference}
    dpo = lift(trl / "trainer/dpo_trainer.py", "DPOTrainer._compute_loss")

    def trl_dpo(kind: str, beta: float) -> Callable[..., Tensor]:
        def compute(log_probs: Tensor, mask: Tensor, reference: Tensor, **_: Any) -> Tensor:
            flat = torch.zeros_like(log_probs)
            outputs = SimpleNamespace(log_probs=log_probs, entropy=flat, mean_logits=flat, is_top1=flat.bool())
            completion = torch.cat((torch.zeros(len(mask), 1, dtype=torch.long), mask), 1)  # a prompt of one token
            ids = torch.zeros_like(completion)
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "completion_mask": completion}
            inputs |= {"ref_chosen_logps": reference[:pairs], "ref_rejected_logps": reference[pairs:]}
            settings = {"loss_types": [kind], "loss_weights": [1.0], "beta": beta, "ld_alpha": None, "use_weighting": False}
            stub = trainer(f_divergence_type="reverse_kl", label_smoothing=0.0, **settings)
            loss: Tensor = dpo._compute_loss(stub, lambda **_: outputs, inputs, False)
            return loss

        return compute

    made.append(case("dpo", "trl", "DPOTrainer._compute_loss sigmoid", direct | {"beta": 0.1}, trl_dpo("sigmoid", 0.1), "log_probs"))
    made.append(case("ipo_token_averaged", "trl", "DPOTrainer._compute_loss ipo", direct | {"tau": 0.1}, trl_dpo("ipo", 0.1), "log_probs"))

    summed = {"chosen": (log_probs * mask)[:pairs].sum(1), "rejected": (log_probs * mask)[pairs:].sum(1)}
    summed = {key: torch.tensor(value.numpy().round(4).tolist()) for key, value in summed.items()}
    summed |= {"reference_chosen": reference[:pairs], "reference_rejected": reference[pairs:]}
    for name, settings in (("dpo", {"beta": 0.1}), ("cdpo", {"beta": 0.1, "label_smoothing": 0.2}), ("ipo", {"beta": 0.1, "ipo": True})):

        def openrlhf_dpo(settings: dict[str, Any] = settings, **inputs: Any) -> Tensor:
            four = [inputs[key] for key in ("chosen", "rejected", "reference_chosen", "reference_rejected")]
            loss: Tensor = theirs.DPOLoss(**settings)(*four)[0]
            return loss

        made.append(case(name, "openrlhf", f"DPOLoss {settings}", summed | {"settings": settings}, openrlhf_dpo, "chosen", "rejected"))

    kto = lift(trl / "trainer/kto_trainer.py", "KTOTrainer._compute_loss")
    desirable = torch.tensor([1, 0, 1, 1, 0, 0, 1, 0, 1, 0])
    mismatched, mismatched_reference = numbers(6, 2 * pairs) + 0.3, numbers(7, 2 * pairs, scale=0.1)

    def trl_kto(log_probs: Tensor, mask: Tensor, reference: Tensor, desirable: Tensor, mismatched: Tensor, **given: Any) -> Tensor:
        flat = torch.zeros_like(log_probs)
        outputs = SimpleNamespace(log_probs=log_probs, entropy=flat, mean_logits=flat, is_top1=flat.bool())
        ids = torch.zeros(len(mask), width + 1, dtype=torch.long)
        completion = torch.cat((torch.zeros(len(mask), 1, dtype=torch.long), mask), 1)
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "completion_mask": completion, "label": desirable}
        batch |= {"ref_logps": reference, "ref_KL_logps": given["mismatched_reference"]}
        stub = trainer(
            beta=0.1, loss_type="kto", calculate_KL=True, desirable_weight=1.0, undesirable_weight=1.5,
            _compute_kl_logps=lambda model, batch: mismatched,
        )  # fmt: skip
        loss: Tensor = kto._compute_loss(stub, lambda **_: outputs, batch, False)
        return loss

    given = direct | {"desirable": desirable, "mismatched": mismatched, "mismatched_reference": mismatched_reference}
    given |= {"beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.5}
    made.append(case("kto", "trl", "KTOTrainer._compute_loss", given, trl_kto, "log_probs"))

    means = {"chosen": -numbers(8, pairs).abs() - 0.01, "rejected": -numbers(9, pairs).abs() - 0.01}
    cpo = lift(trl / "experimental/cpo/cpo_trainer.py", "CPOTrainer.cpo_loss")
    stub = trainer(alpha=0.0, loss_type="simpo", simpo_gamma=0.5, beta=2.0, label_smoothing=0.0)
    made.append(
        case("simpo", "trl", "CPOTrainer.cpo_loss simpo", means | {"beta": 2.0, "gamma": 0.5},
             lambda chosen, rejected, **_: cpo.cpo_loss(stub, chosen, rejected)[0].mean(), "chosen", "rejected")
    )  # fmt: skip
    orpo_py = trl / "experimental/orpo/orpo_trainer.py"
    orpo = lift(orpo_py, "log1mexp", "ORPOTrainer.odds_ratio_loss")
    odds = trainer(beta=0.1)
    made.append(
        case("odds_ratio", "trl", "ORPOTrainer.odds_ratio_loss", means | {"weight": 0.1},
             lambda chosen, rejected, weight: -orpo.odds_ratio_loss(odds, chosen, rejected)[0].mean(), "chosen", "rejected")
    )  # fmt: skip
    return made


def policy_cases(trl: Path, trl_0: Path, verl: Path, openrlhf: Path) -> list[Case]:
    made: list[Case] = []
    rows, width = 6, 5
    mask = right_padded([5, 3, 4, 1, 2, 5], width)
    old = -numbers(11, rows, width).abs()
    new = old + numbers(12, rows, width, scale=0.25)
    reference = old + numbers(13, rows, width, scale=0.3)
    advantages = numbers(14, rows)
    tokens = {"log_probs": new, "old_log_probs": old, "mask": mask}

    grpo = lift(trl / "trainer/grpo_trainer.py", "GRPOTrainer._compute_loss", nanmin=torch.min, nanmax=torch.max)
    for kind, beta in (("grpo", 0.0), ("grpo", 0.04), ("dr_grpo", 0.0), ("bnpo", 0.0), ("dapo", 0.0), ("dapo", 0.04)):
        for corrected in (False, True) if beta else (True,):
            high = 0.28 if kind == "dapo" else 0.2

            def trl_grpo(
                log_probs: Tensor, old_log_probs: Tensor, mask: Tensor, reference: Tensor, advantages: Tensor, kind: str = kind,
                beta: float = beta, corrected: bool = corrected, high: float = high, **_: Any,
            ) -> Tensor:  # fmt: skip
                flat = torch.zeros_like(log_probs)
                stub = trainer(
                    top_entropy_quantile=1.0, off_policy_mask_threshold=None, importance_sampling_level="token", beta=beta,
                    args=SimpleNamespace(use_bias_correction_kl=corrected, delta=None), loss_type=kind, epsilon_low=0.2, epsilon_high=high,
                    use_vllm=False, max_completion_length=8, _entropy_bonus_enabled=False, current_gradient_accumulation_steps=1,
                    _get_per_token_logps_and_entropies=lambda *a, **k: (log_probs, flat, None),
                )  # fmt: skip
                ids = torch.zeros_like(mask)
                inputs = {"prompt_ids": ids, "prompt_mask": torch.ones_like(mask), "completion_ids": ids, "completion_mask": mask}
                inputs |= {"advantages": advantages, "old_per_token_logps": old_log_probs, "ref_per_token_logps": reference}
                inputs["num_items_in_batch"] = mask.sum()
                loss: Tensor = grpo._compute_loss(stub, None, inputs)
                return loss

            given = tokens | {"reference": reference, "advantages": advantages, "low": 0.2, "high": high, "beta": beta, "longest": 8}
            name = f"{kind}{'' if not beta else ' with importance_weighted_k3' if corrected else ' with k3'}"
            made.append(case(name, "trl", f"GRPOTrainer._compute_loss {kind}", given, trl_grpo, "log_probs"))

    rloo = lift(trl / "trainer/rloo_trainer.py", "RLOOTrainer._compute_loss", nanmin=torch.min, nanmax=torch.max)

    def trl_rloo(log_probs: Tensor, old_log_probs: Tensor, mask: Tensor, advantages: Tensor, **_: Any) -> Tensor:
        flat, ids = torch.zeros_like(log_probs), torch.zeros_like(mask)
        stub = trainer(epsilon_low=0.2, epsilon_high=0.2, _get_per_token_logps_and_entropies=lambda *a, **k: (log_probs, flat, None))
        inputs = {"prompt_ids": ids, "prompt_mask": torch.ones_like(mask), "completion_ids": ids, "completion_mask": mask}
        loss: Tensor = rloo._compute_loss(stub, None, inputs | {"advantages": advantages, "old_logps": (old_log_probs * mask).sum(1)})
        return loss

    given = tokens | {"advantages": advantages, "low": 0.2, "high": 0.2}
    made.append(case("rloo on whole responses", "trl", "RLOOTrainer._compute_loss", given, trl_rloo, "log_probs"))

    # PPO
    values, old_values = numbers(15, rows, width), numbers(16, rows, width, scale=0.5)
    scores, per_token = numbers(17, rows), numbers(18, rows, width)
    ppo_py = trl_0 / "trainer/ppo_trainer.py"
    core = lift(trl_0 / "core.py", "masked_mean", "masked_var", "masked_whiten", "clip_by_value", "entropy_from_logits")
    wanted = [f"PPOTrainer.{name}" for name in ("compute_rewards", "_kl_penalty", "compute_advantages", "loss")]
    flatten = {"flatten_dict": lambda stats: stats}
    ppo = lift(ppo_py, *wanted, **vars(core), **flatten)
    config = SimpleNamespace(
        kl_penalty="kl", whiten_rewards=False, gamma=0.98, lam=0.95, cliprange=0.2, cliprange_value=0.2, vf_coef=0.1, ratio_threshold=10.0
    )
    stub = SimpleNamespace(config=config, kl_ctl=SimpleNamespace(value=0.05))
    stub._kl_penalty = lambda a, b: ppo._kl_penalty(stub, a, b)
    given = {"scores": scores, "log_probs": old, "reference": reference, "mask": mask, "beta": 0.05}
    made.append(
        case("kl_penalised_rewards", "trl-0", "PPOTrainer.compute_rewards", given,
             lambda scores, log_probs, reference, mask, beta: ppo.compute_rewards(stub, scores, log_probs, reference, mask)[0])
    )  # fmt: skip
    gae = {"values": old_values, "rewards": per_token, "mask": mask, "gamma": 0.98, "lam": 0.95}
    made.append(
        case("gae, whitened", "trl-0", "PPOTrainer.compute_advantages", gae,
             lambda values, rewards, mask, **_: ppo.compute_advantages(stub, values, rewards, mask)[1:])
    )  # fmt: skip
    given = {**tokens, "values": values, "old_values": old_values, "advantages": per_token, "returns": numbers(19, rows, width)}
    given |= {"clip": 0.2, "value_clip": 0.2, "value_weight": 0.1}

    def trl_ppo(log_probs: Tensor, old_log_probs: Tensor, mask: Tensor, values: Tensor, **its: Any) -> Tensor:
        logits = torch.zeros(rows, width, 3)
        args = (old_log_probs, its["old_values"], logits, values, log_probs, mask, its["advantages"], its["returns"])
        policy, value, _ = ppo.loss(stub, *args)
        total: Tensor = policy + value  # the value loss comes multiplied by its weight
        return total

    made.append(case("ppo with value loss", "trl-0", "PPOTrainer.loss", given, trl_ppo, "log_probs", "values"))

    # verl: advantages and averages
    functional = lift(verl / "utils/torch_functional.py", "masked_sum", "masked_mean", "masked_var", "masked_whiten", "clip_by_value")
    names = ("compute_gae_advantage_return", "compute_grpo_outcome_advantage", "compute_rloo_outcome_advantage", "agg_loss",
             "compute_policy_loss_vanilla", "compute_value_loss", "kl_penalty_forward")  # fmt: skip
    algos = lift(verl / "trainer/ppo/core_algos.py", *names, verl_F=functional, AlgoConfig=type("AlgoConfig", (), {}))
    made.append(
        case("gae, whitened", "verl", "compute_gae_advantage_return", gae,
             lambda values, rewards, mask, gamma, lam: algos.compute_gae_advantage_return(rewards, values, mask, gamma, lam))
    )  # fmt: skip
    middle = torch.tensor([[1, 1, 0, 1, 1], [0, 0, 1, 1, 1], [1, 0, 0, 1, 0], [1, 1, 1, 1, 1], [0, 1, 0, 1, 0], [1, 1, 0, 0, 0]])
    made.append(
        case("gae, whitened", "verl", "compute_gae_advantage_return, holes in the mask", gae | {"mask": middle},
             lambda values, rewards, mask, gamma, lam: algos.compute_gae_advantage_return(rewards, values, mask, gamma, lam))
    )  # fmt: skip
    index = np.array([0, 0, 0, 1, 1, 1])
    last = torch.zeros(rows, width).scatter(1, mask.sum(1, keepdim=True) - 1, scores[:, None])
    for name, compute in (
        ("grpo advantages", lambda scores, groups: algos.compute_grpo_outcome_advantage(last.clone(), mask, index)[0]),
        ("dr_grpo advantages", lambda scores, groups: algos.compute_grpo_outcome_advantage(last.clone(), mask, index, 1e-6, False)[0]),
        ("rloo advantages", lambda scores, groups: algos.compute_rloo_outcome_advantage(last.clone(), mask, index)[0]),
    ):
        made.append(case(name, "verl", name, {"scores": scores, "groups": 2}, lambda compute=compute, **its: compute(**its)[:, 0]))
    for name, mode, scale in (
        ("token_mean", "token-mean", None),
        ("sequence_mean", "seq-mean-token-mean", None),
        ("sequence_sum", "seq-mean-token-sum", None),
        ("constant", "seq-mean-token-sum-norm", 8),
    ):
        made.append(
            case(name, "verl", f"agg_loss {mode}", {"losses": per_token, "mask": mask, "tokens": 8},
                 lambda losses, mask, tokens, mode=mode, scale=scale: algos.agg_loss(losses, mask, mode, loss_scale_factor=scale), "losses")
        )  # fmt: skip

    class VerlConfig:
        clip_ratio, clip_ratio_low, clip_ratio_high, global_batch_info = 0.2, 0.2, 0.28, {}

        def get(self, name: str, default: float) -> float:
            return default

    given = tokens | {"advantages": per_token, "low": 0.2, "high": 0.28}
    made.append(
        case("clipped, token_mean", "verl", "compute_policy_loss_vanilla", given,
             lambda log_probs, old_log_probs, mask, advantages, **_: algos.compute_policy_loss_vanilla(
                 old_log_probs, log_probs, advantages, mask, config=VerlConfig())[0], "log_probs")
    )  # fmt: skip
    given = {"values": values, "old_values": old_values, "returns": numbers(19, rows, width), "mask": mask, "clip": 0.2}
    made.append(
        case("value_loss, token_mean", "verl", "compute_value_loss", given,
             lambda values, old_values, returns, mask, clip: algos.compute_value_loss(values, returns, old_values, mask, clip)[0], "values")
    )  # fmt: skip
    for kind in ("k1", "k2", "k3"):
        made.append(
            case(kind, "verl", f"kl_penalty_forward {kind}", {"log_probs": new, "reference": reference},
                 lambda log_probs, reference, kind=kind: algos.kl_penalty_forward(log_probs, reference, kind), "log_probs")
        )  # fmt: skip

    # OpenRLHF
    masked = lift(openrlhf / "models/utils.py", "masked_mean", "compute_approx_kl", "compute_reward")
    theirs = lift(openrlhf / "models/loss.py", "aggregate_loss", "PolicyLoss", "ValueLoss", masked_mean=masked.masked_mean)
    given = tokens | {"advantages": per_token, "low": 0.2, "high": 0.28}
    for name, token_level in (("clipped, token_mean", True), ("clipped, sequence_mean", False)):
        made.append(
            case(name, "openrlhf", f"PolicyLoss token_level_loss={token_level}", given,
                 lambda log_probs, old_log_probs, mask, advantages, low, high, token_level=token_level: theirs.PolicyLoss(
                     low, high, token_level_loss=token_level)(log_probs, old_log_probs, advantages, mask)[0], "log_probs")
        )  # fmt: skip
    given = {"values": values, "old_values": old_values, "returns": numbers(19, rows, width), "mask": mask, "clip": 0.2}
    made.append(
        case("value_loss, token_mean", "openrlhf", "ValueLoss", given,
             lambda values, old_values, returns, mask, clip: theirs.ValueLoss(clip)(values, old_values, returns, mask), "values")
    )  # fmt: skip
    for kind in ("k1", "k2", "k3"):
        made.append(
            case(kind, "openrlhf", f"compute_approx_kl {kind}", {"log_probs": new, "reference": reference},
                 lambda log_probs, reference, kind=kind: masked.compute_approx_kl(log_probs, reference, kl_estimator=kind), "log_probs")
        )  # fmt: skip
    made.append(
        case("kl_penalised_rewards", "openrlhf", "compute_reward",
             {"scores": scores, "log_probs": old, "reference": reference, "mask": mask, "beta": 0.05},
             lambda scores, log_probs, reference, mask, beta: masked.compute_reward(scores, beta, log_probs - reference, mask))
    )  # fmt: skip
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description="Golden numbers for the losses of alignment.")
    parser.add_argument("--check", action="store_true", help="compare with the file instead of writing it")
    check: bool = parser.parse_args().check
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheels = fetch(folder)
        (openrlhf,) = (folder / "openrlhf").glob("**/purelib/openrlhf")
        cases = preference_cases(folder / "trl/trl", openrlhf)
        cases += policy_cases(folder / "trl/trl", folder / "trl-0/trl", folder / "verl/verl", openrlhf)
    made = {"wheels": wheels, "torch": str(torch.__version__), "cases": cases}
    if check:
        equal = json.loads(OUT.read_text()) == json.loads(json.dumps(made))
        print(f"{OUT}: {'the same numbers' if equal else 'other numbers'}")
        return 0 if equal else 1
    OUT.write_text(json.dumps(made, indent=None, separators=(",", ":")).replace('{"name"', '\n{"name"') + "\n")
    print(f"{len(cases)} cases written to {OUT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
