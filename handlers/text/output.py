"""What a request's token ids become: text, without the stop string and all that follows it, and the log probabilities of its tokens."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from handlers.requests import OutputToken, Token, TokenLogprob
from handlers.text.detokenizer import IncrementalDetokenizer
from handlers.text.stop_matcher import StopMatcher


class TextOutput:
    """Detokenize one sequence and end it at its first stop string; ``skip`` names tokens that are no text, ``describe`` looks a token up.

    ``num_tokens`` counts the tokens up to and including the one that completed the stop string: what a client is told it used.
    Not thread-safe.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        stop: Sequence[str] = (),
        skip: frozenset[int] = frozenset(),
        describe: Callable[[int], Token] | None = None,
    ) -> None:
        self._detokenizer = IncrementalDetokenizer(decode, skip)
        self._matcher = StopMatcher(stop)
        self._describe = describe or (lambda token_id: _lone(token_id, decode))
        self._num_chars = 0  # of decoded text, stop string and all
        self._num_released = 0  # characters that are certainly not part of a stop string
        self._held: deque[OutputToken] = deque()
        self._is_finished = False
        self.num_tokens = 0

    @property
    def is_stopped(self) -> bool:
        """Whether a stop string was met; later tokens are ignored."""
        return self._matcher.is_stopped

    def push(self, token_ids: Sequence[int], num_stop_tokens: int = 0, logprobs: Sequence[TokenLogprob] = ()) -> str:
        """Return the new text; the last ``num_stop_tokens`` of ``token_ids`` are counted, but they are no text."""
        num_text_tokens = len(token_ids) - num_stop_tokens
        text = ""
        for index, token_id in enumerate(token_ids):
            if self._matcher.is_stopped:
                break
            self.num_tokens += 1
            if index < num_text_tokens:
                if logprobs:
                    self._held.append(self._output_token(logprobs[index]))
                text += self._match(self._detokenizer.push(token_id))
        return text

    def finish(self) -> str:
        """Return the text that was still held back; nothing may be pushed after it."""
        if self.is_stopped:
            return ""
        self._is_finished = True
        return self._match(self._detokenizer.flush()) + self._matcher.flush()

    def take_tokens(self) -> list[OutputToken]:
        """Return the tokens whose text has come out since the last time; those of a stop string never do.

        A token without text of its own (part of a character, a special one) comes out with the text that follows it.
        """
        taken = []
        while self._held and (self._is_finished or self._held[0].offset < self._num_released):
            taken.append(self._held.popleft())
        return taken

    def _match(self, piece: str) -> str:
        text = self._matcher.push(piece)
        self._num_chars += len(piece)
        self._num_released += len(text)
        return text

    def _output_token(self, logprob: TokenLogprob) -> OutputToken:
        top = tuple((self._describe(token_id), value) for token_id, value in logprob.top)
        return OutputToken(self._describe(logprob.token_id), logprob.logprob, self._num_chars, top)


def _lone(token_id: int, decode: Callable[[Sequence[int]], str]) -> Token:
    text = decode((token_id,))
    return Token(token_id, text, text.encode())
