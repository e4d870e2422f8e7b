"""A batch of prompts over transformers' generation code, one token of every row at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig


class StaticBatch:
    """Sequences that advance together from their prompts on, padded on the left so that all of them end in the same column.

    ``generate`` prepares what the model needs (its kind of cache, masks, positions, an encoder's output) and then calls a decoding loop of
    the caller's (``custom_generate``). Here that loop is taken apart, because ``generate`` itself can be paused between two tokens only by
    keeping a thread for each batch. The tokens are the caller's choice. For use within ``torch.inference_mode``.
    """

    def __init__(self, model: Any, prompts: Mapping[str, Sequence[int]]) -> None:
        self._model = model
        self._sequence_ids: list[str | None] = list(prompts)  # by row; None once a sequence has ended
        self.num_columns = max(len(prompt) for prompt in prompts.values())
        token_ids, mask = left_padded(list(prompts.values()))
        self._token_ids, self._inputs = model.generate(
            input_ids=token_ids.to(model.device),
            attention_mask=mask.to(model.device),
            generation_config=GenerationConfig(max_new_tokens=1, do_sample=False, num_beams=1, pad_token_id=0, use_cache=True),
            custom_generate=_prepared,
        )

    @property
    def num_rows(self) -> int:
        """All rows, idle ones too."""
        return len(self._sequence_ids)

    @property
    def sequence_ids(self) -> set[str]:
        """The sequences that have not ended."""
        return {sequence_id for sequence_id in self._sequence_ids if sequence_id is not None}

    def retain(self, sequence_ids: set[str]) -> None:
        """Let all other sequences end. Their rows stay, idle, until the batch is dropped."""
        self._sequence_ids = [sequence_id if sequence_id in sequence_ids else None for sequence_id in self._sequence_ids]

    def read_prompts(self) -> dict[str, Tensor]:
        """Return the logits after each prompt, float32 ``(vocab_size,)``. Comes first, and once."""
        return self._forward(is_first_iteration=True)

    def append(self, token_ids: Mapping[str, int]) -> dict[str, Tensor]:
        """Read the next token of each sequence; return the logits after it, float32 ``(vocab_size,)``."""
        column = [0 if sequence_id is None else token_ids[sequence_id] for sequence_id in self._sequence_ids]
        self._token_ids = torch.cat([self._token_ids, self._token_ids.new_tensor(column)[:, None]], dim=1)
        self.num_columns += 1
        return self._forward(next_sequence_length=1)

    def _forward(self, **part: Any) -> dict[str, Tensor]:
        outputs = self._model(**self._model.prepare_inputs_for_generation(self._token_ids, **part, **self._inputs), return_dict=True)
        is_encoder_decoder = self._model.config.is_encoder_decoder
        self._inputs = self._model._update_model_kwargs_for_generation(outputs, self._inputs, is_encoder_decoder=is_encoder_decoder)
        logits = outputs.logits[:, -1].float()
        return {sequence_id: row for sequence_id, row in zip(self._sequence_ids, logits, strict=True) if sequence_id is not None}


def _prepared(
    model: Any, input_ids: Tensor, logits_processor: Any, stopping_criteria: Any, generation_config: Any, **inputs: Any
) -> tuple[Tensor, dict[str, Any]]:
    """Be the decoding loop that ``generate`` calls, and return what it was called with."""
    return input_ids, inputs


def left_padded(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Return token ids and attention mask, both (rows, longest prompt)."""
    longest = max(len(prompt) for prompt in prompts)
    padded = [[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(padded), torch.tensor(mask)
