"""What can be asked of the management API, without input and output.

Paths, parameters and answers are those of TorchServe 0.12 (``/api-description`` on the management address). Its ``synchronous=true`` is not
used: until the workers have loaded, a request that waits so occupies one of the frontend's few network threads, and with it stand still all
connections that this thread serves, streams of text included. What is asked for is accepted at once, and then watched.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import httpx

from archiver.deploy.management.calls import Call, Operation, Pause, read
from archiver.deploy.management.errors import LoadFailed, ManagementError, ModelNotFound, Refused
from archiver.deploy.management.status import ModelStatus, ModelSummary, read_page, read_statuses, read_worker_answer
from archiver.errors import UsageError

OnStatus = Callable[[ModelStatus], None]
"""Is told how a model is doing that is waited for; what it raises ends the wait."""

_Key = tuple[str, str]
"""A model's name and version."""

_POLL_S = 0.2
# In a row; each may have taken the whole time that an answer may take.
_MOST_MISSED_POLLS, _PAUSE_AFTER_MISS_S = 5, 1.0
# A registration that was interrupted may take so long to show up.
_MOST_UNDO_POLLS = 25
_AT_ONCE = {"synchronous": "false"}  # registering waits unless it is told not to


def list_models() -> Operation[tuple[ModelSummary, ...]]:
    """Return all registered models."""
    models: list[ModelSummary] = []
    token: str | None = "0"
    while token:
        page, token = read((yield Call("GET", "/models", {"limit": "100", "next_page_token": token})), read_page)
        models += page
    return tuple(models)


def describe(name: str, version: str | None = None) -> Operation[ModelStatus]:
    """Return one version of a model, by default the default one.

    The plain description only: ``?customized=true`` asks the worker, which a busy continuous handler does not survive.
    """
    (default,) = read((yield Call("GET", _path(name))), read_statuses)
    if version in (None, default.version):
        return replace(default, is_default=True)
    (described,) = read((yield Call("GET", _path(name, version))), read_statuses)
    return described


def versions(name: str) -> Operation[tuple[ModelStatus, ...]]:
    """Return all versions of a model, in the server's order."""
    (default,) = read((yield Call("GET", _path(name))), read_statuses)
    every = read((yield Call("GET", _path(name, "all"))), read_statuses)
    return tuple(replace(one, is_default=one.version == default.version) for one in every)


def register(archive: str, name: str | None, workers: int, on_status: OnStatus) -> Operation[ModelStatus]:
    """Register an archive and wait until its workers have loaded it; if that fails or is interrupted, it is removed again.

    Without ``name`` the archive's own is taken. A ``minWorkers`` in its model-config.yaml wins over ``workers``.
    """
    if "://" in archive and not archive.startswith("https://"):
        raise UsageError(f"{archive}: an archive is code that the server runs, so from other machines it is taken over https only")
    params = {"url": archive, **({"model_name": name} if name else {}), "initial_workers": str(workers)} | _AT_ONCE
    before = yield from _registered(name)
    try:
        response = yield Call("POST", "/models", params, timeout_s=None)  # it is fetched and unpacked first
    except BaseException:  # the server may have got it all the same
        yield from _take_back(archive, name, before)
        raise
    read(response)
    try:
        new = yield from _new_versions(archive, name, before)
        if len(new) != 1:  # the answer does not tell
            raise Refused(f"{archive} was accepted, but is not to be found: look for it with `marquee models list`")
        return (yield from _wait_until_loaded(*new[0], on_status))
    except BaseException:
        yield from _take_back(archive, name, before)
        raise


def scale_workers(name: str, version: str, workers: int, on_status: OnStatus) -> Operation[ModelStatus]:
    """Have this number of workers, and wait until they are all there is; ends the last ones if there are more, whatever they work on.

    New ones that cannot load, or are not waited for to the end, are ended again; TorchServe would start them over and over.
    """
    before = len((yield from describe(name, version)).workers)
    try:
        yield from _want_workers(name, version, workers)
        return (yield from _wait_until_loaded(name, version, on_status))
    except BaseException:
        if workers > before:
            yield from _end_unready(name, version, before)
        raise


