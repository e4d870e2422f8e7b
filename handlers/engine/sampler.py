"""Draw the next token of every row from its logits, each row with its own parameters, reproducibly from its own seed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from handlers.requests import SamplingParams

_NUCLEUS_CANDIDATES = 1024  # sorting so many of 150,000 logits is 14 times cheaper than sorting all, and nearly always enough
_MASK_64 = (1 << 64) - 1


def sample(logits: Tensor, params: Sequence[SamplingParams], seeds: Sequence[int], positions: Sequence[int]) -> list[int | None]:
    """Return one token id a row, or None for a row whose logits are no distribution (NaN or infinity: a broken model, not a bad request).

    ``logits`` are float32 ``(rows, vocab_size)``; ``positions`` are where the new tokens will stand in their sequences. A row's token
    depends on its logits, parameters, seed and position alone, never on the rows beside it.
    """
    greedy = [row for row, row_params in enumerate(params) if row_params.is_greedy]
    drawn = [row for row, row_params in enumerate(params) if not row_params.is_greedy]
    token_ids = torch.empty(len(params), dtype=torch.long, device=logits.device)
    if greedy:
        token_ids[greedy] = _most_likely(_rows(logits, greedy))
    if drawn:
        uniforms = [uniform(seeds[row], positions[row]) for row in drawn]
        token_ids[drawn] = _draw(_rows(logits, drawn), [params[row] for row in drawn], uniforms)
    return [token_id if token_id >= 0 else None for token_id in token_ids.tolist()]


def uniform(seed: int, position: int) -> float:
    """Return one of the 2**24 float32 numbers ``i * 2**-24`` in [0, 1), which depends on ``seed`` and ``position`` alone.

    A counter-based generator: splitmix64's output function (Steele, Lea and Flood 2014) over a counter that starts at the hashed seed.
    """
    return (_mix(_mix(seed) + position) >> 40) * 2.0**-24


def _mix(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) & _MASK_64
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK_64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK_64
    return value ^ (value >> 31)


def _rows(logits: Tensor, rows: list[int]) -> Tensor:
    return logits if len(rows) == len(logits) else logits[rows]


def _most_likely(logits: Tensor) -> Tensor:
    """Return the argmax, -1 for an invalid row: argmax takes NaN for the largest, so the chosen logit tells."""
    peaks, token_ids = logits.max(dim=-1)
    return token_ids.masked_fill(~peaks.isfinite(), -1)


def _draw(logits: Tensor, params: list[SamplingParams], uniforms: list[float]) -> Tensor:
    """Invert the cumulative distribution of each row at its uniform number; -1 for an invalid row."""
    peaks = logits.amax(dim=-1, keepdim=True)
    temperatures = torch.tensor([row.temperature for row in params], device=logits.device).clamp_min(torch.finfo(torch.float32).tiny)
    scaled = (logits - peaks).div_(temperatures[:, None])  # the largest is 0, so that no temperature overflows
    filtered = [row for row, row_params in enumerate(params) if row_params.top_k or row_params.top_p < 1.0]
    if filtered:
        candidates = _rows(scaled, filtered)
        too_small = candidates < _thresholds(candidates, [params[row] for row in filtered])
        scaled[filtered] = candidates.masked_fill(too_small, -torch.inf)
    cumulative = torch.cumsum(scaled.exp_(), dim=-1, out=scaled)  # in place: fresh pages cost more than the arithmetic
    targets = torch.tensor(uniforms, device=logits.device)[:, None] * cumulative[:, -1:]  # below the last sum, as 1 - 2**-24 is
    token_ids = torch.searchsorted(cumulative, targets, right=True)[:, 0]
    return token_ids.masked_fill(~peaks[:, 0].isfinite(), -1)


def _thresholds(logits: Tensor, params: list[SamplingParams]) -> Tensor:
    """Return the smallest logit that each row keeps ``(rows, 1)``: of its ``top_k`` largest those before which less than ``top_p`` lies.

    Thresholds and not indices, because sorting breaks ties differently in different batches: equal logits are all kept.
    """
    vocab_size = logits.shape[-1]
    top_k = torch.tensor([min(row.top_k or vocab_size, vocab_size) for row in params], device=logits.device)[:, None]
    # Above 1 when off: rounding must not cut the tail of a row that asked for all of it.
    top_p = torch.tensor([row.top_p if row.top_p < 1.0 else 2.0 for row in params], device=logits.device)[:, None]
    width = max(row.top_k or _NUCLEUS_CANDIDATES for row in params)
    if width >= vocab_size:
        return _kept(logits.sort(dim=-1, descending=True).values, logits, top_k, top_p)[0]
    thresholds, complete = _kept(logits.topk(width).values, logits, top_k, top_p)
    wide = (~complete).nonzero()[:, 0]
    if len(wide):
        thresholds[wide], _ = _kept(logits[wide].sort(dim=-1, descending=True).values, logits[wide], top_k[wide], top_p[wide])
    return thresholds


def _kept(largest: Tensor, logits: Tensor, top_k: Tensor, top_p: Tensor) -> tuple[Tensor, Tensor]:
    """Return each row's threshold ``(rows, 1)`` among its ``largest`` logits (sorted), and whether they reach far enough ``(rows,)``."""
    within_k = torch.arange(largest.shape[-1], device=logits.device) < top_k
    weights = largest.masked_fill(~within_k, -torch.inf).exp()  # the largest logit is 0
    cumulative = weights.cumsum(-1)
    total = torch.where(top_k < logits.shape[-1], cumulative[:, -1:], logits.exp().sum(-1, keepdim=True))
    kept = within_k & (cumulative - weights < top_p * total)
    kept[:, 0] = True  # top_p 0 is the most likely token
    complete = (top_k <= largest.shape[-1])[:, 0] | ~kept[:, -1]
    return largest.masked_fill(~kept, torch.inf).amin(-1, keepdim=True), complete
