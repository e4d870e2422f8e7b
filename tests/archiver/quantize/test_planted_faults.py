"""Faults that readers and writers of quantized weights really make, planted one at a time in tinychat: each must exceed the budget.

The checkpoint is bitsandbytes' NF4: two weights a byte, and in each block of 64 weights of a row a scale, ``absmax``.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from archiver.quantize.budget import exceeded, parse_budget
from archiver.quantize.quality.evaluation import Evaluation, choose_evaluation
from archiver.quantize.quality.measure import measure_quality
from archiver.quantize.receipt import Quality
from archiver.quantize.request import QuantizeRequest

TINYCHAT = Path(__file__).resolve().parents[3] / "examples" / "tinychat" / "model"
BUDGET = parse_budget("kl=0.05,ppl=1.05,top1=0.95,layer=0.2")
HEADS, HIDDEN = 4, 256

Tensors = dict[str, torch.Tensor]
Measure = Callable[[Path], Quality]


@pytest.fixture(scope="module")
def nf4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return tinychat as bitsandbytes quantizes it."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    directory = tmp_path_factory.mktemp("nf4")
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
    AutoModelForCausalLM.from_pretrained(TINYCHAT, quantization_config=config, device_map="cpu").save_pretrained(directory)
    for file in TINYCHAT.glob("*token*"):
        shutil.copy(file, directory)
    return directory


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    """Return a part, for speed, of what quality is measured on by default."""
    whole = choose_evaluation(QuantizeRequest(str(TINYCHAT), ("nf4",)), TINYCHAT)
    return replace(whole, texts=whole.texts[:16], prompts=whole.prompts[:2])


@pytest.fixture(scope="module")
def measure(evaluation: Evaluation) -> Measure:
    """Return what compares a checkpoint with tinychat."""
    return lambda directory: measure_quality(TINYCHAT, directory, evaluation, lambda *progress: None)


def replant(checkpoint: Path, out: Path, fault: Callable[[Tensors], None]) -> Path:
    shutil.copytree(checkpoint, out)
    file = out / "model.safetensors"
    with safe_open(file, "pt") as stored:
        tensors, metadata = {name: stored.get_tensor(name).clone() for name in stored.keys()}, stored.metadata()  # noqa: SIM118
    fault(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file, metadata)
    return out


def rows(tensors: Tensors, layer: str) -> torch.Tensor:
    """Return a view ``(outputs, bytes of a row)`` of a layer's codes."""
    codes = tensors[f"model.layers.{layer}.weight"]
    return codes.view(HIDDEN, -1)


def bad_scale_of_a_matrix(tensors: Tensors) -> None:
    """Too little for this model's predictions: it is the weights that give it away."""
    tensors["model.layers.2.mlp.down_proj.weight.absmax"] *= 2


def bad_scale_of_a_block(tensors: Tensors) -> None:
    tensors["model.layers.2.self_attn.o_proj.weight.absmax"][3] *= 100


def rotary_rows_in_the_other_order(tensors: Tensors) -> None:
    """llama.cpp keeps the rows of q and k in pairs, transformers in halves."""
    codes = rows(tensors, "1.self_attn.q_proj")
    scales = tensors["model.layers.1.self_attn.q_proj.weight.absmax"].view(HIDDEN, -1)
    for part in (codes, scales):
        part.copy_(part.view(HEADS, 2, HIDDEN // HEADS // 2, -1).transpose(1, 2).reshape(part.shape).clone())


def inputs_in_the_order_of_activations(tensors: Tensors) -> None:
    """GPTQ's activation order, forgotten when it is read; a byte at a time."""
    codes = rows(tensors, "3.self_attn.o_proj")
    codes.copy_(codes[:, torch.randperm(codes.shape[1], generator=torch.Generator().manual_seed(0))].clone())


def swapped_layers(tensors: Tensors) -> None:
    for name in [name for name in tensors if name.startswith("model.layers.1.")]:
        other = name.replace("layers.1.", "layers.3.")
        tensors[name], tensors[other] = tensors[other], tensors[name]


def a_scale_that_is_no_number(tensors: Tensors) -> None:
    tensors["model.layers.4.mlp.up_proj.weight.absmax"][0] = torch.nan


def test_the_checkpoint_without_a_fault_keeps_to_the_budget(nf4: Path, measure: Measure) -> None:
    quality = measure(nf4)
    assert exceeded(BUDGET, quality) == ()
    assert quality.kl > 0
    assert 0.05 < quality.worst_error < 0.15


@pytest.mark.parametrize(
    ("fault", "limits"),
    [
        (bad_scale_of_a_matrix, {"layer"}),
        (bad_scale_of_a_block, {"kl", "layer"}),
        (rotary_rows_in_the_other_order, {"kl", "layer"}),
        (inputs_in_the_order_of_activations, {"kl", "layer"}),
        (swapped_layers, {"kl", "ppl", "top1", "layer"}),
    ],
)
def test_each_fault_exceeds_the_budget(
    nf4: Path, measure: Measure, tmp_path: Path, fault: Callable[[Tensors], None], limits: set[str]
) -> None:
    quality = measure(replant(nf4, tmp_path / "faulty", fault))
    assert limits <= {sentence.partition(":")[0] for sentence in exceeded(BUDGET, quality)}


def test_a_scale_that_is_no_number_fails_without_any_budget(nf4: Path, measure: Measure, tmp_path: Path) -> None:
    quality = measure(replant(nf4, tmp_path / "faulty", a_scale_that_is_no_number))
    assert quality.num_broken == quality.num_tokens
    assert "are not finite numbers" in exceeded({}, quality)[0]
