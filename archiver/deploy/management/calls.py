"""What an operation and whoever drives it exchange: requests and pauses go out, responses come in, errors stand for refusals."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx

from archiver.deploy.management.errors import Conflict, ModelApiOff, ModelNotFound, Refused, Unauthorized
from archiver.deploy.management.keys import is_key_refused

T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """One request. ``timeout_s``: how long its answer may take; None for as long as it takes."""

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float | None = 10.0


@dataclass(frozen=True)
class Pause:
    """Nothing, for a while."""

    seconds: float


Operation = Generator[Call | Pause, httpx.Response | None, T]
"""Yields requests and is sent their responses, yields pauses and is sent None, and returns what was asked for.

Whatever ends a request or a pause, an interruption too, is thrown into it: it undoes what would be half done, and raises it again.
"""


def _as_it_is(answer: Any) -> Any:
    return answer


def read(response: httpx.Response | None, parse: Callable[[Any], T] = _as_it_is) -> T:
    """Return what ``parse`` makes of an answer's JSON; raise the error that stands for any that is not 2xx or not TorchServe's."""
    assert response is not None, "a call was answered like a pause"
    if response.is_success:
        try:
            return parse(response.json())
        except (ValueError, LookupError, TypeError, AttributeError):  # not JSON, or none of that form
            root = response.url.copy_with(path="/", query=None)
            raise Refused(f"what answers at {root} is no TorchServe: name its management API's address with --url") from None
    message = _message(response)
    if is_key_refused(response):
        raise Unauthorized(
            "the server asks for a management key, and there is none, or not the right one: name its key_file.json with --key-file"
        )
    match response.status_code:
        case 405:
            raise ModelApiOff(
                "the management API's model functions are off: start with `marquee serve … --model-api`, "
                "or set enable_model_api=true in config.properties"
            )
        case 404 if "allowed URL" in message:
            raise Refused(f"{message}: allowed_urls in the server's config.properties says from where it takes archives")
        case 404 if "Model not found at" in message:
            raise Refused(f"{message.replace('Model not found at: ', 'the server finds no archive ')}: put it into its model store")
        case 404:
            raise ModelNotFound(f"{message}; `marquee models list` shows what there is")
        case 409:
            raise Conflict(f"{message}: build another with `marquee archive --version …`, or unregister that one")
        case 403:
            raise Refused(f"{message} while it has others: make one of them the default, with `marquee models default`")
    raise Refused(f"the server answers {response.status_code}: {message}")


def _message(response: httpx.Response) -> str:
    try:
        return " ".join(str(response.json()["message"]).split())
    except (ValueError, KeyError, TypeError):  # not from TorchServe: a proxy in between
        return response.reason_phrase or "no message"
