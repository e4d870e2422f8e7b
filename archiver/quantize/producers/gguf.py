"""Produce GGUF files: with the gguf package alone, and with llama.cpp's quantizer for its mixed types."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from archiver.errors import UsageError
from archiver.package.checkpoint import read_config
from archiver.quantize.gguf.conversion import check_space, checkpoint_name, convert
from archiver.quantize.gguf.file_types import NEED_IMPORTANCE, WRITTEN_HERE, parse_type
from archiver.quantize.gguf.importance import measure_importance
from archiver.quantize.gguf.llama_cpp_quantizer import check_llama_cpp, quantize

if TYPE_CHECKING:
    from archiver.quantize.producer import Job

_LOSSLESS = {"float16": "F16", "bfloat16": "BF16"}  # what holds a checkpoint's numbers as they are; else F32


def produce(job: Job) -> Mapping[str, str]:
    """Write ``<model>-<TYPE>.gguf``; calibration samples, if there are any, tell llama.cpp which columns matter."""
    file_type = parse_type(job.options["type"])
    _check_calibration(file_type, is_calibrated=job.calibration is not None)
    target = job.out / f"{checkpoint_name(job.source)}-{file_type}.gguf"
    packages = ["gguf", "transformers", "torch"]
    if file_type in WRITTEN_HERE:
        convert(job.source, target, file_type, job.on_progress)
    else:
        packages.append("llama-cpp-python")
        _produce_with_llama_cpp(job, target, file_type)
    return {package: version(package) for package in packages}


def _produce_with_llama_cpp(job: Job, target: Path, file_type: str) -> None:
    """Start from a lossless GGUF file, which stays in the workspace for when this is interrupted."""
    check_llama_cpp(file_type)
    for part in job.workspace.glob(".*.part"):  # of one that was killed
        part.unlink()
    lossless = job.workspace / f"{_lossless_type(job.source)}.gguf"
    if not lossless.exists():
        convert(job.source, lossless, lossless.stem, job.on_progress)
    importance = measure_importance(job.source, job.calibration, job.on_progress) if job.calibration else {}
    check_space(job.out, lossless.stat().st_size // 2)
    quantize(lossless, target, file_type, importance, job.on_progress)


def _lossless_type(checkpoint: Path) -> str:
    config = read_config(checkpoint)
    return _LOSSLESS.get(str(config.get("dtype") or config.get("torch_dtype")), "F32")


def _check_calibration(file_type: str, *, is_calibrated: bool) -> None:
    if file_type in NEED_IMPORTANCE and not is_calibrated:
        raise UsageError(f"{file_type} has so few bits that it needs calibration samples: take the recipe gguf-imatrix:{file_type}")
    if file_type in WRITTEN_HERE and is_calibrated:
        raise UsageError(f"{file_type} is rounded to the nearest value, without calibration: take the recipe gguf:{file_type}")
