"""Messages as frames on a stream socket.

A frame is a head of three little-endian numbers (the kind of message, the bytes of JSON, the bytes of token ids), a JSON array and an array
of int32. Token ids, nearly all there is to say, travel in the second; what is rare or has a name travels in the first. (``json`` is written
in C: for the events of a step it is several times as fast as packing fields one by one in Python.)
"""

from __future__ import annotations

import json
import struct
from array import array
from collections.abc import Sequence
from typing import Any, Generic, Protocol, Self, TypeVar

Row = Sequence[Any]
"""The JSON part of a message."""

_HEAD = struct.Struct("<BII")


class Frame(Protocol):
    """A message that can travel."""

    def pack(self) -> tuple[Row, Sequence[int]]:
        """Return what travels as JSON, and what as int32."""
        ...

    @classmethod
    def unpack(cls, row: Row, token_ids: list[int]) -> Self:
        """Return the message of which ``pack`` gave these."""
        ...


class Plain:
    """A message whose fields are JSON values, and no token ids."""

    __slots__ = ()

    def pack(self) -> tuple[Row, Sequence[int]]:
        """Return its fields."""
        return [getattr(self, name) for name in self.__match_args__], ()  # type: ignore[attr-defined]

    @classmethod
    def unpack(cls, row: Row, token_ids: list[int]) -> Self:
        """Return the message with these fields."""
        return cls(*row)


Message = TypeVar("Message", bound=Frame)


def encode_frame(message: Message, kinds: Sequence[type[Message]]) -> bytes:
    """Return the frame of one message; both ends know the same ``kinds``."""
    row, token_ids = message.pack()
    text = json.dumps(row, separators=(",", ":")).encode()
    ids = array("i", token_ids).tobytes()
    return _HEAD.pack(kinds.index(type(message)), len(text), len(ids)) + text + ids


class FrameReader(Generic[Message]):
    """Cut a byte stream into messages, however it is torn. Not thread-safe."""

    def __init__(self, kinds: Sequence[type[Message]]) -> None:
        self._kinds = kinds
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """Return the messages that are complete with ``data``."""
        self._buffer += data
        messages: list[Message] = []
        position = 0
        while len(self._buffer) >= position + _HEAD.size:
            number, text_bytes, ids_bytes = _HEAD.unpack_from(self._buffer, position)
            text_at = position + _HEAD.size
            ids_at, end = text_at + text_bytes, text_at + text_bytes + ids_bytes
            if len(self._buffer) < end:
                break
            position = end
            token_ids = array("i", bytes(self._buffer[ids_at:end])).tolist()
            messages.append(self._kinds[number].unpack(json.loads(self._buffer[text_at:ids_at]), token_ids))
        del self._buffer[:position]
        return messages
