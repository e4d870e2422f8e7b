"""One layer of a decode step as a function of nothing but tensors: what is compiled, once for all layers that are alike."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from handlers.engine.attention import Scoring, StepAttention
from handlers.engine.lean_layers import LeanLayer
from handlers.engine.linear import DenseLinear
from handlers.engine.paged_cache import PagedCache
from handlers.engine.step_layout import AttentionGroup, StepLayout

_NUM_LINEARS = 4  # qkv, output, gate_up, down


@dataclass(frozen=True)
class LayerShape:
    """All that a layer's code depends on: not its weights, nor how many rows, blocks and layers there are.

    ``weights`` are their sizes in the order of ``weights_of``, None for one that it has not. ``is_packed``: those of its linear layers lie
    in oneDNN's own layout.
    """

    weights: tuple[tuple[int, ...] | None, ...]
    is_packed: bool
    num_heads: int
    num_kv_heads: int
    head_dim: int
    norm_eps: float
    scale: float | None
    window: int | None
    block_tokens: int
    dtype: str
    device: str

    @classmethod
    def of(cls, layer: LeanLayer, block_tokens: int) -> LayerShape | None:
        """Return the shape of ``layer``; None for quantized weights, several dtypes or a soft cap, which are not compiled."""
        linears, weights = _dense_linears(layer), weights_of(layer)
        kinds = {weight.dtype for weight in weights if weight is not None}, {linear.is_packed for linear in linears}
        if layer.scoring.softcap is not None or len(linears) < _NUM_LINEARS or any(len(kind) > 1 for kind in kinds):
            return None
        return cls(
            weights=tuple(None if weight is None else tuple(weight.shape) for weight in weights),
            is_packed=linears[0].is_packed,
            num_heads=layer.num_heads,
            num_kv_heads=layer.num_kv_heads,
            head_dim=layer.head_dim,
            norm_eps=layer.norm_eps,
            scale=layer.scoring.scale,
            window=layer.scoring.window,
            block_tokens=block_tokens,
            dtype=str(layer.input_norm.dtype).removeprefix("torch."),
            device=layer.input_norm.device.type,
        )

    @property
    def hidden(self) -> int:
        """The width of the residual stream."""
        input_norm = self.weights[0]
        assert input_norm is not None
        return input_norm[0]

    def layer(self, given: tuple[Tensor, ...]) -> LeanLayer:
        """Return the layer whose weights, those that it has, are ``given``."""
        weights = iter(given)
        input_norm, post_norm, query_norm, key_norm, *linears = (None if size is None else next(weights) for size in self.weights)
        assert input_norm is not None and post_norm is not None
        pairs = zip(linears[::2], linears[1::2], strict=True)
        qkv, output, gate_up, down = (DenseLinear(weight, bias, self.is_packed) for weight, bias in pairs if weight is not None)
        return LeanLayer(
            input_norm, qkv, query_norm, key_norm, output, post_norm, gate_up, down,
            Scoring(self.scale, self.window), self.norm_eps, self.num_heads, self.num_kv_heads, self.head_dim,
        )  # fmt: skip


def weights_of(layer: LeanLayer) -> tuple[Tensor | None, ...]:
    """Return the weights of the norms, then weight and bias of each dense linear layer."""
    pairs = (pair for linear in _dense_linears(layer) for pair in (linear.weight, linear.bias))
    return (layer.input_norm, layer.post_norm, layer.query_norm, layer.key_norm, *pairs)


def _dense_linears(layer: LeanLayer) -> list[DenseLinear]:
    return [linear for linear in (layer.qkv, layer.output, layer.gate_up, layer.down) if isinstance(linear, DenseLinear)]


class DecodeLayer(nn.Module):
    """A layer over rows that each are one token of some sequence: LeanLayer, its weights and its part of the KV cache among the inputs."""

    def __init__(self, shape: LayerShape) -> None:
        super().__init__()
        self._shape = shape

    def forward(
        self,
        residual: Tensor,  # (num_rows, hidden)
        cosines: Tensor,  # (num_rows, 1, head_dim)
        sines: Tensor,
        positions: Tensor,  # (num_rows,)
        places: Tensor,  # (num_rows,) where each row's keys and values go, in tokens over all blocks
        block_table: Tensor,  # (num_rows, num_blocks of the longest context)
        keys: Tensor,  # (num_blocks, block_tokens, num_kv_heads, head_dim), written to
        values: Tensor,
        *weights: Tensor,
    ) -> Tensor:
        """Return the residual stream after the layer."""
        num_keys = block_table.shape[1] * self._shape.block_tokens
        group = AttentionGroup(slice(0, residual.shape[0]), num_keys, positions[:, None], block_table)
        nothing = positions[:0]  # what only begins and ends a step
        layout = StepLayout(nothing, positions[None], places, nothing, nothing, (group,))
        attention = StepAttention(PagedCache.over(keys, values), layout)
        return self._shape.layer(weights).advance(residual, (cosines, sines), attention, 0)


def example_inputs(shape: LayerShape) -> tuple[Tensor, ...]:
    """Return inputs of the right shapes, to trace ``DecodeLayer`` with."""
    num_rows, width, num_blocks = 3, 4, 5  # numbers that differ, or those that are alike would be taken for one
    dtype, device = getattr(torch, shape.dtype), torch.device(shape.device)
    index = torch.zeros(num_rows, dtype=torch.long, device=device)
    blocks = torch.zeros(num_blocks, shape.block_tokens, shape.num_kv_heads, shape.head_dim, dtype=dtype, device=device)
    rotation = torch.zeros(num_rows, 1, shape.head_dim, dtype=dtype, device=device)
    return (
        torch.zeros(num_rows, shape.hidden, dtype=dtype, device=device),
        rotation,
        rotation.clone(),
        index,
        index.clone(),
        torch.zeros(num_rows, width, dtype=torch.long, device=device),
        blocks,
        blocks.clone(),
        *(torch.zeros(size, dtype=dtype, device=device) for size in shape.weights if size is not None),
    )
