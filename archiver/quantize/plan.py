"""What one run of ``marquee quantize`` is going to do; all that can be wrong about it and is cheap to find is found here."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from archiver.errors import UsageError
from archiver.package.checkpoint import Checkpoint, read_checkpoint, read_config
from archiver.package.source import resolve_model
from archiver.quantize.calibration import CalibrationData, choose_calibration
from archiver.quantize.recipes import Recipe, read_recipe
from archiver.quantize.request import QuantizeRequest

_CAUSAL = ("ForCausalLM", "LMHeadModel")
_WEIGHTS = (".safetensors", ".gguf")


@dataclass(frozen=True)
class Plan:
    """A request whose words are understood: ``source_name`` is what the receipt calls the source, ``out`` where the result goes."""

    request: QuantizeRequest
    recipe: Recipe
    source: Checkpoint
    source_name: str
    calibration: CalibrationData | None
    out: Path


def make_plan(request: QuantizeRequest) -> Plan:
    """Find and check the model, the recipe, the packages, the place of the result and the calibration samples.

    A model on the hub is downloaded. Raises UsageError for whatever would keep the recipe from being carried out.
    """
    if request.budget and not request.measure:
        raise UsageError("a --budget limits what is measured: leave --no-measure out, or the budget")
    recipe = _only_recipe(request)
    recipe.producer.check_packages()
    found = resolve_model(request.model, revision=request.revision)
    if found.kind != "checkpoint":
        raise UsageError(f"{request.model} cannot be quantized: only a checkpoint directory or a model on the hub can")
    source = read_checkpoint(found.path)
    _check_model(source, recipe)
    out = _check_place(request, Path(f"{found.name}-{recipe.label}"), source)
    calibration = choose_calibration(request, source.directory) if recipe.needs_calibration else None
    name = found.name if Path(request.model).expanduser().exists() else request.model
    return Plan(request, recipe, source, name, calibration, out)


def weight_bytes(directory: Path) -> int:
    """Return the size of the weights in a directory, as files."""
    return sum(file.stat().st_size for file in directory.iterdir() if file.suffix in _WEIGHTS)


def _only_recipe(request: QuantizeRequest) -> Recipe:
    match request.recipes:
        case (name,):
            return read_recipe(name)
        case ():
            raise UsageError("say how, with --recipe NAME; `marquee quantize --list` shows the recipes")
    raise UsageError("one --recipe at a time, unless --compare is given")


def _check_model(source: Checkpoint, recipe: Recipe) -> None:
    if gguf := [file for file in source.files if file.suffix == ".gguf"]:
        raise UsageError(f"{source.directory / gguf[0]} is a GGUF file: quantize the checkpoint that it was made from instead")
    config = read_config(source.directory)
    if quantized := config.get("quantization_config"):
        method = quantized.get("quant_method", "some method") if isinstance(quantized, dict) else "some method"
        raise UsageError(f"{source.directory} is quantized already ({method}); quantize the original instead, which loses less")
    if not source.architecture.endswith(_CAUSAL):
        raise UsageError(f"{source.directory} is a {source.architecture}; only causal language models can be quantized")
    _check_group_size(config, recipe)


def _check_group_size(config: Mapping[str, Any], recipe: Recipe) -> None:
    group_size = recipe.options.get("group_size", 0)
    for key in ("hidden_size", "intermediate_size"):
        columns = config.get(key)
        if group_size and isinstance(columns, int) and columns % group_size:
            largest = columns & -columns
            raise UsageError(
                f"recipe {recipe.name} has groups of {group_size} columns, which do not divide the model's {key} of {columns}: "
                f"write a recipe that extends it, with a group_size of {largest} or less, or of 0 for whole rows"
            )


def _check_place(request: QuantizeRequest, default: Path, source: Checkpoint) -> Path:
    out = (request.out or default).expanduser().resolve()
    if out == source.directory:
        raise UsageError(f"the result cannot take its source's place: choose another --out than {out}")
    if out.exists() and not request.force:
        raise UsageError(f"{out} exists: choose another --out, or replace it with --force")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is no directory: choose another --out")
    if not out.parent.is_dir():
        raise UsageError(f"no such directory: {out.parent}")
    needed, free = weight_bytes(source.directory), shutil.disk_usage(out.parent).free
    if free < needed:
        raise UsageError(
            f"{out.parent} has {decimal(free)} free; a result may take the source's {decimal(needed)}: free some, or choose --out"
        )
    return out
