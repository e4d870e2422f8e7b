"""Measuring two checkpoints against each other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from archiver.errors import ArchiverError
from archiver.quantize.producer import OnProgress
from archiver.quantize.quality.evaluation import Evaluation
from archiver.quantize.quality.measure import measure_quality
from archiver.quantize.quality.text import Text
from archiver.quantize.receipt import Quality
from tests.checkpoints import make_checkpoint

# Of several lengths, so that batches are filled up.
TEXTS = tuple(Text(tuple((7 * index + 3 * step) % 380 + 5 for step in range(5 + 9 * index)), num_given=1 + index % 3) for index in range(8))
EVALUATION = Evaluation("made up", TEXTS, ((7, 8, 9), (30, 31)))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("measure") / "bot")


@pytest.fixture(scope="module")
def disturbed(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return change(checkpoint, tmp_path_factory.mktemp("measure") / "disturbed", lambda weight: weight.mul_(1.3))


def change(checkpoint: Path, out: Path, edit) -> Path:
    """Copy a checkpoint with one of its matrices edited."""
    out.mkdir()
    for file in checkpoint.iterdir():
        (out / file.name).write_bytes(file.read_bytes())
    tensors = load_file(out / "model.safetensors")
    edit(tensors["model.layers.1.mlp.up_proj.weight"])
    save_file(tensors, out / "model.safetensors", {"format": "pt"})
    return out


def measure(source: Path, quantized: Path, on_progress: OnProgress = lambda *counts: None) -> Quality:
    return measure_quality(source, quantized, EVALUATION, on_progress)


def test_a_model_equals_itself(checkpoint):
    quality = measure(checkpoint, checkpoint)
    assert (quality.kl, quality.kl_p99, quality.top1_agreement, quality.perplexity_ratio) == (0.0, 0.0, 1.0, 1.0)
    assert quality.greedy_divergence == (64, 64)
    assert quality.worst_layers == ()
    assert quality.num_tokens == sum(len(text.predicted) for text in TEXTS)


@torch.inference_mode()
def test_numbers_are_those_of_one_text_after_the_other(checkpoint, disturbed):
    models = [AutoModelForCausalLM.from_pretrained(directory) for directory in (checkpoint, disturbed)]
    kl, losses = [], []
    for text in TEXTS:
        before, after = (
            model(torch.tensor([text.token_ids])).logits[0, text.num_given - 1 : -1].log_softmax(-1).double() for model in models
        )
        kl += (before.exp() * (before - after)).sum(-1).tolist()
        losses += (-after[range(len(after)), text.predicted]).tolist()
    quality = measure(checkpoint, disturbed)
    assert quality.kl == pytest.approx(sum(kl) / len(kl), rel=1e-3)
    assert quality.kl_p99 == pytest.approx(float(torch.tensor(kl).quantile(0.99)), rel=1e-2)
    assert quality.perplexity_after == pytest.approx(float(torch.tensor(losses).mean().exp()), rel=1e-3)
    assert quality.kl > 0.001
    (layer,) = quality.worst_layers
    assert layer.name == "model.layers.1.mlp.up_proj"
    assert layer.relative_error == pytest.approx(0.3, rel=1e-3)


def test_progress_reaches_its_end(checkpoint):
    seen: list[tuple[str, int, int]] = []
    measure(checkpoint, checkpoint, lambda *counts: seen.append(counts))
    assert ("evaluation texts", len(TEXTS), len(TEXTS)) in seen
    assert seen[-1] == ("greedy texts", 2, 2)


def test_logits_that_are_no_numbers_are_told_from_which_side_they_come(checkpoint, tmp_path):
    broken = change(checkpoint, tmp_path / "broken", lambda weight: weight[0].fill_(torch.nan))
    quality = measure(checkpoint, broken)
    assert quality.num_broken == quality.num_tokens
    assert quality.kl != quality.kl
    with pytest.raises(ArchiverError, match="the source model's own logits are not finite"):
        measure(broken, checkpoint)


def test_what_cannot_be_loaded_is_one_line(checkpoint, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ArchiverError, match="cannot be measured: "):
        measure(checkpoint, tmp_path)
