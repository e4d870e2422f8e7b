"""The bare prediction URL: text-generation-inference's JSON body, or plain text in and plain text out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from handlers.errors import InvalidRequest
from handlers.frontend import Incoming
from handlers.requests import OutputToken, Request, SamplingParams
from handlers.wire.codec import event, to_json
from handlers.wire.json_body import check_text, parse_json_object
from handlers.wire.logprobs import tgi_token
from handlers.wire.schema import TGIBody, TGIParameters
from handlers.wire.validation import validate

TEXT = "text/plain; charset=utf-8"


class PredictionCodec:
    """``/predictions/<model>``: a JSON body is text-generation-inference's ``{"inputs", "parameters"}``, all else the prompt itself."""

    def __init__(self, model: str, defaults: SamplingParams) -> None:
        self._model = model
        self._defaults = defaults

    def decode(self, incoming: Incoming) -> list[Request]:
        """Read a JSON body (by content type, or by its first character where there is none) or a plain-text prompt."""
        body = incoming.body or b""
        if not body.strip():
            raise InvalidRequest(
                "the request has no body; send JSON with 'Content-Type: application/json' or a prompt with 'Content-Type: text/plain' "
                "(a form, curl's default, does not reach the model)"
            )
        is_text = incoming.content_type.startswith("text/")
        is_json = "json" in incoming.content_type or body.lstrip().startswith(b"{")
        return [self._decode_tgi(incoming) if is_json and not is_text else self._decode_text(incoming, body)]

    def answer(self, choices: Sequence[Request]) -> bytes:
        """Return ``[{"generated_text", "details"}]`` (an array, as text-generation-inference's ``/`` does) or the bare text."""
        (choice,) = choices
        if choice.content_type == TEXT:
            return choice.text.encode("utf-8", "replace")
        return to_json([{"generated_text": choice.text, "details": _details(choice)} | choice.fields])

    def stream(self, choice: Request) -> TokenStream:
        """Return the writer of token events."""
        return TokenStream(choice)

    def end(self, choices: Sequence[Request]) -> bytes:
        """Return nothing: the last token event is the end."""
        return b""

    def _decode_text(self, incoming: Incoming, body: bytes) -> Request:
        try:
            prompt = body.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"the body is not valid UTF-8 (byte {error.start})") from None
        check_text(prompt)
        return Request(content_type=TEXT, model=self._model, prompt=prompt, params=self._defaults)

    def _decode_tgi(self, incoming: Incoming) -> Request:
        body = validate(TGIBody, parse_json_object(incoming))
        given, stream = body.parameters, bool(body.stream)
        # An event carries all text since the last one, so the tokens of a stream have no place in it.
        logprobs = (given.top_n_tokens or 0) if given.details and not stream else None
        params = self._params(given, given.sampling_params(self._defaults, given.max_new_tokens, logprobs))
        request = Request(model=self._model, prompt=body.inputs, params=params, stream=stream)
        request.priority, request.max_queue_s = given.priority or 0, given.max_queue_s
        return request

    def _params(self, given: TGIParameters, params: SamplingParams) -> SamplingParams:
        """text-generation-inference samples only when asked to (``do_sample``, or any sampling parameter); otherwise it is greedy."""
        if not any((given.do_sample, given.temperature, given.top_p, given.top_k)):
            return replace(params, temperature=0.0)
        # Asked to sample, without a temperature, from a checkpoint whose default is greedy.
        return replace(params, temperature=1.0) if params.is_greedy and given.temperature is None else params


class TokenStream:
    """Writes text-generation-inference's token events; one carries all text since the last, so it names no token id."""

    def __init__(self, choice: Request) -> None:
        self._choice = choice

    def piece(self, text: str, tokens: Sequence[OutputToken]) -> bytes:
        """Return an event with new text."""
        return event(self._event(text, special=False))

    def end(self) -> bytes:
        """Return the event with the whole text, the details and the author's fields."""
        end = {"generated_text": self._choice.text, "details": _details(self._choice)}
        return event(self._event("", special=True) | end | self._choice.fields)

    def _event(self, text: str, *, special: bool) -> dict[str, Any]:
        token = {"text": text, "special": special}
        return {"index": self._choice.num_generated_tokens, "token": token, "generated_text": None, "details": None}


def _details(choice: Request) -> dict[str, Any]:
    reason: str | None = choice.finish_reason
    if reason == "stop":
        reason = "stop_sequence" if choice.params.stop else "eos_token"
    details = {
        "finish_reason": reason,
        "generated_tokens": choice.num_generated_tokens,
        "input_length": len(choice.prompt_token_ids),
        "seed": choice.params.seed,
        "prefill": [],
        "tokens": [tgi_token(token.token, token.logprob) for token in choice.tokens],
    }
    if not choice.params.logprobs:
        return details
    return details | {"top_tokens": [[tgi_token(*other) for other in token.top] for token in choice.tokens]}
