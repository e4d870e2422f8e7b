"""What requests do to logits before a token is chosen: biases, penalties for what was said, and end tokens that would come too early."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from handlers.engine.transfer import on_device, send
from handlers.requests import SamplingParams

_STRONGEST_REPETITION_PENALTY = 1e6
"""It and its inverse are far beyond any use, and no product with a logit overflows."""


class SamplingState(Protocol):
    """What sampling needs to know of a sequence: ``token_ids`` are its prompt and what it has generated so far."""

    @property
    def params(self) -> SamplingParams: ...
    @property
    def seed(self) -> int: ...
    @property
    def token_ids(self) -> Sequence[int]: ...
    @property
    def num_prompt_tokens(self) -> int: ...
    @property
    def end_token_ids(self) -> Collection[int]: ...


def looks_back(params: SamplingParams) -> bool:
    """Whether what a request does to the logits depends on which tokens came before."""
    return params.repetition_penalty != 1.0 or bool(params.presence_penalty or params.frequency_penalty)


def adjust(logits: Tensor, sequences: Sequence[SamplingState]) -> None:
    """Change, in place, those rows of ``logits`` (float32, ``(rows, vocab_size)``) whose sequences ask for it.

    Biases come before penalties, as in vLLM (https://docs.vllm.ai/en/latest/api/vllm/v1/sample/sampler/). Token ids outside the vocabulary
    have no effect. Each row's result depends on that row alone.
    """
    if not any(_changes_logits(sequence.params) for sequence in sequences):
        return
    _add_biases(logits, sequences)
    _penalize_repetition(logits, sequences)
    _penalize_output(logits, sequences)
    _forbid_early_ends(logits, sequences)


def _changes_logits(params: SamplingParams) -> bool:
    return bool(params.logit_bias or params.min_tokens) or looks_back(params)


def _add_biases(logits: Tensor, sequences: Sequence[SamplingState]) -> None:
    vocab_size = logits.shape[-1]
    biases = {
        row: {token_id: bias for token_id, bias in sequence.params.logit_bias if 0 <= token_id < vocab_size}
        for row, sequence in enumerate(sequences)
        if sequence.params.logit_bias
    }
    if not biases:
        return
    values = [bias for row in biases.values() for bias in row.values()]
    rows, token_ids = send(_entries(biases, vocab_size), logits.device)
    logits[rows, token_ids] += on_device(values, logits.dtype, logits.device)


def _penalize_repetition(logits: Tensor, sequences: Sequence[SamplingState]) -> None:
    """Make the tokens of prompt and output less likely, or more (Keskar et al. 2019, section 4.1; with a sign for negative logits)."""
    histories = {row: sequence.token_ids for row, sequence in enumerate(sequences) if sequence.params.repetition_penalty != 1.0}
    if not histories:
        return
    entries = _entries(histories, logits.shape[-1])
    penalties = torch.tensor([sequence.params.repetition_penalty for sequence in sequences])
    penalties = penalties.clamp(1 / _STRONGEST_REPETITION_PENALTY, _STRONGEST_REPETITION_PENALTY)[entries[0]]
    (rows, token_ids), penalties = send(entries, logits.device), send(penalties, logits.device)
    said = logits[rows, token_ids]
    # A token that was said often is written often, each time with the same value.
    logits[rows, token_ids] = torch.where(said > 0, said / penalties, said * penalties)


def _penalize_output(logits: Tensor, sequences: Sequence[SamplingState]) -> None:
    """Subtract from the tokens of the output: presence once, frequency as often as they occur (OpenAI's definition)."""
    outputs = {
        row: sequence.token_ids[sequence.num_prompt_tokens :]
        for row, sequence in enumerate(sequences)
        if sequence.params.presence_penalty or sequence.params.frequency_penalty
    }
    if not outputs:
        return
    vocab_size = logits.shape[-1]
    rows, token_ids = _entries(outputs, vocab_size)
    # On the host, which would have to wait until a GPU says how many differ; NumPy sorts in a third of torch's time.
    said, counts = map(torch.from_numpy, np.unique((rows * vocab_size + token_ids).numpy(), return_counts=True))
    entries = torch.stack((said // vocab_size, said % vocab_size))
    presence = torch.tensor([sequence.params.presence_penalty for sequence in sequences])
    frequency = torch.tensor([sequence.params.frequency_penalty for sequence in sequences])
    penalties = presence[entries[0]] + frequency[entries[0]] * counts
    (rows, token_ids), penalties = send(entries, logits.device), send(penalties, logits.device)
    logits[rows, token_ids] -= penalties


def _forbid_early_ends(logits: Tensor, sequences: Sequence[SamplingState]) -> None:
    ends = {
        row: sequence.end_token_ids
        for row, sequence in enumerate(sequences)
        if sequence.params.min_tokens and sequence.params.min_tokens > len(sequence.token_ids) - sequence.num_prompt_tokens
    }
    if ends:
        rows, token_ids = send(_entries(ends, logits.shape[-1]), logits.device)
        logits.index_put_((rows, token_ids), logits.new_full((), -torch.inf))  # assigning a number would copy it, and wait


def _entries(token_ids: Mapping[int, Collection[int]], vocab_size: int) -> Tensor:
    """Return, on the host, the rows of logits and the columns that stand for the ``token_ids`` of each row.  # (2, num_entries)"""
    lengths = torch.tensor([len(row_ids) for row_ids in token_ids.values()])
    rows = torch.tensor(list(token_ids)).repeat_interleave(lengths)
    packed = array("q", chain.from_iterable(token_ids.values()))  # 8 times faster than a tensor of a list, and histories are long
    columns = torch.frombuffer(packed, dtype=torch.long) if packed else rows  # an empty buffer is an error to torch
    is_known = (columns >= 0) & (columns < vocab_size)
    return torch.stack((rows, columns))[:, is_known]
