"""Choose the next token of every row from its logits, each row with its own parameters, reproducibly from its own seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from handlers.engine.gpu.launching import can_launch
from handlers.engine.logits import SamplingState, adjust
from handlers.engine.transfer import Fetch, on_device
from handlers.requests import SamplingParams, TokenLogprob

_NUCLEUS_CANDIDATES = 1024  # sorting so many of 150,000 logits is 14 times cheaper than sorting all, and nearly always enough
_MASK_64 = (1 << 64) - 1
_COLDEST = float(torch.finfo(torch.float32).tiny)


@dataclass(frozen=True, slots=True)
class Sample:
    """The token that was chosen, and its log probability if that was asked for."""

    token_id: int
    logprob: TokenLogprob | None = None


class Draw:
    """What has been drawn, on the device: the host may go on with other things before it asks for ``samples``.

    ``token_ids`` ``(rows,)`` are int64 on the device, -1 for a row whose logits are no distribution.
    """

    def __init__(self, token_ids: Tensor, reports: Sequence[_Report]) -> None:
        self.token_ids = token_ids
        self._fetch = Fetch(token_ids)
        self._reports = reports

    def samples(self) -> list[Sample | None]:
        """Wait for it. Return a sample a row, or None for an invalid one (NaN or infinity: a broken model, not a bad request)."""
        token_ids = self._fetch.wait().tolist()
        logprobs = {row: logprob for report in self._reports for row, logprob in report.read(token_ids)}
        return [Sample(token_id, logprobs.get(row)) if token_id >= 0 else None for row, token_id in enumerate(token_ids)]


class _Report:
    """The log probabilities of some rows: of the tokens that were chosen, and of the ``num_top`` most likely."""

    def __init__(self, rows: list[int], log_probabilities: Tensor, chosen: Tensor, num_top: int) -> None:
        top = log_probabilities.topk(min(num_top, log_probabilities.shape[-1]))
        values = log_probabilities.gather(-1, chosen.clamp_min(0)[:, None])[:, 0]  # a row without a token reports anything
        self._rows = rows
        self._fetches = [Fetch(tensor) for tensor in (values, top.indices, top.values)]

    def read(self, token_ids: Sequence[int]) -> Iterator[tuple[int, TokenLogprob]]:
        """Yield each row's report; tokens that the model rules out (minus infinity) are not among the most likely ones."""
        values, top_ids, top_values = (fetch.wait().tolist() for fetch in self._fetches)
        for row, value, ids, likely in zip(self._rows, values, top_ids, top_values, strict=True):
            pairs = zip(ids, likely, strict=True)
            yield row, TokenLogprob(token_ids[row], value, tuple(pair for pair in pairs if pair[1] > -torch.inf))


@torch.inference_mode()
def draw(logits: Tensor, sequences: Sequence[SamplingState]) -> Draw:
    """Draw a token a row, without waiting for the device.

    ``logits`` are float32 ``(rows, vocab_size)``, a row for the next token of each sequence; they may be overwritten. What comes of a row
    depends on its logits, parameters, seed and tokens alone, never on the rows beside it. In the order of vLLM's sampler: log probabilities
    (the model's own), biases, penalties, temperature, min_p, top_k and top_p.
    """
    wanted = _rows_by_num_top(sequences)
    log_probabilities = {num_top: _rows(logits, rows).log_softmax(-1) for num_top, rows in wanted.items()}  # before they are overwritten
    adjust(logits, sequences)
    token_ids = _choose(logits, sequences)
    reports = [_Report(rows, log_probabilities[num_top], _rows(token_ids, rows), num_top) for num_top, rows in wanted.items()]
    return Draw(token_ids, reports)


def sample(logits: Tensor, sequences: Sequence[SamplingState]) -> list[Sample | None]:
    """Draw, and wait for what came of it; see ``draw`` and ``Draw.samples``."""
    return draw(logits, sequences).samples()


def _rows_by_num_top(sequences: Sequence[SamplingState]) -> dict[int, list[int]]:
    """Return the rows that want log probabilities, those together that want as many: which of equal tokens come first depends on that."""
    wanted: dict[int, list[int]] = {}
    for row, sequence in enumerate(sequences):
        if sequence.params.logprobs is not None:
            wanted.setdefault(sequence.params.logprobs, []).append(row)
    return wanted


def _choose(logits: Tensor, sequences: Sequence[SamplingState]) -> Tensor:
    """Return a token id a row, -1 for an invalid one."""
    drawn = [row for row, sequence in enumerate(sequences) if not sequence.params.is_greedy]
    if not drawn:
        return _most_likely(logits)
    uniforms = [uniform(sequences[row].seed, len(sequences[row].token_ids)) for row in drawn]
    chosen = _draw(_rows(logits, drawn), [sequences[row].params for row in drawn], uniforms)
    if len(drawn) == len(sequences):
        return chosen
    return _most_likely(logits).index_copy_(0, on_device(drawn, torch.long, logits.device), chosen)


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
    return logits if len(rows) == len(logits) else logits.index_select(0, on_device(rows, torch.long, logits.device))


