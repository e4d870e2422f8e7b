"""Load one rank's share of a decoder: its attention heads, its columns of the MLP, its rows of lm_head. Nothing else is read."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from handlers.errors import ConfigError
from handlers.tensor_parallel import vocabulary_rows
from handlers.weights.checkpoint import Checkpoint
from handlers.weights.quantized import generation_config, read_config
from handlers.weights.safetensors_files import SafetensorsFiles
from handlers.weights.skeleton import fill_model

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

logger = logging.getLogger(__name__)

_HEAD = "lm_head.weight"


def load_shard(checkpoint: Checkpoint, rank: int, num_ranks: int) -> PreTrainedModel:
    """Return the share of ``rank`` as a model with fewer heads and columns, on this process's GPU or else the CPU.

    Alone it computes nothing of use: ``o_proj`` and ``down_proj`` give one of ``num_ranks`` summands, ``lm_head`` some tokens' logits.
    The embeddings are whole on each rank: dividing them would save memory at the price of one more exchange a step, and where lm_head is
    tied to them, it is them. Raises ConfigError if the files do not hold the tensors of the model.
    """
    config = read_config(checkpoint)
    tensors = SafetensorsFiles(checkpoint.directory)
    share = Share.of(config, rank, num_ranks)
    device, dtype = _device_and_dtype(checkpoint)
    model = fill_model(share.shrink(config), tensors.keys() - {_HEAD}, lambda name: share.cut(name, tensors[name]), dtype, device)
    if not config.tie_word_embeddings:
        if _HEAD not in tensors:
            raise ConfigError(f"the weights lack {_HEAD} of {type(model).__name__}; copy or download the checkpoint again")
        _set_head(model, tensors[_HEAD][vocabulary_rows(config.vocab_size, rank, num_ranks)].to(device, dtype).clone())
    model.generation_config = generation_config(checkpoint, model)
    logger.info("loaded a share of %s: %d parameters, %s, on %s", type(model).__name__, model.num_parameters(), dtype, device)
    return model


@dataclass(frozen=True, slots=True)
class _Span:
    """``count`` of the ``total`` units, heads or columns, into which a dimension falls."""

    start: int
    count: int
    total: int


@dataclass(frozen=True, slots=True)
class Share:
    """What one rank has of each layer. A KV head that several ranks need is in the share of each."""

    heads: _Span
    kv_heads: _Span
    columns: _Span

    @classmethod
    def of(cls, config: PreTrainedConfig, rank: int, num_ranks: int) -> Self:
        """Return the share of ``rank``; ``handlers.tensor_parallel`` has nothing against ``num_ranks``."""

        def span(total: int) -> _Span:
            return _Span(rank * total // num_ranks, max(total // num_ranks, 1), total)

        return cls(span(config.num_attention_heads), span(config.num_key_value_heads), span(config.intermediate_size))

    def shrink(self, config: PreTrainedConfig) -> PreTrainedConfig:
        """Return the configuration of a model of this size. Its lm_head is tied, so as to take no memory until it gets its own weight."""
        small: Any = copy.deepcopy(config)
        small.head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        small.num_attention_heads, small.num_key_value_heads = self.heads.count, self.kv_heads.count
        small.intermediate_size = self.columns.count
        small.tie_word_embeddings = True
        return small

    def cut(self, name: str, weight: Tensor) -> Tensor:
        """Return this share of the whole tensor ``name``, mostly a view; the bias of a layer that is cut by inputs stays whole."""
        layer, _, kind = name.rpartition(".")
        match layer.rpartition(".")[2]:
            case "q_proj":
                return _cut(weight, 0, [self.heads])
            case "k_proj" | "v_proj":
                return _cut(weight, 0, [self.kv_heads])
            case "qkv_proj":
                return _cut(weight, 0, [self.heads, self.kv_heads, self.kv_heads])
            case "gate_proj" | "up_proj":
                return _cut(weight, 0, [self.columns])
            case "gate_up_proj":
                return _cut(weight, 0, [self.columns, self.columns])
            case "o_proj" if kind == "weight":
                return _cut(weight, 1, [self.heads])
            case "down_proj" if kind == "weight":
                return _cut(weight, 1, [self.columns])
        return weight


def _cut(weight: Tensor, dim: int, spans: Sequence[_Span]) -> Tensor:
    """Return a span of each of the parts that lie one after the other in ``dim``, all of them in units of one size."""
    size = weight.shape[dim] // sum(span.total for span in spans)
    pieces, start = [], 0
    for span in spans:
        pieces.append(weight.narrow(dim, (start + span.start) * size, span.count * size))
        start += span.total
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim)


def _set_head(model: PreTrainedModel, weight: Tensor) -> None:
    head = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    head.weight = nn.Parameter(weight, requires_grad=False)
    model.set_output_embeddings(head)


def _device_and_dtype(checkpoint: Checkpoint) -> tuple[torch.device, torch.dtype]:
    if torch.cuda.is_available():
        return torch.device("cuda", 0), checkpoint.gpu_dtype
    return torch.device("cpu"), checkpoint.cpu_dtype
