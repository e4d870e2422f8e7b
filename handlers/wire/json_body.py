"""Bytes from a stranger to a JSON object: every malformed body becomes an InvalidRequest, none an exception of Python's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from handlers.errors import InvalidRequest
from handlers.frontend import Incoming

_SUSPECT_ESCAPE = re.compile(rb"\\u(0000|[dD][89a-fA-F])")


def parse_json_object(incoming: Incoming) -> dict[str, Any]:
    """Return the body as a mapping whose strings are text (see `check_text`); raise InvalidRequest otherwise."""
    if not incoming.body:
        raise InvalidRequest("the request has no body; send a JSON object with the header 'Content-Type: application/json'")
    try:
        value = json.loads(incoming.body.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the body is not valid UTF-8 (byte {error.start})") from None
    except RecursionError:
        raise InvalidRequest("the body is nested too deeply") from None
    except ValueError as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidRequest(f"the body must be a JSON object, not {type(value).__name__}")
    if _SUSPECT_ESCAPE.search(incoming.body):
        for text in _strings(value):
            check_text(text)
    return value


def check_text(text: str) -> None:
    """Raise InvalidRequest for what no tokenizer takes: NUL, and halves of surrogate pairs (JSON's ``\\ud800`` alone)."""
    if "\0" in text:
        raise InvalidRequest("the text holds the character NUL (U+0000), which is not text")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidRequest("the text holds half of a surrogate pair (U+D800 to U+DFFF), which is no character") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for name, item in pairs:
        if name in value:
            raise ValueError(f"the key {name[:80]!r} comes twice in one object")
        value[name] = item
    return value


def _strings(value: Any) -> Iterator[str]:
    """Walk without recursion: a body may be nested deeper than Python's stack."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            stack.extend(item.keys())
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
