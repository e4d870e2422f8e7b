"""Files of text samples, for calibration and evaluation: read, checked, and turned into tokens as the served model would see them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from archiver.errors import UsageError

Sample = str | tuple[Mapping[str, Any], ...]
"""Plain text, or the messages of a conversation."""

_FORMS = '{"text": …}, {"messages": [{"role": …, "content": …}, …]} or {"prompt": …, "completion": …}'


def read_samples(file: Path) -> tuple[Sample, ...]:
    """Read a ``.jsonl`` file with a sample a line, or a text file whose samples are parted by blank lines.

    A prompt and its completion are one text, joined as they stand. Raises UsageError, with the line's number, for what is no sample.
    """
    try:
        text = file.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is no UTF-8 text (byte {error.start}); convert it") from None
    if file.suffix in (".jsonl", ".ndjson"):
        samples = tuple(_parse_line(line, f"{file}:{number}") for number, line in enumerate(text.splitlines(), 1) if line.strip())
    else:
        samples = tuple(part.strip() for part in re.split(r"\n\s*\n", text) if part.strip())
    if not samples:
        raise UsageError(f"{file} holds no samples")
    return samples


def tokenize(samples: Iterable[Sample], tokenizer: Any, max_length: int) -> Iterator[tuple[int, ...]]:
    """Yield the token ids of each sample, ``max_length`` at most.

    Messages are rendered with the model's chat template, which brings its own special tokens; text gets those of the tokenizer. Raises
    UsageError for messages that the template refuses, and for any if there is no template.
    """
    for number, sample in enumerate(samples, 1):
        if isinstance(sample, str):
            ids = tokenizer(sample)["input_ids"]
        else:
            ids = tokenizer(_render(sample, number, tokenizer), add_special_tokens=False)["input_ids"]
        yield tuple(ids[:max_length])


def load_tokenizer(checkpoint: Path) -> Any:
    """Load a checkpoint's tokenizer from its directory alone; raises UsageError if it cannot be."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot load the tokenizer in {checkpoint}: {' '.join(str(error).split())}") from None


def _parse_line(line: str, place: str) -> Sample:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise UsageError(f"{place} is not JSON ({error})") from None
    match value:
        case {"messages": [_, *_] as messages} if all(_is_message(message) for message in messages):
            return tuple(messages)
        case {"prompt": str(prompt), "completion": str(completion)} if (prompt + completion).strip():
            return prompt + completion
        case {"text": str(text)} if text.strip():
            return text
    raise UsageError(f"{place} is no sample, or an empty one: a line is {_FORMS}")


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str) and isinstance(value.get("content"), str | list)


def _render(messages: tuple[Mapping[str, Any], ...], number: int, tokenizer: Any) -> str:
    from jinja2 import TemplateError

    if not tokenizer.chat_template:
        raise UsageError(f"sample {number} has messages, but the model has no chat template: give samples of plain text")
    try:
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False))
    except TemplateError as error:
        raise UsageError(f"the model's chat template refuses sample {number}: {error}") from None
