"""``marquee serve``: from models to a server in the foreground, until a signal stops it."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from rich.console import Console

from archiver.deploy.announce import announce, ready_record
from archiver.deploy.launch import TorchServe, check_machine
from archiver.deploy.prepare import PackagingOptions, prepare_model
from archiver.deploy.readiness import ServerDied
from archiver.deploy.served_model import ServedModel
from archiver.deploy.settings import ServerSettings
from archiver.display import byte_progress
from archiver.errors import UsageError


@dataclass(frozen=True)
class ServeRequest:
    """What the user asked for. ``models``: paths or hub ids, each with ``NAME=`` before it or not; ``name``: of the only model."""

    models: Sequence[str]
    name: str | None = None
    revision: str | None = None
    port: int = 8080
    settings: ServerSettings = ServerSettings()
    packaging: PackagingOptions = PackagingOptions()


class _Stopped(BaseException):
    """A signal asked to stop; no error, so no handler of errors may catch it."""


def serve(request: ServeRequest, *, as_json: bool = False) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP; then refuse new requests, let the others finish, and stop everything. A second signal hurries.

    Standard output gets the ready block, or one line of JSON; progress goes to standard error. Raises UsageError, LoadFailed or ServerDied.
    """
    started = time.monotonic()
    with _stop_on_signals() as next_signal_counts:
        check_machine(request.port, request.settings)  # before the work of packaging
        models = _prepare(request)
        with _start(models, request) as server:
            if as_json:
                Console().out(json.dumps(ready_record(server)), highlight=False)
            else:
                announce(server, Console(), time.monotonic() - started)
            try:
                status = server.wait()
            except _Stopped:
                with next_signal_counts():
                    _drain(server)
                return
            raise ServerDied(f"TorchServe ended by itself with status {status} (logs: {server.logs})")


def _start(models: Sequence[ServedModel], request: ServeRequest) -> TorchServe:
    with Console(stderr=True).status("starting TorchServe") as status:
        return TorchServe.start(models, port=request.port, settings=request.settings, progress=status.update)


def _drain(server: TorchServe) -> None:
    console = Console(stderr=True)
    with console.status("finishing what is under way; Ctrl-C stops at once"):
        is_done = server.drain()
    if not is_done:
        console.print(f"some requests took longer than {server.settings.drain_timeout_s:g} s and were ended", highlight=False)


def _prepare(request: ServeRequest) -> list[ServedModel]:
    if request.name and len(request.models) > 1:
        raise UsageError("--name is for one model: with several write NAME=PATH for each")
    return [_prepare_one(*split_name(model), request) for model in request.models]


def _prepare_one(name: str | None, path: str, request: ServeRequest) -> ServedModel:
    with byte_progress(f"packaging {path}") as progress:
        return prepare_model(path, name=name or request.name, revision=request.revision, options=request.packaging, progress=progress)


def split_name(model: str) -> tuple[str | None, str]:
    """Split ``NAME=PATH`` as TorchServe's own ``--models`` takes it; a path that exists is a path, whatever is in it."""
    name, equals, path = model.partition("=")
    return (name, path) if equals and not Path(model).exists() else (None, model)


@contextmanager
def _stop_on_signals() -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Leave the block in order when a signal asks to stop; further ones are ignored, for the stopping is not to be cut short.

    Yields a context manager in which a further one leaves the block, too.
    """
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def set_all(handler: signal.Handlers | Callable[[int, FrameType | None], None]) -> None:
        for each in signals:
            signal.signal(each, handler)

    def stop(_number: int, _frame: FrameType | None) -> None:
        set_all(signal.SIG_IGN)
        raise _Stopped

    @contextmanager
    def armed() -> Iterator[None]:
        set_all(stop)
        try:
            yield
        finally:
            set_all(signal.SIG_IGN)

    previous = {each: signal.getsignal(each) for each in signals}
    set_all(stop)
    try:
        yield armed
    except _Stopped:
        pass
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)
