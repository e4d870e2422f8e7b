"""Build a transformers model around weights that are read one at a time, quantized ones left packed."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from handlers.errors import ConfigError
from handlers.native import fp8_linear
from handlers.native.fp8_linear import Fp8Linear
from handlers.native.huge_pages import HugePages
from handlers.native.packed_linear import PackedLinear, can_pack
from handlers.native.quantized_matrix import QuantizedMatrix

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

CPU = torch.device("cpu")
_COMPUTED = r"rotary_emb\.inv_freq$|(^|\.)position_ids$"
"""What old checkpoints store, and transformers computes."""

Weight = Tensor | QuantizedMatrix


def fill_model(
    config: PreTrainedConfig,
    names: Iterable[str],
    read: Callable[[str], Weight],
    dtype: torch.dtype,
    device: torch.device = CPU,
) -> PreTrainedModel:
    """Return the causal language model of ``config`` with the weights ``names``, each read once, ready for inference in ``dtype``.

    ``names`` are the model's own (``model.layers.0.self_attn.q_proj.weight``). A linear layer whose weight ``read`` returns as a
    QuantizedMatrix becomes a PackedLinear, on a GPU an Fp8Linear, or a dense one where the device has no use for it; any other layer gets
    it dequantized. What the model ties (lm_head to the embeddings, say) need not be there; where it comes quantized all the same, it is
    kept and not tied.

    Beyond the model itself at most one weight is held. Raises ConfigError for weights that are missing, that the model has no place for, or
    of another shape.
    """
    model = _without_weights(config, dtype)
    expected = set(model.state_dict())
    given = {name for name in names if name in expected or not _is_superfluous(model, name, read)}
    missing = _check_names(model, expected, given)
    memory = HugePages()
    for name in sorted(given):  # a layer's bias before its weight, with which a PackedLinear is whole
        _place(model, name, read(name), device, memory)
    model.tie_weights(missing_keys=missing, recompute_mapping=False)
    _leave_the_files(model)
    return model.to(device).eval()


def _without_weights(config: PreTrainedConfig, dtype: torch.dtype) -> Any:
    """Parameters take no memory (device ``meta``); buffers, such as the rotary frequencies, have their values."""
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM

    try:
        with init_empty_weights(include_buffers=False):
            return AutoModelForCausalLM.from_config(config, dtype=dtype)
    except ValueError as error:
        raise ConfigError(f"transformers knows no causal language model of type {config.model_type!r}") from error


def _is_superfluous(model: PreTrainedModel, name: str, read: Callable[[str], Weight]) -> bool:
    """Whether a tensor that the model has no place for does not matter: AutoGPTQ gave a bias of zeros to layers that have none."""
    patterns = (_COMPUTED, *(model._keys_to_ignore_on_load_unexpected or ()))
    if any(re.search(pattern, name) for pattern in patterns):
        return True
    bias = read(name) if name.endswith(".bias") else None
    return isinstance(bias, Tensor) and not bool(bias.any())


def _check_names(model: PreTrainedModel, expected: set[str], given: set[str]) -> set[str]:
    """Return the names that are not given, because they are tied to one that is."""
    tied = {name for pair in model.all_tied_weights_keys.items() if given.intersection(pair) for name in pair}
    if missing := sorted(expected - given - tied):
        raise ConfigError(f"the weights lack {len(missing)} tensors of {type(model).__name__}, {missing[0]} for one")
    if unexpected := sorted(given - expected):
        raise ConfigError(
            f"the weights hold {len(unexpected)} tensors that {type(model).__name__} has no place for, {unexpected[0]} for one"
        )
    return expected - given


def _place(model: PreTrainedModel, name: str, weight: Weight, device: torch.device, memory: HugePages) -> None:
    path, _, attribute = name.rpartition(".")
    module = model.get_submodule(path)
    place: Tensor = getattr(module, attribute)
    found = weight.codes.shape if isinstance(weight, QuantizedMatrix) else weight.shape
    if found != place.shape:
        raise ConfigError(f"{name} has the shape {tuple(found)}, and the model wants {tuple(place.shape)}")
    if isinstance(weight, QuantizedMatrix) and type(module) is nn.Linear:
        linear = _quantized_linear(weight, module.bias, device, memory)
        if linear is not None:
            model.set_submodule(path, linear)
            model.all_tied_weights_keys.pop(name, None)
            return
    dense = weight.dequantize() if isinstance(weight, QuantizedMatrix) else weight
    value = dense.to(device, place.dtype)
    setattr(module, attribute, nn.Parameter(value, requires_grad=False) if isinstance(place, nn.Parameter) else value)


def _quantized_linear(matrix: QuantizedMatrix, bias: Tensor | None, device: torch.device, memory: HugePages) -> nn.Module | None:
    """Return a layer that keeps the weight as it is; None where the device has none for it."""
    if can_pack(device):
        return PackedLinear(matrix, bias, memory)
    if fp8_linear.can_multiply(matrix, device):
        return Fp8Linear(matrix.codes.to(device), matrix.scales[:, 0].contiguous().to(device), bias)
    return None


def _leave_the_files(model: PreTrainedModel) -> None:
    """Copy what still lies in a mapped file, all of which it would keep mapped; and have the C library give back what reading took."""
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc's
        trim(0)
