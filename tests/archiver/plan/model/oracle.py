"""What transformers makes of a configuration: the elements of its model without weights, what it keeps of tokens that it reads."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel

_KNOWN_AS = {"kimi_k2": "deepseek_v3"}
"""Published with the code of another family, whose class their configuration names."""


def build_meta(config: dict[str, Any]) -> PreTrainedModel:
    """Build the model of a config.json without memory for its weights."""
    with torch.device("meta"):
        return build(config)


def build(config: dict[str, Any], **options: Any) -> PreTrainedModel:
    """Build the model of a config.json with random weights."""
    values = copy.deepcopy(config)
    model_type = values.pop("model_type")
    made = AutoConfig.for_model(_KNOWN_AS.get(model_type, model_type), **values)
    auto = AutoModelForImageTextToText if "vision_config" in config else AutoModelForCausalLM
    return auto.from_config(made, **options)


def count_elements(model: PreTrainedModel) -> int:
    """Count what a checkpoint of the model would hold: its parameters, tied ones once, and the buffers that are saved."""
    buffers = [
        buffer
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None and name not in module._non_persistent_buffers_set
    ]
    return sum(parameter.numel() for parameter in model.parameters()) + sum(buffer.numel() for buffer in buffers)


class Kept(NamedTuple):
    """What a model keeps of the tokens that it has read."""

    keys_values: list[torch.Tensor]
    states: list[torch.Tensor]

    @property
    def num_bytes(self) -> int:
        """All of it."""
        return sum(tensor.nbytes for tensor in (*self.keys_values, *self.states))


@torch.inference_mode()
def read_tokens(model: PreTrainedModel, num_tokens: int) -> Kept:
    """Let a model read ``num_tokens`` tokens, and return what it keeps of them."""
    output = model(input_ids=torch.zeros((1, num_tokens), dtype=torch.long), use_cache=True)
    layers = (getattr(output, "past_key_values", None) or output.cache_params).layers
    found = [getattr(layer, part, None) for layer in layers for part in ("keys", "values")]
    states = [state for layer in layers for part in ("conv_states", "recurrent_states") for state in getattr(layer, part, {}).values()]
    return Kept([tensor for tensor in found if tensor is not None], [state for state in states if state is not None])
