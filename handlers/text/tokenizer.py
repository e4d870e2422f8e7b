"""A checkpoint's tokenizer and chat template: requests to token ids, token ids to text."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from handlers.config import HandlerConfig
from handlers.errors import ConfigError, InvalidRequest
from handlers.requests import Message, Request
from handlers.text.output import TextOutput


class TextTokenizer:
    """Wrap a transformers tokenizer. ``max_prompt_tokens`` is the longest prompt accepted, in tokens. Not thread-safe."""

    def __init__(self, tokenizer: Any, max_prompt_tokens: int | None = None) -> None:
        self._tokenizer = tokenizer
        self.max_prompt_tokens = max_prompt_tokens

    def render(self, request: Request) -> None:
        """Set ``prompt_token_ids`` from the messages or the prompt; raise InvalidRequest for what the template or the limit refuses."""
        if request.messages is not None:
            # The template writes its own special tokens; the tokenizer must not add a second beginning-of-sequence token.
            request.prompt_token_ids = self._encode(self._apply_template(request.messages), add_special_tokens=False)
        elif request.prompt is not None:
            request.prompt_token_ids = self._encode(request.prompt, add_special_tokens=True)
        self._check(request.prompt_token_ids)

    def limit_prompts(self, max_prompt_tokens: int) -> None:
        """Refuse prompts longer than ``max_prompt_tokens``: what the model's window leaves, known once it is loaded."""
        self.max_prompt_tokens = min(max_prompt_tokens, self.max_prompt_tokens or max_prompt_tokens)

    def output(self, request: Request) -> TextOutput:
        """Return what turns this request's generated tokens into text."""
        return TextOutput(self._tokenizer.decode, request.params.stop, skip=self._special_token_ids)

    def _apply_template(self, messages: list[Message]) -> str:
        if not self._tokenizer.chat_template:
            raise InvalidRequest("this model has no chat template; use the completions route", param="messages")
        try:
            return str(self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        except Exception as error:  # A template is the checkpoint author's program: it may raise anything over messages it does not like.
            raise InvalidRequest(f"the chat template refuses these messages: {error}", param="messages") from error

    def _encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        limit = self.max_prompt_tokens
        if limit is not None and len(text) > limit * self._longest_token:
            raise _too_long(f"at least {len(text) // self._longest_token}", limit)
        return list(self._tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"])

    def _check(self, token_ids: list[int]) -> None:
        if not token_ids:
            raise InvalidRequest("the prompt is empty")
        if self.max_prompt_tokens is not None and len(token_ids) > self.max_prompt_tokens:
            raise _too_long(str(len(token_ids)), self.max_prompt_tokens)
        # A client may send token ids itself; one outside of the vocabulary would fail the whole batch inside the model.
        if not 0 <= min(token_ids) <= max(token_ids) < self._vocab_size:
            raise InvalidRequest(f"token ids must lie in 0..{self._vocab_size - 1}, got {min(token_ids)}..{max(token_ids)}", param="prompt")

    @functools.cached_property
    def _vocab_size(self) -> int:
        return len(self._tokenizer)

    @functools.cached_property
    def _special_token_ids(self) -> frozenset[int]:
        return frozenset(token_id for token_id, token in self._tokenizer.added_tokens_decoder.items() if token.special)

    @functools.cached_property
    def _longest_token(self) -> int:
        """The most characters that one token can stand for: bounds a prompt's tokens from below without tokenizing it.

        In a byte-level vocabulary a token is written with one character a byte, in a SentencePiece vocabulary with one a character: never
        fewer than the characters it stands for.
        """
        return max(len(token) for token in self._tokenizer.get_vocab())


def load_tokenizer(directory: Path, model_dir: Path, config: HandlerConfig) -> TextTokenizer:
    """Load the tokenizer of a checkpoint ``directory``, offline; raise ConfigError if it, or the configured template, cannot be read."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=config.model.trust_remote_code)
    except Exception as error:  # The tokenizers library raises bare Exceptions for files that it cannot read.
        raise ConfigError(f"no usable tokenizer in {directory.name}/: {' '.join(str(error).split())}") from error
    if config.tokenizer.chat_template is not None:
        tokenizer.chat_template = _read_template(model_dir / config.tokenizer.chat_template)
    tokenizer.clean_up_tokenization_spaces = False  # It rewrites text across token boundaries, so pieces would not add up to the whole.
    return TextTokenizer(tokenizer, config.limits.max_prompt_tokens)


def _read_template(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"handler.tokenizer.chat_template: cannot read {path.name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"handler.tokenizer.chat_template: {path.name} is not valid UTF-8 (byte {error.start})") from error


def _too_long(num_tokens: str, limit: int) -> InvalidRequest:
    message = f"the prompt has {num_tokens} tokens; this model takes at most {limit}"
    return InvalidRequest(message, code="context_length_exceeded")
