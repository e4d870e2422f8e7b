"""The bare prediction URL: text-generation-inference's JSON body, or plain text in and plain text out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from handlers.errors import InvalidRequest
from handlers.frontend import Incoming
from handlers.requests import Request, SamplingParams
from handlers.wire.codec import event, to_json
from handlers.wire.json_body import check_text, parse_json_object
from handlers.wire.schema import TGIBody, TGIParameters, validate

TEXT = "text/plain; charset=utf-8"


class PredictionCodec:
    """``/predictions/<model>``: a JSON body is text-generation-inference's ``{"inputs", "parameters"}``, all else the prompt itself."""

    def __init__(self, model: str, defaults: SamplingParams) -> None:
        self._model = model
        self._defaults = defaults

    def decode(self, incoming: Incoming) -> Request:
        """Read a JSON body (by content type, or by its first character where there is none) or a plain-text prompt."""
        body = incoming.body or b""
        if not body.strip():
            raise InvalidRequest(
                "the request has no body; send JSON with 'Content-Type: application/json' or a prompt with 'Content-Type: text/plain' "
                "(a form, curl's default, does not reach the model)"
            )
        is_text = incoming.content_type.startswith("text/")
        is_json = "json" in incoming.content_type or body.lstrip().startswith(b"{")
        return self._decode_tgi(incoming) if is_json and not is_text else self._decode_text(incoming, body)

    def answer(self, request: Request) -> bytes:
        """Return ``[{"generated_text", "details"}]`` (an array, as text-generation-inference's ``/`` does) or the bare text."""
        if request.content_type == TEXT:
            return request.text.encode("utf-8", "replace")
        return to_json([{"generated_text": request.text, "details": _details(request)} | request.fields])

    def frame(self, request: Request, text: str) -> bytes:
        """Return a token event; it carries all text since the last one, so it names no token id."""
        return event(_token_event(request, text, special=False))

    def last_frames(self, request: Request) -> bytes:
        """Return the event with the whole text and the details."""
        end = {"generated_text": request.text, "details": _details(request)}
        return event(_token_event(request, "", special=True) | end | request.fields)

    def _decode_text(self, incoming: Incoming, body: bytes) -> Request:
        try:
            prompt = body.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"the body is not valid UTF-8 (byte {error.start})") from None
        check_text(prompt)
        return Request(content_type=TEXT, model=self._model, prompt=prompt, params=self._defaults)

    def _decode_tgi(self, incoming: Incoming) -> Request:
        body = validate(TGIBody, parse_json_object(incoming))
        return Request(model=self._model, prompt=body.inputs, params=self._params(body.parameters), stream=bool(body.stream))

    def _params(self, given: TGIParameters) -> SamplingParams:
        """text-generation-inference samples only when asked to (``do_sample``, or any sampling parameter); otherwise it is greedy."""
        params = given.sampling_params(self._defaults, given.max_new_tokens)
        if not any((given.do_sample, given.temperature, given.top_p, given.top_k)):
            return replace(params, temperature=0.0)
        # Asked to sample, without a temperature, from a checkpoint whose default is greedy.
        return replace(params, temperature=1.0) if params.is_greedy and given.temperature is None else params


def _token_event(request: Request, text: str, *, special: bool) -> dict[str, Any]:
    token = {"text": text, "special": special}
    return {"index": request.num_generated_tokens, "token": token, "generated_text": None, "details": None}


def _details(request: Request) -> dict[str, Any]:
    reason: str | None = request.finish_reason
    if reason == "stop":
        reason = "stop_sequence" if request.params.stop else "eos_token"
    return {
        "finish_reason": reason,
        "generated_tokens": request.num_generated_tokens,
        "input_length": len(request.prompt_token_ids),
        "seed": request.params.seed,
        "prefill": [],
        "tokens": [],
    }
