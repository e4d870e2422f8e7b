"""What there is to compile for a checkpoint, asked of a model with one layer of each kind and next to no vocabulary."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

from handlers.engine.compatibility import Unfit, adopt
from handlers.engine.compiled.package import Package
from handlers.engine.compiled.swap import packages_of
from handlers.engine.decoder_parts import take_apart
from handlers.engine.lean_runner import LeanRunner

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

_VOCAB_SIZE = 16
_MAX_MODEL_LEN = 16


def packages_for(config: PreTrainedConfig, dtype: torch.dtype, block_tokens: int) -> tuple[Package, ...]:
    """Return what an engine on this machine looks for when it runs a model of ``config``, which is not quantized.

    Raises Unfit where it computes the layers in a way that is not compiled.
    """
    model = _one_layer_of_each_kind(config, dtype)
    parts = take_apart(model, adopt(model).scorings, _MAX_MODEL_LEN)
    packages = None if parts is None else packages_of(LeanRunner(parts, num_blocks=1, block_tokens=block_tokens))
    if packages is None:
        raise Unfit(f"{type(model).__name__} cannot be compiled: only decoders like Llama's are")
    return tuple(packages.values())


def _one_layer_of_each_kind(config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    small = copy.deepcopy(config)
    kinds = sorted(set(getattr(config, "layer_types", None) or ()))
    small.update({"num_hidden_layers": max(1, len(kinds)), "vocab_size": _VOCAB_SIZE, "pad_token_id": None})
    if kinds:
        small.update({"layer_types": kinds})
    model: PreTrainedModel = AutoModelForCausalLM.from_config(small, dtype=dtype).eval()
    return model.to("cuda") if torch.cuda.is_available() else model
