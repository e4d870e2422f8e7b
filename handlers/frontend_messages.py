"""TorchServe's binary messages, read and written at little cost: a request that was shown before is known again by its bytes.

Protocol facts, from TorchServe 0.12 (``ts/protocol/otf_message_handler.py``): integers are 4 bytes, big-endian; a string is its length and
its bytes; a list ends with -1. The frontend sends a list of requests: id, list of headers (name, value), list of parameters (name, content
type, value). The worker answers with a status and a message for all, and a list of replies: id, content type, status, reason, number of
headers, headers, body. In continuous batching the list holds every live request, with all its headers, in every call.
"""

from __future__ import annotations

import functools
import logging
import struct
import sys
from collections.abc import Sequence
from typing import Any

from handlers.frontend import Incoming, Reply, incoming_of

RECEIVE_BYTES = 256 * 1024
REMEMBERED_BYTES = 24 * 1024
"""Of one request. A larger one has a payload that does not come again: the driver answers it at once."""
_END = -1
_int = struct.Struct("!i")

logger = logging.getLogger(__name__)


class MessageReader:
    """Reads from the connection to the frontend, of which a worker has one. Not thread-safe.

    TorchServe's own reader receives about 30 times for one request; bytes that are read ahead here are kept, for nobody else reads.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._position = 0
        self._shown: dict[bytes, tuple[bytes, Incoming]] = {}
        """Live requests by id, as the last call has shown them: their bytes after the id's length, and what they mean."""

    def read(self, connection: Any, length: int) -> bytes:
        """Return the next ``length`` bytes; end the process once the frontend has gone."""
        end = self._position + length
        while len(self._data) < end:
            received = connection.recv(RECEIVE_BYTES)
            if not received:
                logger.info("the frontend closed the connection")
                sys.exit(0)
            self._data += received
        data = bytes(self._data[self._position : end])
        self._position = end
        return data

    def read_requests(self, connection: Any) -> list[Incoming]:
        """Return the requests of a predict message, whose command byte has been read."""
        del self._data[: self._position]
        self._position = 0
        batch, shown = [], {}
        while (length := self._read_int(connection)) != _END:
            start = self._position
            request_id = self.read(connection, length)
            bytes_, incoming = self._shown.get(request_id, (None, None))
            if bytes_ and incoming and self._data.startswith(bytes_, start):
                self._position = start + len(bytes_)
            else:
                incoming = self._parse(connection, request_id.decode())
                bytes_ = bytes(self._data[start : self._position])
            batch.append(incoming)
            if len(bytes_) <= REMEMBERED_BYTES:
                shown[request_id] = bytes_, incoming
        self._shown = shown
        return batch

    def _parse(self, connection: Any, request_id: str) -> Incoming:
        headers, parameters, part_types = {}, {}, {}
        while (length := self._read_int(connection)) != _END:
            name = _text(self.read(connection, length))
            headers[name.lower()] = _text(self._read_string(connection))
        while (length := self._read_int(connection)) != _END:
            name = _text(self.read(connection, length))
            part_types[name] = _text(self._read_string(connection))
            parameters[name] = self._read_string(connection)
        return incoming_of(request_id, headers, parameters, part_types)

    def _read_int(self, connection: Any) -> int:
        return int(_int.unpack(self.read(connection, 4))[0])

    def _read_string(self, connection: Any) -> bytes:
        return self.read(connection, self._read_int(connection))


def write_message(batch: Sequence[Incoming], replies: Sequence[Reply | None]) -> bytes:
    """Return the message that answers ``batch``; a request whose reply is None is left out, and so stays queued in the frontend."""
    parts = [_int.pack(200), _string("Prediction success")]
    for incoming, reply in zip(batch, replies, strict=True):
        if reply is not None:
            head = _reply_head(reply.status, reply.content_type, reply.more, tuple(reply.headers.items()))
            parts += (_string(incoming.id), head, _int.pack(len(reply.body)), reply.body)
    parts.append(_int.pack(_END))
    return b"".join(parts)


@functools.lru_cache(maxsize=256)
def _reply_head(status: int, content_type: str, more: bool | None, headers: tuple[tuple[str, str], ...]) -> bytes:
    """Return what stands between a reply's id and its body."""
    fields = (("content-type", content_type), *headers)
    if more is not None:
        fields += (("ts_stream_next", "true" if more else "false"),)
    reason = _string("")
    encoded = b"".join(_string(name) + _string(value) for name, value in fields)
    return _string(content_type) + _int.pack(status) + reason + _int.pack(len(fields)) + encoded


def _string(text: str) -> bytes:
    data = text.encode()
    return _int.pack(len(data)) + data


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
