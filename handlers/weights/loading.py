"""Which way quantized weights become a model: read from their format or quantized on the way, packed on a CPU or by a library on GPUs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from handlers.config import HandlerConfig
from handlers.errors import ConfigError
from handlers.quant.formats import CT_FP8, GGUF, PLAIN, TORCHAO_FP8, Format
from handlers.quant.machine import Machine
from handlers.quant.preflight import check_recipe, check_weights, identify
from handlers.weights.checkpoint import Checkpoint

Loader = Callable[[], Any]


def stored_format(checkpoint: Checkpoint) -> Format:
    """Return the format of a checkpoint's weights. Raises ConfigError for one that nothing here can read."""
    return GGUF if checkpoint.gguf else identify(checkpoint.quantization)


def weights_name(checkpoint: Checkpoint, config: HandlerConfig) -> str:
    """Return what the weights will be once they are loaded, in a word or two. Raises ConfigError as ``stored_format``."""
    stored, recipe = stored_format(checkpoint), config.quantization.recipe
    return stored.name if recipe == "none" else f"{stored.name}, {recipe} at load"


def choose_loader(checkpoint: Checkpoint, config: HandlerConfig, machine: Machine) -> Loader | None:
    """Return what loads weights that are quantized or are to be; None if they are plain and stay so.

    Raises ConfigError, before anything is read, for what ``machine`` cannot run and for a recipe where there is nothing to quantize.
    """
    stored, recipe = stored_format(checkpoint), config.quantization.recipe
    if config.engine.name == "llamacpp" and stored is not GGUF:
        raise ConfigError(
            f"handler.engine.name is llamacpp, which runs GGUF files, but the checkpoint's weights are {stored.name}: "
            "leave it out, or write a GGUF file first (marquee quantize MODEL --recipe gguf:Q8_0)"
        )
    if recipe != "none":
        return _quantizing_loader(checkpoint, stored, recipe, machine)
    if stored is PLAIN:
        return None
    check_weights(stored, machine)
    if stored is GGUF:
        from handlers.weights.gguf import load_gguf

        return partial(load_gguf, checkpoint, config.engine.name)
    if machine.device == "cuda" and not (stored is CT_FP8 and _has_one_gpu(machine) and _scales_rows(checkpoint)):
        from handlers.weights.transformers_quantized import load_stored

        return partial(load_stored, checkpoint, stored)
    from handlers.weights.quantized import load_quantized

    return partial(load_quantized, checkpoint, _torch_device(machine))


def _quantizing_loader(checkpoint: Checkpoint, stored: Format, recipe: str, machine: Machine) -> Loader:
    if stored is not PLAIN:
        raise ConfigError(f"handler.quantization.recipe is {recipe}, but the checkpoint's weights are {stored.name} already: set none")
    made = check_recipe(recipe, machine)
    if machine.device == "cuda" and not (made is TORCHAO_FP8 and _has_one_gpu(machine)):
        from handlers.weights.transformers_quantized import load_making

        return partial(load_making, checkpoint, made)
    from handlers.weights.load_recipes import load_quantizing

    return partial(load_quantizing, checkpoint, recipe, _torch_device(machine))


def _has_one_gpu(machine: Machine) -> bool:
    """Whether an Fp8Linear of ours is better than the libraries' layers: over several GPUs transformers spreads a model, as we do not."""
    return len(machine.gpus) == 1


def _scales_rows(checkpoint: Checkpoint) -> bool:
    """Whether all weights of a compressed-tensors checkpoint have a scale for each row, or one for all, as an Fp8Linear has."""
    assert checkpoint.quantization is not None
    groups = checkpoint.quantization.settings["config_groups"].values()
    return all((group.get("weights") or {}).get("strategy") in ("channel", "tensor") for group in groups)


def _torch_device(machine: Machine) -> Any:
    import torch

    return torch.device(machine.device)
