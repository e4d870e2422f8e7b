"""Which kernel reads prompts: ours, or torch's paged one (FlashAttention 3) where a trial shows that it works and is faster."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor

from handlers.engine.attention import Scoring
from handlers.engine.decoder_parts import DecoderParts
from handlers.engine.gpu.paged_attention import Prefill

logger = logging.getLogger(__name__)

_CHUNK_TOKENS, _CONTEXT_TOKENS = 2048, 8192
"""So many that the GPU takes longer for them than the host for asking, which would be measured too."""
_REPEATS = 10
_TOLERANCE = 0.02
"""Relative error: what two orders of adding differ by in half precision stays far below, a mask that is misplaced far above."""

Trial = Callable[[Prefill], Tensor]
"""Has a kernel read a chunk, and returns what it says."""


def choose_prefill(
    ours: Prefill, find_other: Callable[[], Prefill], trial: Trial, time_ms: Callable[[Callable[[], object]], float]
) -> Prefill:
    """Return the other kernel if there is one that says the same in less time, and ours if anything about it fails."""
    try:
        other = find_other()
        expected = trial(ours).float()
        difference = ((trial(other).float() - expected).norm() / expected.norm()).item()
        if not difference <= _TOLERANCE:
            raise ArithmeticError(f"its output differs by {difference:.1%}")
        took_ms, ours_ms = (time_ms(partial(trial, prefill)) for prefill in (other, ours))
    except Exception as error:  # noqa: BLE001 - whatever a library raises that was never tried here
        logger.info("our kernel reads prompts; torch's does not: %s", error)
        return ours
    logger.info("reading %d tokens of a prompt takes our kernel %.3f ms a layer, torch's %.3f ms", _CHUNK_TOKENS, ours_ms, took_ms)
    return other if took_ms < ours_ms else ours


def find_torch_prefill() -> Prefill:
    """Return torch's kernel in the form of ours, its FlashAttention 3 activated; raises whatever tells that it is not there."""
    from torch.nn.attention import activate_flash_attention_impl
    from torch.nn.attention.varlen import varlen_attn

    if missing := {"block_table", "seqused_k"} - inspect.signature(varlen_attn).parameters.keys():
        raise NotImplementedError(f"varlen_attn of torch {torch.__version__} knows no {' and '.join(sorted(missing))}")
    activate_flash_attention_impl("FA3")

    def prefill(
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        block_table: Tensor,
        query_starts: Tensor,
        context_lens: Tensor,
        max_query_len: int,
        scoring: Scoring,
        *,
        scales: Tensor | None = None,
    ) -> Tensor:
        attended = varlen_attn(
            query,
            keys,
            values,
            query_starts,
            None,
            max_query_len,
            block_table.shape[1] * keys.shape[1],
            scale=scoring.scale,
            window_size=(-1 if scoring.window is None else scoring.window - 1, 0),
            enable_gqa=True,
            seqused_k=context_lens,
            block_table=block_table,
        )
        assert isinstance(attended, Tensor)
        return attended

    return prefill


def trial_like(parts: DecoderParts, block_tokens: int) -> Trial:
    """Return a trial over random numbers, in the shapes of a model: a chunk at the end of a longer context, in blocks out of order."""
    device = parts.embedding.device
    draw = partial(torch.randn, dtype=parts.embedding.dtype, device=device)
    num_blocks = -(-_CONTEXT_TOKENS // block_tokens)
    query = draw(_CHUNK_TOKENS, parts.num_heads, parts.head_dim)
    keys, values = (draw(num_blocks, block_tokens, parts.num_kv_heads, parts.head_dim) for _ in range(2))
    block_table = torch.arange(num_blocks, dtype=torch.int32, device=device).flip(0)[None]
    starts = torch.tensor([0, _CHUNK_TOKENS], dtype=torch.int32, device=device)
    lens = torch.tensor([_CONTEXT_TOKENS], dtype=torch.int32, device=device)
    scoring = parts.layers[0].scoring
    return lambda prefill: prefill(query, keys, values, block_table, starts, lens, _CHUNK_TOKENS, scoring)


def gpu_time_ms(compute: Callable[[], object]) -> float:
    """Return the median of what the GPU takes for ``compute``, which has been run before."""
    new_event: Any = partial(torch.cuda.Event, enable_timing=True)
    events = [(new_event(), new_event()) for _ in range(_REPEATS)]
    for start, end in events:
        start.record()
        compute()
        end.record()
    torch.cuda.synchronize()
    return float(median(start.elapsed_time(end) for start, end in events))
