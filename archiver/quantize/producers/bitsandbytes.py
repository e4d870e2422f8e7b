"""Produce NF4 and int8 checkpoints with bitsandbytes."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

if TYPE_CHECKING:
    from archiver.quantize.producer import Job


def produce(job: Job) -> Mapping[str, str]:
    """Quantize while loading, tensor by tensor, and save."""
    job.on_progress("quantizing", 0, 1)
    model = AutoModelForCausalLM.from_pretrained(job.source, dtype="auto", quantization_config=_config(job), local_files_only=True)
    job.on_progress("saving", 0, 1)
    model.save_pretrained(job.out)
    return {package: version(package) for package in ("bitsandbytes", "transformers", "torch")}


def _config(job: Job) -> BitsAndBytesConfig:
    if job.options["method"] == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=list(job.options["ignore"]))
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_use_double_quant=job.options["double_quantization"],
        llm_int8_skip_modules=list(job.options["ignore"]),  # of four bits too, whatever it is called
    )
