"""``marquee serve``: from models to a server in the foreground, until a signal stops it."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.status import Status

from archiver.deploy.announce import announce, ready_record
from archiver.deploy.launch import TorchServe
from archiver.deploy.prepare import PackagingOptions, prepare_model
from archiver.deploy.properties import ServerSettings
from archiver.deploy.readiness import ServerDied
from archiver.deploy.served_model import ServedModel
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
    """Serve until SIGINT, SIGTERM or SIGHUP, then stop everything.

    Standard output gets the ready block, or one line of JSON; progress goes to standard error. Raises UsageError, LoadFailed or ServerDied.
    """
    started = time.monotonic()
    with _stop_on_signals(), Console(stderr=True).status("checking") as status:
        models = _prepare(request, status)
        with TorchServe.start(models, port=request.port, settings=request.settings, progress=status.update) as server:
            status.stop()
            _report_ready(server, as_json, time.monotonic() - started)
            code = server.wait()
            raise ServerDied(f"TorchServe ended by itself with status {code}")


def _report_ready(server: TorchServe, as_json: bool, seconds: float) -> None:
    if as_json:
        print(json.dumps(ready_record(server)), flush=True)
    else:
        announce(server, Console(), seconds)


def _prepare(request: ServeRequest, status: Status) -> list[ServedModel]:
    if request.name and len(request.models) > 1:
        raise UsageError("--name is for one model: with several write NAME=PATH for each")
    named = [split_name(model) for model in request.models]
    return [
        prepare_model(
            path,
            name=name or request.name,
            revision=request.revision,
            options=request.packaging,
            progress=lambda done, total, path=path: status.update(f"packaging {path}: {done / max(total, 1):.0%} of {total / 2**30:.1f} GiB"),
        )
        for name, path in named
    ]


def split_name(model: str) -> tuple[str | None, str]:
    """Split ``NAME=PATH`` as TorchServe's own ``--models`` takes it; a path that exists is a path, whatever is in it."""
    name, equals, path = model.partition("=")
    return (name, path) if equals and not Path(model).exists() else (None, model)


@contextmanager
def _stop_on_signals() -> Iterator[None]:
    """Leave the block in order when a signal asks to stop; a second signal does not cut the stopping short, which takes seconds."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def stop(_number: int, _frame: FrameType | None) -> None:
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        raise _Stopped

    previous = {each: signal.signal(each, stop) for each in signals}
    try:
        yield
    except _Stopped:
        pass
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)
