"""Do compiled layers compute what the layers do that they were compiled from? Asked once, before they take over."""

from __future__ import annotations

import torch
from torch import Tensor

from handlers.engine.compiled.layers import CompiledLayers
from handlers.engine.lean_layers import LeanLayers
from handlers.engine.paged_cache import PagedCache
from handlers.engine.scheduler import Chunk, StepPlan
from handlers.engine.step_layout import StepLayout, lay_out

_NUM_BLOCKS = 16
_TOLERANCE_FLOAT32 = 1e-3
_TOLERANCE_HALF = 0.1


def agrees(lean: LeanLayers, compiled: CompiledLayers, block_tokens: int) -> bool:
    """Whether both give the same residual stream, keys and values, rounding apart, for one row and for several, over contexts made up."""
    weight = lean.layers[0].input_norm
    one = Chunk("one", 0, (0,), [0], samples=True)
    two = Chunk("two", block_tokens, (0, 0), [1, 2], samples=True, num_drafts=1)
    three = Chunk("three", 3 * block_tokens - 1, (0,), [3, 4, 5], samples=True)
    tolerance = _TOLERANCE_FLOAT32 if weight.dtype == torch.float32 else _TOLERANCE_HALF
    for chunks in ((one,), (one, two, three)):
        layout = lay_out(StepPlan(chunks), block_tokens, weight.device, most_blocks=_NUM_BLOCKS)
        pairs = zip(_run(lean, lean, layout, block_tokens), _run(compiled, lean, layout, block_tokens), strict=True)
        if not all((got - wanted).norm() <= tolerance * wanted.norm() for wanted, got in pairs):
            return False
    return True


@torch.inference_mode()
def _run(layers: LeanLayers | CompiledLayers, lean: LeanLayers, layout: StepLayout, block_tokens: int) -> list[Tensor]:
    """Return what is computed, and what is kept, from the same numbers at every call; in float32."""
    first = lean.layers[0]
    dtype, device = first.input_norm.dtype, first.input_norm.device
    random = torch.Generator(device).manual_seed(0)
    num_rows = len(layout.places)
    cache = PagedCache([layer.kv_shape for layer in lean.layers], _NUM_BLOCKS, block_tokens, dtype, device)
    kept = [tensor.normal_(generator=random) for index in range(len(lean.layers)) for tensor in cache.tensors(index)]
    residual = torch.empty(num_rows, first.input_norm.shape[0], dtype=dtype, device=device).normal_(generator=random)
    angles = torch.arange(num_rows * first.head_dim, dtype=torch.float32, device=device).view(num_rows, 1, -1)
    rotation = angles.cos().to(dtype), angles.sin().to(dtype)
    return [tensor.float() for tensor in (layers.advance(residual, rotation, layout, cache), *kept)]
