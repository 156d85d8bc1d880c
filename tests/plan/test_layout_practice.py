"""The layout that is chosen is one that those who know would take: published runs, on their own hardware and batch.

A run's authors had other memory, software and habits (Megatron's tables of 2021 know no ZeRO), so a case gives what may be chosen: of
tensor and of pipeline ranks the published number and those that ZeRO or more memory makes as good.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from openhearth.plan.catalogue import parse
from openhearth.plan.decoders import decoder
from openhearth.plan.layout import Choice, choose
from openhearth.plan.recipes import shared_batch
from openhearth.plan.shapes import Shape

ROOT = Path(__file__).parents[2]
ONE, NODE = (1,), (8,)
# model, hardware, sequence, sequences of a batch; tensor, pipeline, context; what the authors did
CASES = [
    ("llama3-8b", "128xh100", 8192, 256, ONE, ONE, ONE, "torchtitan, llama3_h100_202412: FSDP 128, selective recomputation"),
    ("llama3-8b", "512xh100", 8192, 2560, ONE, ONE, ONE, "the same practice"),
    ("llama3-70b", "256xh100", 8192, 512, (1, 8), ONE, ONE, "torchtitan, asyncTP_llama3_h100_2025-06: FSDP 32 x TP 8; as fast: FSDP 256"),
    ("llama3-405b", "8192xh100", 8192, 2048, NODE, (8, 16), ONE, "Grattafiori et al. 2024, table 4: TP 8, CP 1, PP 16, DP 64"),
    ("llama3-405b", "16384xh100", 8192, 2048, NODE, (8, 16), ONE, "Grattafiori et al. 2024, table 4: TP 8, CP 1, PP 16, DP 128"),
    ("llama3-405b", "16384xh100", 131072, 128, NODE, (8, 16), (16,), "Grattafiori et al. 2024, table 4: TP 8, CP 16, PP 16, DP 8"),
    ("olmo2-7b", "1024xh100", 4096, 1024, ONE, ONE, ONE, "OLMo et al. 2025: sharded data parallelism alone"),
    ("7B", "440xa100-40", 2048, 1760, ONE, ONE, ONE, "MosaicML 2023, MPT-7B: FSDP alone"),
    ("gpt3-175b", "1024xa100-80", 2048, 1536, (4, 8), (4, 8), ONE, "Narayanan et al. 2021, section 5.1: TP 8, PP 8 (without ZeRO)"),
    ("176B", "384xa100-80", 2048, 2048, (4, 8), (4, 6, 12), ONE, "BigScience 2022, BLOOM: TP 4, PP 12, DP 8, ZeRO-1"),
    ("530B", "2240xa100-80", 2048, 1920, NODE, (7, 8, 10, 14, 35), ONE, "Smith et al. 2022, MT-NLG: TP 8, PP 35, DP 8 (without ZeRO)"),
    ("20B", "96xa100-40", 2048, 1536, (2, 4), (1, 2, 4), ONE, "Black et al. 2022, GPT-NeoX-20B: TP 2, PP 4, DP 12, ZeRO-1"),
    ("340B", "6144xh100", 4096, 2304, NODE, (6, 8, 12), ONE, "NVIDIA 2024, Nemotron-4 340B: TP 8, PP 12, DP 64"),
    ("gpt2-124m", "8xa100-40", 1024, 512, ONE, ONE, ONE, "nanoGPT: data parallelism alone"),
]  # fmt: skip


def chosen(name: str, hardware: str, length: int, sequences: int) -> Choice:
    devices, device = parse(hardware)
    shape = decoder(float(name[:-1]) * 1e9) if name.endswith("B") else Shape.load(ROOT / f"recipes/{name}.toml")
    return choose(shape, device, devices, sequence_length=length, batch_tokens=sequences * length, reasons=False)


@pytest.mark.parametrize(("name", "hardware", "length", "sequences", "tensor", "pipeline", "context", "source"), CASES)
def test_what_is_chosen_is_what_the_field_does(
    name: str, hardware: str, length: int, sequences: int, tensor: tuple[int], pipeline: tuple[int], context: tuple[int], source: str
) -> None:
    layout = chosen(name, hardware, length, sequences).layout
    assert layout.tensor in tensor and layout.pipeline in pipeline and layout.context in context, (layout, source)


def test_utilisation_falls_where_each_device_gets_fewer_sequences() -> None:
    """Grattafiori et al. 2024, table 4: twice the devices for the same batch are less well used (43 % to 41 %)."""
    ample, scarce = (chosen("llama3-405b", f"{devices}xh100", 8192, 2048) for devices in (8192, 16384))
    assert scarce.step.utilisation < 0.97 * ample.step.utilisation


def test_a_batch_printed_round_is_one_that_the_devices_share() -> None:
    assert shared_batch(4e6, 2048, 2048, 0.05) == 2048 * 2048  # "4M"
    assert shared_batch(3.2e6, 1024, 2048, 0.05) == 1536 * 2048  # half of the devices share it
    assert shared_batch(1e6, 8, 2048, 0.05) == 488 * 2048
    assert shared_batch(7 * 2048, 4096, 2048, 0.05) == 7 * 2048
    assert shared_batch(100, 8, 2048, 0.05) == 2048
