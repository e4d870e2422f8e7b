"""Can the engine run this model? Ask the model: try it, and compare with what it computes on its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from handlers.engine.attention import Scoring
from handlers.engine.paged_cache import KVShape
from handlers.engine.runner import Runner
from handlers.engine.scheduler import Chunk, StepPlan
from handlers.engine.transformers_runner import forward, replace_attention
from handlers.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_PROBE_TOKENS = 8
_LAYER_TYPES = {"full_attention", "sliding_attention"}
_TOLERANCE_FLOAT32 = 1e-3
_TOLERANCE_HALF = 0.1
_TOLERANCE_FP8 = 0.3
"""Relative error of the logits: rounding stays far below, a term of the attention that is missing or misplaced far above.

Where linear layers round their inputs to 8 bits, what two orders of adding differ by is rounded to steps 16 times as large.
"""


class Unfit(ConfigError):
    """The continuous engine cannot run this model; the message says why."""


@dataclass(frozen=True)
class Adoption:
    """A model whose attention is ours now: what its layers keep of a token, how they score, and what it said of the probe before."""

    kv_shapes: tuple[KVShape, ...]
    scorings: tuple[Scoring, ...]
    probe: tuple[int, ...]
    logits: Tensor  # (vocab_size,) after the last token of the probe


@torch.inference_mode()
def adopt(model: PreTrainedModel) -> Adoption:
    """Put our attention into ``model`` and learn the shapes of its KV cache; raises Unfit for a model that the engine cannot run."""
    _check_architecture(model)
    probe = tuple(token_id % model.config.get_text_config().vocab_size for token_id in range(3, 3 + _PROBE_TOKENS))
    token_ids = torch.tensor([probe], device=model.device)
    positions = torch.arange(_PROBE_TOKENS, device=model.device)[None]
    layers = _LayerProbe()
    try:
        logits = model(input_ids=token_ids, position_ids=positions, use_cache=False).logits[0, -1].float()
        replace_attention(model)
        forward(model, token_ids, positions, layers, positions[0, -1:])
    except Exception as error:  # whatever a foreign model raises
        raise _unfit(model, str(error)) from error
    shapes, scorings = layers.in_order(model)
    return Adoption(shapes, scorings, probe, logits)


def check_runner(model: PreTrainedModel, runner: Runner, adoption: Adoption) -> None:
    """Raise Unfit unless ``runner``, fed in chunks, agrees with what the model computed on its own. Leaves the runner empty."""
    probe = adoption.probe
    blocks = list(range(-(-_PROBE_TOKENS // runner.block_tokens)))
    try:
        for start, end in ((0, 3), (3, _PROBE_TOKENS - 1), (_PROBE_TOKENS - 1, _PROBE_TOKENS)):
            logits = runner.run(StepPlan((Chunk("probe", start, probe[start:end], blocks, samples=True),)))
        runner.reset()
    except Exception as error:  # whatever a foreign model raises
        raise _unfit(model, str(error)) from error
    if logits.shape[0] != 1:
        raise _unfit(model, "it cannot compute the logits of selected tokens alone (logits_to_keep)")
    difference = ((logits[0] - adoption.logits).norm() / adoption.logits.norm()).item()
    if not difference <= _tolerance(model):
        raise _unfit(model, f"its output differs by {difference:.1%} when the prompt is read in chunks")


def _tolerance(model: PreTrainedModel) -> float:
    if any(parameter.dtype == torch.float8_e4m3fn for parameter in model.parameters()):
        return _TOLERANCE_FP8
    return _TOLERANCE_FLOAT32 if model.dtype == torch.float32 else _TOLERANCE_HALF


@dataclass
class _LayerProbe:
    """An Attention over the step alone, which notes what each layer would keep, and how it scores."""

    layers: dict[int, tuple[KVShape, Scoring]] = field(default_factory=dict)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring) -> Tensor:
        self.layers[layer] = KVShape(key.shape[1], key.shape[3], value.shape[3]), scoring
        attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scoring.scale, enable_gqa=True)
        return attended[0].transpose(0, 1)

    def in_order(self, model: PreTrainedModel) -> tuple[tuple[KVShape, ...], tuple[Scoring, ...]]:
        if sorted(self.layers) != list(range(len(self.layers))) or not self.layers:
            raise _unfit(model, f"only its layers {sorted(self.layers)} use attention")
        shapes, scorings = zip(*(self.layers[layer] for layer in sorted(self.layers)), strict=True)
        return shapes, scorings


def _check_architecture(model: PreTrainedModel) -> None:
    config = model.config.get_text_config()
    other_layers = set(getattr(config, "layer_types", None) or ()) - _LAYER_TYPES
    if model.config.is_encoder_decoder:
        raise _unfit(model, "it is an encoder-decoder")
    if other_layers:
        raise _unfit(model, f"it has {', '.join(sorted(other_layers))} layers")
    if not getattr(model, "_supports_attention_backend", False):
        raise _unfit(model, "its attention cannot be replaced (transformers' attention interface)")


def _unfit(model: PreTrainedModel, reason: str) -> Unfit:
    return Unfit(f"{type(model).__name__} cannot run on the continuous engine: {reason}")
