"""Choose what quality is measured on: held-out text of the user's, or text that the source model writes itself."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archiver.errors import UsageError
from archiver.quantize.quality.self_written import encode_turn, write_texts
from archiver.quantize.quality.text import Text
from archiver.quantize.request import QuantizeRequest
from archiver.quantize.samples import Sample, load_tokenizer, read_samples, tokenize

MAX_TOKENS = 8192
"""Of all texts together: for a model of some billion parameters on a CPU these take minutes."""
_MIN_TOKENS = 512  # what calibration leaves of its file must have; less is mostly noise
_TEXT_TOKENS = 512
_NUM_PROMPTS = 16  # where the user gives none
_MAX_PROMPTS = 64
_PROMPT_TOKENS = 32  # of a prompt that is the beginning of a text


@dataclass(frozen=True)
class Evaluation:
    """What two models are compared on; ``description`` says, in the receipt, where it comes from.

    The tokens of ``texts`` are predicted one by one, and the ``prompts`` are continued greedily.
    """

    description: str
    texts: tuple[Text, ...]
    prompts: tuple[tuple[int, ...], ...]


def choose_evaluation(request: QuantizeRequest, source: Path) -> Evaluation:
    """Return what to measure a quantization of the checkpoint ``source`` on; the same request gives the same tokens.

    They come from ``request.evaluation``, else from what calibration leaves of its own file, else from the source model, which is loaded
    for that. Prompts are those of ``request.prompts``, else beginnings of the texts. Raises UsageError for a file without use.
    """
    tokenizer = load_tokenizer(source)
    description, texts = _held_out(request, tokenizer) or ("the source model's own samples", write_texts(source))
    prompts = _read_prompts(request.prompts, tokenizer) if request.prompts else _beginnings(texts)
    return Evaluation(description, texts, prompts)


def _held_out(request: QuantizeRequest, tokenizer: Any) -> tuple[str, tuple[Text, ...]] | None:
    if request.evaluation:
        texts = _draw(read_samples(request.evaluation), tokenizer)
        if not texts:
            raise UsageError(f"{request.evaluation} has no sample of two tokens or more: there is nothing to measure quality on")
        return request.evaluation.name, texts
    if request.calibration:
        texts = _draw(read_samples(request.calibration)[request.num_samples :], tokenizer)
        if sum(len(text.predicted) for text in texts) >= _MIN_TOKENS:
            return f"what calibration left of {request.calibration.name}", texts
    return None


def _draw(samples: Iterable[Sample], tokenizer: Any) -> tuple[Text, ...]:
    """Return samples in random order, the same each time, until they have tokens enough."""
    shuffled = list(samples)
    random.Random(0).shuffle(shuffled)
    texts = (Text(token_ids) for token_ids in tokenize(shuffled, tokenizer, _TEXT_TOKENS) if len(token_ids) > 1)
    return tuple(_up_to_limit(texts))


def _up_to_limit(texts: Iterable[Text]) -> Iterator[Text]:
    num_tokens = 0
    for text in texts:
        yield text
        num_tokens += len(text.predicted)
        if num_tokens >= MAX_TOKENS:
            return


def _beginnings(texts: tuple[Text, ...]) -> tuple[tuple[int, ...], ...]:
    return tuple(text.token_ids[: max(1, min(_PROMPT_TOKENS, len(text.token_ids) // 2))] for text in texts[:_NUM_PROMPTS])


def _read_prompts(file: Path, tokenizer: Any) -> tuple[tuple[int, ...], ...]:
    lines = [line for line in file.read_text("utf-8").splitlines() if line.strip()]
    if not lines:
        raise UsageError(f"{file} holds no prompts; write one a line")
    return tuple(tuple(encode_turn(line, tokenizer)[-_TEXT_TOKENS:]) for line in lines[:_MAX_PROMPTS])