def set_default(name: str, version: str) -> Operation[None]:
    """Have requests that name no version go to this one."""
    read((yield Call("PUT", f"{_path(name, version)}/set-default")))


def unregister(name: str, version: str) -> Operation[None]:
    """Remove one version and end its workers; whatever they are working on is not even refused, but never answered."""
    read((yield Call("DELETE", _path(name, version))))


def check_model_api() -> Operation[None]:
    """Raise ModelApiOff unless models can be registered and removed: registering nothing is refused in another way where they can."""
    with contextlib.suppress(Refused):
        read((yield Call("POST", "/models")))


def ask_a_worker(name: str, version: str, timeout_s: float) -> Operation[dict[str, Any]]:
    """Return what the next free worker says of itself. For synchronous models only; a busy continuous worker does not survive it."""
    return read((yield Call("GET", _path(name, version), {"customized": "true"}, timeout_s)), read_worker_answer)


def _want_workers(name: str, version: str, workers: int) -> Operation[None]:
    read((yield Call("PUT", _path(name, version), {"min_worker": str(workers), "max_worker": str(workers)} | _AT_ONCE)))


def _end_unready(name: str, version: str, before: int) -> Operation[None]:
    """End those new workers, beyond the first ``before``, that have not loaded, as far as the server can be reached."""
    with contextlib.suppress(ManagementError, httpx.RequestError):
        workers = list((yield from describe(name, version)).workers)
        while len(workers) > before and not workers[-1].is_ready:  # one that did load may be working by now
            workers.pop()
        yield from _want_workers(name, version, max(len(workers), before))


def _take_back(archive: str, name: str | None, before: Mapping[_Key, str]) -> Operation[None]:
    """Remove what has been registered from ``archive`` since ``before``, or is about to be, as far as the server can be reached."""
    for _ in range(_MOST_UNDO_POLLS):
        with contextlib.suppress(ManagementError, httpx.RequestError):
            new = yield from _new_versions(archive, name, before)
            for key in new:
                yield from unregister(*key)
            if new:
                return
        yield Pause(_POLL_S)


def _wait_until_loaded(name: str, version: str, on_status: OnStatus) -> Operation[ModelStatus]:
    """Wait until there are as many workers as wanted, and all have loaded. Loading takes as long as the weights are large."""
    pids: dict[str, int] = {}
    num_missed = 0
    while True:
        try:
            status = yield from describe(name, version)
        except httpx.TransportError:  # a frontend that loads is slow to answer now and then
            num_missed += 1
            if num_missed > _MOST_MISSED_POLLS:
                raise
            yield Pause(_PAUSE_AFTER_MISS_S)
            continue
        num_missed = 0
        if status.num_ready == len(status.workers) == status.min_workers:
            return status
        on_status(status)
        for worker in status.workers:
            # TorchServe starts one that died anew, in another process; a process has no id before it runs.
            if not worker.is_ready and 0 < pids.get(worker.id, 0) != worker.pid:
                raise LoadFailed(f"{name} {version}: a worker died while it loaded; the server's log says why")
            pids[worker.id] = worker.pid
        yield Pause(_POLL_S)


def _new_versions(archive: str, name: str | None, before: Mapping[_Key, str]) -> Operation[list[_Key]]:
    """Return what has been registered from ``archive`` since ``before``; what others register meanwhile comes from elsewhere."""
    now = yield from _registered(name)
    return [key for key, origin in now.items() if key not in before and origin == archive]


def _registered(name: str | None) -> Operation[dict[_Key, str]]:
    """Return the archives of all that is registered, or of all versions of one model."""
    names = [name] if name else [model.name for model in (yield from list_models())]
    found: dict[_Key, str] = {}
    for each in names:
        with contextlib.suppress(ModelNotFound):
            found |= {(each, status.version): status.archive for status in (yield from versions(each))}
    return found


def _path(*parts: str) -> str:
    return "/".join(["/models", *(quote(part, safe="") for part in parts)])
