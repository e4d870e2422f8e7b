"""What crosses between TorchServe's frontend and a handler: requests that come in, replies that go out.

Protocol facts, from TorchServe 0.12 (``ts/service.py``, ``ts/protocol/otf_message_handler.py``): ``handle(data, context)`` gets one
mapping a request, parameter name to raw bytes; ``context.request_ids`` maps the index to the request's id; ``url_path`` is a request
header. A reply carries the header ``ts_stream_next``: ``true`` (more follows), ``false`` (the last), or none (a complete plain response).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

JSON = "application/json"
EVENT_STREAM = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Incoming:
    """One request as the frontend shows it in one call of ``handle``.

    ``body`` is None when the frontend sent no payload: an empty body, or a live request whose payload came with an earlier call. A form
    arrives as fields that mean nothing here, so its body is empty.
    ``route`` is the path after ``/predictions/<model>/<version>/``, empty for the bare prediction URL. Header names are in lower case.
    """

    id: str
    route: str = ""
    body: bytes | None = None
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a handler answers to one request in one call. ``more``: None for a complete response, else whether more messages follow."""

    body: bytes = b""
    more: bool | None = None
    status: int = 200
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


def read_batch(data: Sequence[Mapping[str, Any]], context: Any) -> list[Incoming]:
    """Return the requests of one ``handle`` call, in the frontend's order."""
    return [_read(parameters, context, index) for index, parameters in enumerate(data)]


def write_replies(replies: Sequence[Reply | None], context: Any) -> list[bytes]:
    """Put status, headers and stream flags into ``context`` and return the bodies.

    A request whose reply is None is left out of this answer and stays queued in the frontend: its index leaves ``context.request_ids``.
    """
    for index, reply in enumerate(replies):
        if reply is None:
            context.request_ids.pop(index)
            continue
        context.set_response_status(reply.status, "", index)
        context.set_response_content_type(index, reply.content_type)
        for name, value in reply.headers.items():
            context.set_response_header(index, name, value)
    context.stopping_criteria = [_stopping_criterion(reply) for reply in replies]
    return [b"" if reply is None else reply.body for reply in replies]


def _stopping_criterion(reply: Reply | None) -> Any:
    more = reply.more if reply else None
    return lambda _: None if more is None else not more


def incoming_of(request_id: str, headers: Mapping[str, str], parameters: Mapping[str, Any], part_types: Mapping[str, str]) -> Incoming:
    """Return the request of ``headers``, named in lower case, and ``parameters``, the parts of its body by their names."""
    name = next((name for name in ("body", "data") if name in parameters), "")
    return Incoming(
        id=request_id,
        route=headers.get("url_path", "").strip("/"),
        body=_as_bytes(parameters.get(name, b"")) if parameters else None,
        content_type=part_types.get(name) or headers.get("content-type", ""),
        headers=headers,
    )


def _read(parameters: Mapping[str, Any], context: Any, index: int) -> Incoming:
    """TorchServe keeps the parts' content types among the headers, under the parts' names and as mappings."""
    received = context.get_all_request_header(index)
    headers = {name.lower(): value for name, value in received.items() if isinstance(value, str)}
    part_types = {name: value.get("content-type", "") for name, value in received.items() if isinstance(value, dict)}
    return incoming_of(context.request_ids[index], headers, parameters, part_types)


def _as_bytes(value: Any) -> bytes:
    """Undo the frontend's decoding, which it does unless ``TS_DECODE_INPUT_REQUEST`` is ``false``."""
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()
