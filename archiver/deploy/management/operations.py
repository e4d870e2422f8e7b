"""What can be asked of the management API, without input and output: requests go out of a generator, responses come in.

Paths, parameters and answers are those of TorchServe 0.12 (``/api-description`` on the management address).
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote

import httpx

from archiver.deploy.management.errors import Conflict, LoadFailed, ModelApiOff, ModelNotFound, Refused, Unauthorized
from archiver.deploy.management.keys import is_key_refused
from archiver.deploy.management.status import ModelStatus, ModelSummary, read_status, read_summary
from archiver.errors import UsageError

T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """One request. ``timeout_s``: how long its answer may take; None for as long as it takes, where workers have to load a model first."""

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float | None = 10.0


_REGISTERED = re.compile(r'Model "(?P<name>.+)" Version: (?P<version>\S+) registered')

Operation = Generator[Call, httpx.Response, T]
"""Yields requests, is sent their responses, and returns what was asked for."""


def list_models() -> Operation[tuple[ModelSummary, ...]]:
    """Return all registered models."""
    models: list[ModelSummary] = []
    page: dict[str, Any] = {"nextPageToken": "0"}
    while "nextPageToken" in page:
        page = _read((yield Call("GET", "/models", {"limit": "100", "next_page_token": page["nextPageToken"]})))
        models += map(read_summary, page["models"])
    return tuple(models)


def describe(name: str, version: str | None = None) -> Operation[ModelStatus]:
    """Return one version of a model, by default the default one.

    The plain description only: ``?customized=true`` asks the worker, which a busy continuous handler does not survive.
    """
    (default,) = _read((yield Call("GET", _path(name))))
    if version in (None, default["modelVersion"]):
        return read_status(default, is_default=True)
    (described,) = _read((yield Call("GET", _path(name, version))))
    return read_status(described, is_default=False)


def versions(name: str) -> Operation[tuple[ModelStatus, ...]]:
    """Return all versions of a model, in the server's order."""
    (default,) = _read((yield Call("GET", _path(name))))
    every = _read((yield Call("GET", _path(name, "all"))))
    return tuple(read_status(one, is_default=one["modelVersion"] == default["modelVersion"]) for one in every)


def register(archive: str, name: str | None, workers: int) -> Operation[ModelStatus]:
    """Register an archive and wait until its workers have loaded it; of one that cannot be loaded the server keeps nothing.

    Without ``name`` the archive's own is taken. A ``minWorkers`` in its model-config.yaml wins over ``workers``.
    """
    if "://" in archive and not archive.startswith("https://"):
        raise UsageError(f"{archive}: an archive is code that the server runs, so from other machines it is taken over https only")
    params = {"url": archive, **({"model_name": name} if name else {}), "initial_workers": str(workers), "synchronous": "true"}
    answer = _read((yield Call("POST", "/models", params, timeout_s=None)))
    if registered := _REGISTERED.match(answer["status"]):
        return (yield from describe(registered["name"], registered["version"]))
    raise Refused(f"the server does not say what it has registered: {answer['status']}")


def scale_workers(name: str, version: str, workers: int) -> Operation[None]:
    """Have this number of workers, and wait for new ones; ends the last ones if there are more, whatever they are working on."""
    params = {"min_worker": str(workers), "max_worker": str(workers), "synchronous": "true"}
    _read((yield Call("PUT", _path(name, version), params, timeout_s=None)))


def set_default(name: str, version: str) -> Operation[None]:
    """Have requests that name no version go to this one."""
    _read((yield Call("PUT", f"{_path(name, version)}/set-default")))


def unregister(name: str, version: str) -> Operation[None]:
    """Remove one version and end its workers, whatever they are working on."""
    _read((yield Call("DELETE", _path(name, version))))


def ask_a_worker(name: str, version: str, timeout_s: float) -> Operation[dict[str, Any]]:
    """Return what the next free worker says of itself. For synchronous models only; a busy continuous worker does not survive it."""
    (described,) = _read((yield Call("GET", _path(name, version), {"customized": "true"}, timeout_s)))
    answer: dict[str, Any] = described.get("customizedMetadata") or {}
    return answer


def _path(*parts: str) -> str:
    return "/".join(["/models", *(quote(part, safe="") for part in parts)])


def _read(response: httpx.Response) -> Any:
    """Return the JSON of an answer; raise the error that stands for any other than 2xx."""
    if response.is_success:
        return response.json()
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
        case 500 if "Failed to start workers" in message:
            raise LoadFailed(message)
    raise Refused(f"the server answers {response.status_code}: {message}")


def _message(response: httpx.Response) -> str:
    try:
        return " ".join(str(response.json()["message"]).split())
    except (ValueError, KeyError, TypeError):  # not from TorchServe: a proxy in between
        return response.reason_phrase or "no message"
