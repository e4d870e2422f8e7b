"""Produce int8 checkpoints with torchao."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING

from torchao.quantization import Int8WeightOnlyConfig
from transformers import AutoModelForCausalLM, TorchAoConfig

if TYPE_CHECKING:
    from archiver.quantize.producer import Job


def produce(job: Job) -> Mapping[str, str]:
    """Quantize while loading, tensor by tensor, and save. Version 2 of the layout is the one that safetensors can hold."""
    config = TorchAoConfig(Int8WeightOnlyConfig(version=2), modules_to_not_convert=list(job.options["ignore"]))
    job.on_progress("quantizing", 0, 1)
    model = AutoModelForCausalLM.from_pretrained(job.source, dtype="auto", quantization_config=config, local_files_only=True)
    job.on_progress("saving", 0, 1)
    model.save_pretrained(job.out)
    return {package: version(package) for package in ("torchao", "transformers", "torch")}
