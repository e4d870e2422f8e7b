"""What a machine cannot run is refused with what it takes, what there is, and what would work."""

from __future__ import annotations

import pytest

from handlers.errors import ConfigError
from handlers.quant import formats
from handlers.quant.formats import FORMATS, LOAD_RECIPES, PLAIN, Format
from handlers.quant.machine import Gpu, Machine
from handlers.quant.preflight import check_recipe, check_weights, identify, lacking, nearest
from handlers.quant.quantization_config import StoredQuantization

EVERYTHING = {package: "1.0" for row in FORMATS for route in (row.cpu, row.cuda) if route for package in route.packages}
CPU = Machine(packages=EVERYTHING)
P100, T4, A100, H100 = (
    Machine((Gpu(name, capability, 1 << 34),), EVERYTHING)
    for name, capability in (("Tesla P100", (6, 0)), ("Tesla T4", (7, 5)), ("A100", (8, 0)), ("H100", (9, 0)))
)


def refusal(row: Format, machine: Machine) -> str:
    with pytest.raises(ConfigError) as error:
        check_weights(row, machine)
    return str(error.value)


def test_a_gpu_that_is_too_old_is_told_the_capability_and_the_nearest_format() -> None:
    message = refusal(formats.CT_FP8, A100)
    assert "weights are compressed-tensors FP8, which needs a GPU of compute capability 8.9 or newer" in message
    assert "this machine has A100 (compute capability 8.0)" in message
    assert "The nearest format that works here: bitsandbytes int8 (marquee quantize MODEL --recipe int8)" in message
    assert "CUDA_VISIBLE_DEVICES=-1 serves it on the CPU" in message


def test_a_cpu_where_a_gpu_is_needed_is_told_so() -> None:
    message = refusal(formats.MXFP4, CPU)
    assert "weights are mxfp4, which needs a CUDA GPU; this machine has no CUDA GPU" in message
    assert "nearest format that works here: bitsandbytes NF4 (marquee quantize MODEL --recipe nf4)" in message
    assert "CUDA_VISIBLE_DEVICES" not in message


def test_missing_packages_are_named_with_the_command() -> None:
    bare = Machine(H100.gpus)
    assert "needs the packages optimum and gptqmodel (pip install optimum gptqmodel)" in refusal(formats.GPTQ, bare)
    assert "needs the package bitsandbytes (pip install bitsandbytes)" in refusal(formats.NF4, bare)
    assert nearest(formats.GPTQ, bare) is PLAIN


FP8 = {"torchao FP8", "compressed-tensors FP8", "fine-grained FP8", "fbgemm FP8"}


@pytest.mark.parametrize(
    ("machine", "refused"),
    [
        (CPU, {"mxfp4"}),
        (P100, {"bitsandbytes int8", "torchao int4", "GPTQ", "AWQ", "mxfp4"} | FP8),
        (T4, {"torchao int4"} | FP8),
        (A100, FP8),
        (H100, set()),
    ],
    ids=["cpu", "p100", "t4", "a100", "h100"],
)
def test_what_each_kind_of_machine_runs(machine: Machine, refused: set[str]) -> None:
    assert {row.name for row in FORMATS if lacking(row, machine)} == refused | {"HQQ", "quanto"}


def test_the_oldest_of_several_gpus_decides() -> None:
    mixed = Machine((*H100.gpus, *T4.gpus), EVERYTHING)
    assert lacking(formats.CT_FP8, mixed) == "a GPU of compute capability 8.9 or newer"


@pytest.mark.parametrize("recipe", LOAD_RECIPES)
def test_a_cpu_takes_every_recipe_at_load_without_any_package(recipe: str) -> None:
    check_recipe(recipe, Machine())


def test_a_gpu_takes_recipes_at_load_that_its_libraries_run() -> None:
    assert check_recipe("nf4", T4) is formats.NF4
    with pytest.raises(ConfigError, match=r"handler\.quantization\.recipe: fp8 makes torchao FP8, which needs a GPU of compute capab"):
        check_recipe("fp8", T4)


def test_what_no_machine_serves_is_refused_before_a_machine_is_looked_at() -> None:
    with pytest.raises(ConfigError, match="weights are quanto: it cannot be saved"):
        identify(StoredQuantization("quanto", {}))
    with pytest.raises(ConfigError, match=r"not supported \(exl3\); supported are bitsandbytes NF4, .*GPTQ"):
        identify(StoredQuantization("exl3", {}))
    assert identify(None) is PLAIN


def test_a_machine_knows_itself() -> None:
    here = Machine.here()
    assert here.device in ("cpu", "cuda")
    assert set(here.packages) <= set(EVERYTHING)
