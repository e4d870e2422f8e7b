"""A static batch over transformers' ``generate``: every model that it can run, and the oracle for our own engine."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from handlers.config import EngineConfig
from handlers.engine.capacity import model_len
from handlers.engine.threads import settle_num_threads
from handlers.errors import ConfigError
from handlers.requests import FinishReason, SamplingParams


@dataclass(frozen=True, slots=True)
class Prompt:
    """One row of a batch; ``params.max_tokens`` is a number."""

    token_ids: tuple[int, ...]
    params: SamplingParams


OnToken = Callable[[int, int, bool], bool]
"""Take a row, its next token id and whether that token ends the row (and is no text); return whether the row should end all the same."""


class BatchGenerator:
    """Run a transformers model over batches of prompts, each row with its own sampling parameters and limits. Not thread-safe."""

    def __init__(self, model: Any, config: EngineConfig = EngineConfig(), *, eos_token_ids: frozenset[int] = frozenset()) -> None:
        self._model = model
        self._eos_token_ids = eos_token_ids
        # What is not set for a run, generate() takes from here: end tokens that a row ignores, penalties that no row asked for.
        model.generation_config = type(model.generation_config)()
        self.max_model_len = _shorter(model_len(model.config), config.max_model_len)
        if model.device.type == "cpu":
            settle_num_threads(partial(_trial_step, model), config.num_threads)

    def run(self, prompts: Sequence[Prompt], on_token: OnToken) -> list[FinishReason]:
        """Generate until every row has ended; tell each token to ``on_token`` as it comes, and return why each row ended."""
        import torch
        from transformers import GenerationConfig

        rows = _Rows(prompts, self._eos_token_ids, on_token)
        input_ids, attention_mask = (tensor.to(self._model.device) for tensor in _left_padded(prompts))
        limits = [prompt.params.max_tokens or 1 for prompt in prompts]
        # Sampling, stop tokens and limits differ from row to row, so they are ours, and generate() itself is set to be greedy and endless.
        config = GenerationConfig(max_new_tokens=max(limits), do_sample=False, pad_token_id=0, use_cache=True)
        with torch.inference_mode():
            self._model.generate(
                input_ids=input_ids,
                attention_mask=attention_mask,
                generation_config=config,
                logits_processor=[rows.choose],
                stopping_criteria=[rows.take],
            )
        return [reason or "length" for reason in rows.reasons]


class _Rows:
    """The state of a running batch, as the two callbacks that ``generate`` makes at every step."""

    def __init__(self, prompts: Sequence[Prompt], eos_token_ids: frozenset[int], on_token: OnToken) -> None:
        self._params = [prompt.params for prompt in prompts]
        self._lengths = [len(prompt.token_ids) for prompt in prompts]
        self._seeds = [secrets.randbits(64) if params.seed is None else params.seed for params in self._params]
        self._end_ids = [
            frozenset(params.stop_token_ids) | (frozenset() if params.ignore_eos else eos_token_ids) for params in self._params
        ]
        self._on_token = on_token
        self._num_generated = 0
        self.reasons: list[FinishReason | None] = [None] * len(prompts)

    def choose(self, input_ids: Any, scores: Any) -> Any:
        """Leave only each row's sampled token possible.  # scores: (rows, vocab_size)"""
        import torch

        from handlers.engine.sampler import sample

        positions = [length + self._num_generated for length in self._lengths]
        chosen = sample(scores.float(), self._params, self._seeds, positions)
        if None in chosen:
            raise FloatingPointError("the model returned no valid probabilities")
        only = torch.full_like(scores, -torch.inf)
        only[torch.arange(len(chosen)), torch.tensor(chosen)] = 0.0
        return only

    def take(self, input_ids: Any, scores: Any) -> Any:
        """Pass on the newest token of every row that has not ended; return which rows have.  # (rows,) bool"""
        import torch

        self._num_generated += 1
        for row, token_id in enumerate(input_ids[:, -1].tolist()):
            if self.reasons[row] is None:
                self.reasons[row] = self._reason(row, token_id)
        return torch.tensor([reason is not None for reason in self.reasons], device=input_ids.device)

    def _reason(self, row: int, token_id: int) -> FinishReason | None:
        is_end = token_id in self._end_ids[row]
        if self._on_token(row, token_id, is_end) or is_end:
            return "stop"
        return "length" if self._num_generated >= (self._params[row].max_tokens or 1) else None


def _trial_step(model: Any) -> None:
    """Run the model over one token of a few sequences."""
    import torch

    with torch.inference_mode():
        model(input_ids=torch.zeros(8, 1, dtype=torch.long), use_cache=False)


def _left_padded(prompts: Sequence[Prompt]) -> tuple[Any, Any]:
    """Return token ids and attention mask, both (rows, longest prompt); the padding stands left, so that all rows end together."""
    import torch

    longest = max(len(prompt.token_ids) for prompt in prompts)
    padded = [[0] * (longest - len(prompt.token_ids)) + list(prompt.token_ids) for prompt in prompts]
    mask = [[0] * (longest - len(prompt.token_ids)) + [1] * len(prompt.token_ids) for prompt in prompts]
    return torch.tensor(padded), torch.tensor(mask)


def _shorter(own: int | None, asked: int | None) -> int:
    if own is None and asked is None:
        raise ConfigError("the model names no longest sequence: set handler.engine.max_model_len, in tokens")
    return min(length for length in (own, asked) if length is not None)
