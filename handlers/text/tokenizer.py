"""A checkpoint's tokenizer and chat template: requests to token ids, token ids to text."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from handlers.config import HandlerConfig
from handlers.errors import ConfigError, InvalidRequest
from handlers.gguf_file import GgufFile, find_gguf
from handlers.requests import Message, Request, SamplingParams
from handlers.text.gguf_tokenizer import read_tokenizer
from handlers.text.output import TextOutput
from handlers.text.vocabulary import Vocabulary


class TextTokenizer:
    """Wrap a transformers tokenizer. ``max_prompt_tokens`` is the longest prompt accepted, in tokens. Not thread-safe."""

    def __init__(self, tokenizer: Any, max_prompt_tokens: int | None = None) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = Vocabulary(tokenizer)
        self.max_prompt_tokens = max_prompt_tokens

    def render(self, request: Request) -> None:
        """Set ``prompt_token_ids`` from the messages or the prompt; raise InvalidRequest for what the template or the limit refuses."""
        if request.messages is not None:
            # The template writes its own special tokens; the tokenizer must not add a second beginning-of-sequence token.
            request.prompt_token_ids = self._encode(self._apply_template(request.messages), add_special_tokens=False)
        elif request.prompt is not None:
            request.prompt_token_ids = self._encode(request.prompt, add_special_tokens=True)
        self._check(request.prompt_token_ids)
        self._check_bias(request.params)

    def limit_prompts(self, max_prompt_tokens: int) -> None:
        """Refuse prompts longer than ``max_prompt_tokens``: what the model's window leaves, known once it is loaded."""
        self.max_prompt_tokens = min(max_prompt_tokens, self.max_prompt_tokens or max_prompt_tokens)

    def output(self, request: Request) -> TextOutput:
        """Return what turns this request's generated tokens into text."""
        vocabulary = self._vocabulary
        return TextOutput(self._decode, request.params.stop, skip=vocabulary.special_ids, describe=vocabulary.token)

    @functools.cached_property
    def _decode(self) -> Callable[[Sequence[int]], str]:
        return _decoder(self._tokenizer)

    def _apply_template(self, messages: list[Message]) -> str:
        if not self._tokenizer.chat_template:
            raise InvalidRequest("this model has no chat template; use the completions route", param="messages")
        try:
            return str(self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        except Exception as error:  # A template is the checkpoint author's program: it may raise anything over messages it does not like.
            raise InvalidRequest(f"the chat template refuses these messages: {error}", param="messages") from error

    def _encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        limit = self.max_prompt_tokens
        if limit is not None and len(text) > limit * self._vocabulary.longest_token:
            raise _too_long(f"at least {len(text) // self._vocabulary.longest_token}", limit)
        return list(self._tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"])

    def _check(self, token_ids: list[int]) -> None:
        if not token_ids:
            raise InvalidRequest("the prompt is empty")
        if self.max_prompt_tokens is not None and len(token_ids) > self.max_prompt_tokens:
            raise _too_long(str(len(token_ids)), self.max_prompt_tokens)
        # A client may send token ids itself; one outside of the vocabulary would fail the whole batch inside the model.
        if not 0 <= min(token_ids) <= max(token_ids) < self._vocabulary.size:
            allowed, got = f"0..{self._vocabulary.size - 1}", f"{min(token_ids)}..{max(token_ids)}"
            raise InvalidRequest(f"token ids must lie in {allowed}, got {got}", param="prompt")

    def _check_bias(self, params: SamplingParams) -> None:
        unknown = [token_id for token_id, _ in params.logit_bias if token_id >= self._vocabulary.size]
        if unknown:
            raise InvalidRequest(f"logit_bias: token ids must lie in 0..{self._vocabulary.size - 1}, got {unknown[0]}", param="logit_bias")


def load_tokenizer(directory: Path, model_dir: Path, config: HandlerConfig) -> TextTokenizer:
    """Load the tokenizer of a checkpoint ``directory``, offline; raise ConfigError if it, or the configured template, cannot be read."""
    try:
        tokenizer = _read_tokenizer(directory, config.model.trust_remote_code)
    except ConfigError:
        raise
    except Exception as error:  # The tokenizers library raises bare Exceptions for files that it cannot read.
        raise ConfigError(f"no usable tokenizer in {directory.name}/: {' '.join(str(error).split())}") from error
    if config.tokenizer.chat_template is not None:
        tokenizer.chat_template = _read_template(model_dir / config.tokenizer.chat_template)
    tokenizer.clean_up_tokenization_spaces = False  # It rewrites text across token boundaries, so pieces would not add up to the whole.
    return TextTokenizer(tokenizer, config.limits.max_prompt_tokens)


def _read_tokenizer(directory: Path, trust_remote_code: bool) -> Any:
    """Return the transformers tokenizer: a GGUF file's own, unless the model's original stands beside it."""
    from transformers import AutoTokenizer

    file = find_gguf(directory)
    if file is not None and not (directory / "tokenizer.json").exists():
        return read_tokenizer(GgufFile.open(file))
    return AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=trust_remote_code)


def _decoder(tokenizer: Any) -> Callable[[Sequence[int]], str]:
    """Return the tokenizer's ``decode``; where transformers adds nothing to the library below, that one's: a tenth of the time."""
    from transformers import PreTrainedTokenizerFast

    is_plain = isinstance(tokenizer, PreTrainedTokenizerFast) and type(tokenizer)._decode is PreTrainedTokenizerFast._decode
    if not is_plain or tokenizer.clean_up_tokenization_spaces:
        return tokenizer.decode  # type: ignore[no-any-return]
    return functools.partial(tokenizer.backend_tokenizer.decode, skip_special_tokens=False)


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