def _most_likely(logits: Tensor) -> Tensor:
    """Return the argmax, -1 for an invalid row: argmax takes NaN for the largest, so the chosen logit tells."""
    peaks, token_ids = logits.max(dim=-1)
    return torch.where(peaks.abs() < torch.inf, token_ids, -1)


def _draw(logits: Tensor, params: list[SamplingParams], uniforms: list[float]) -> Tensor:
    """Invert the cumulative distribution of each row at its uniform number; -1 for an invalid row."""
    table = [max(row.temperature, _COLDEST) for row in params], [row.min_p for row in params], uniforms
    temperatures, min_p, numbers = on_device(table, torch.float32, logits.device)[..., None]  # (rows, 1) each
    peaks = logits.amax(dim=-1, keepdim=True)
    weights = (logits - peaks).div_(temperatures).exp_()  # the largest is 1, so that no temperature overflows
    if any(row.min_p for row in params):
        weights.masked_fill_(weights < min_p, 0.0)  # less likely than min_p times the most likely one (Nguyen et al. 2024)
    _filter_top(weights, params)
    cumulative = _cumulative(weights)
    targets = numbers * cumulative[:, -1:]  # below the last sum, as 1 - 2**-24 is
    token_ids = torch.searchsorted(cumulative, targets, right=True)[:, 0]
    return token_ids.masked_fill(~peaks[:, 0].isfinite(), -1)


def _cumulative(weights: Tensor) -> Tensor:
    """Return the sums along each row, in which a token of weight 0 must add nothing.

    A GPU adds in pairs, and the next sum may be larger by rounding alone: of the numbers that are drawn, which are multiples of 2**-24,
    hardly any lies between two such sums of 53 bits, but many between those of 24.
    """
    if weights.device.type == "cuda":
        return weights.cumsum(dim=-1, dtype=torch.float64)
    return torch.cumsum(weights, dim=-1, out=weights)  # one after the other, and in place: fresh pages cost more than the arithmetic


def _filter_top(weights: Tensor, params: list[SamplingParams]) -> None:
    """Remove tokens outside the ``top_k`` most likely and the ``top_p`` nucleus (Holtzman et al. 2020)."""
    rows = [row for row, row_params in enumerate(params) if row_params.top_k or row_params.top_p < 1.0]
    if not rows:
        return
    thresholds = _thresholds(_rows(weights, rows), [params[row] for row in rows])
    if len(rows) < len(params):
        thresholds = weights.new_zeros(len(params), 1).index_copy_(0, on_device(rows, torch.long, weights.device), thresholds)
    weights.masked_fill_(weights < thresholds, 0.0)


def _thresholds(weights: Tensor, params: list[SamplingParams]) -> Tensor:
    """Return the smallest weight that each row keeps ``(rows, 1)``: of its ``top_k`` largest those before which less than ``top_p`` lies.

    Thresholds and not indices, because sorting breaks ties differently in different batches: equal weights are all kept.
    """
    vocab_size = weights.shape[-1]
    # top_p is above 1 when off: rounding must not cut the tail of a row that asked for all of it.
    table = [min(row.top_k or vocab_size, vocab_size) for row in params], [row.top_p if row.top_p < 1.0 else 2.0 for row in params]
    top_k, top_p = on_device(table, torch.float32, weights.device)[..., None]  # (rows, 1) each
    if weights.device.type == "cuda" and can_launch():
        from handlers.engine.gpu.kernels.nucleus import nucleus_thresholds

        return nucleus_thresholds(weights, top_k, top_p)  # what follows looks at numbers, and waits for the device
    width = max(row.top_k or _NUCLEUS_CANDIDATES for row in params)
    if width >= vocab_size:
        return _kept(weights.sort(dim=-1, descending=True).values, weights, top_k, top_p)[0]
    thresholds, complete = _kept(weights.topk(width).values, weights, top_k, top_p)
    wide = (~complete).nonzero()[:, 0]
    if len(wide):
        thresholds[wide], _ = _kept(weights[wide].sort(dim=-1, descending=True).values, weights[wide], top_k[wide], top_p[wide])
    return thresholds


def _kept(largest: Tensor, weights: Tensor, top_k: Tensor, top_p: Tensor) -> tuple[Tensor, Tensor]:
    """Return each row's threshold ``(rows, 1)`` among its ``largest`` weights (sorted), and whether they reach far enough ``(rows,)``."""
    within_k = torch.arange(largest.shape[-1], device=weights.device) < top_k
    candidates = largest.masked_fill(~within_k, 0.0)
    cumulative = candidates.cumsum(-1)
    total = torch.where(top_k < weights.shape[-1], cumulative[:, -1:], weights.sum(-1, keepdim=True))
    kept = within_k & (cumulative - candidates < top_p * total)
    kept[:, 0] = True  # top_p 0 is the most likely token
    complete = (top_k <= largest.shape[-1])[:, 0] | ~kept[:, -1]
    return largest.masked_fill(~kept, torch.inf).amin(-1, keepdim=True), complete
