"""Run any transformers decoder whose attention can be replaced: one forward a step over all tokens, over a cache of our own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from handlers.engine.attention import Attention, Scoring, StepAttention
from handlers.engine.paged_cache import KVShape, PagedCache
from handlers.engine.scheduler import StepPlan
from handlers.engine.step_layout import lay_out
from handlers.engine.weight_memory import weight_bytes

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_ATTENTION = "marquee"
_UNKNOWN_TERMS = ("s_aux", "position_bias", "indices")  # attention sinks, learned biases, sparse selections


class TransformersRunner:
    """A Runner over paged blocks. ``compatibility.adopt`` has seen the model before; all of it is on one device."""

    def __init__(
        self, model: PreTrainedModel, kv_shapes: Sequence[KVShape], *, num_blocks: int, block_tokens: int, max_model_len: int
    ) -> None:
        self.num_blocks = num_blocks
        self.block_tokens = block_tokens
        self.max_model_len = max_model_len
        self.vocab_size: int = model.config.get_text_config().vocab_size
        self.weight_bytes = weight_bytes(model)
        self._model = model
        self._cache = PagedCache(kv_shapes, num_blocks, block_tokens, model.dtype, model.device)

    @property
    def kv_bytes(self) -> int:
        """What the blocks take; see Runner."""
        return self._cache.nbytes

    def resize(self, num_blocks: int, max_model_len: int) -> None:
        """Have other blocks; see ResizableRunner."""
        self.num_blocks, self.max_model_len = num_blocks, max_model_len
        self._cache.resize(num_blocks)

    @torch.inference_mode()
    def run(self, plan: StepPlan) -> Tensor:
        """Compute a step; see Runner."""
        layout = lay_out(plan, self.block_tokens, self._model.device, most_blocks=self.num_blocks)
        self._cache.begin(layout)
        return forward(self._model, layout.token_ids, layout.positions, StepAttention(self._cache, layout), layout.sampling)

    def reset(self) -> None:
        """Forget all sequences; see Runner. A block is cleared when its next owner begins it."""


def replace_attention(model: PreTrainedModel) -> None:
    """Hand the attention of every layer to the Attention that comes with each ``forward``: in its keyword arguments, never in a global."""
    AttentionInterface.register(_ATTENTION, _attention)
    model.set_attn_implementation(_ATTENTION)


def forward(model: PreTrainedModel, token_ids: Tensor, positions: Tensor, attention: Attention, rows: Tensor) -> Tensor:
    """Return float32 logits ``(len(rows), vocab_size)`` of the given rows of ``token_ids`` ``(1, num_tokens)``."""
    output = model(
        input_ids=token_ids,
        position_ids=positions,
        use_cache=False,
        logits_to_keep=rows,
        marquee_attention=attention,
    )
    logits: Tensor = output.logits[0].float()
    return logits


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    marquee_attention: Attention,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Follow transformers' attention interface (docs: "Attention Interface"); returns ``(1, num_tokens, num_heads, value_dim)``."""
    unknown = [name for name in _UNKNOWN_TERMS if others.get(name) is not None]
    if attention_mask is not None or unknown:
        raise NotImplementedError(f"its attention has a term of its own ({', '.join(unknown) or 'a mask'})")
    return marquee_attention.attend(module.layer_idx, query, key, value, Scoring(scaling, sliding_window, softcap))[None], None
