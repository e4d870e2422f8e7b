"""Register an archive with a running server and take it away again, leaving nothing half done."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from archiver.deploy.local_server import LocalServer
from archiver.deploy.management import Conflict, ManagementError, ModelNotFound, ModelStatus, Refused
from archiver.deploy.models import store
from archiver.deploy.models.draining import drained
from archiver.deploy.models.load_watch import LoadWatch
from archiver.deploy.models.progress import SILENT, Progress
from archiver.deploy.models.scaling import scale_model
from archiver.deploy.running_server import RunningServer
from archiver.deploy.served_model import ServedModel
from archiver.errors import ArchiverError, UsageError
from archiver.package.verification import verify_archive


@dataclass(frozen=True)
class _Offer:
    """An archive as the server takes it: a name in its model store, or a URL. ``name``: the model's, where it is known beforehand."""

    url: str
    name: str | None


def register_model(
    server: RunningServer,
    source: str,
    *,
    name: str | None = None,
    count: int = 1,
    progress: Progress = SILENT,
) -> ModelStatus:
    """Register an archive and return when it can answer, with ``count`` workers, or engine replicas of a continuous model.

    ``source``: a ``.mar`` file or an archive directory, which is verified and put into the model store of a server on this machine;
    the name of what lies in the model store already; or an https URL that the server's ``allowed_urls`` admits.
    After a failure or an interruption nothing of it stays. Raises UsageError, ArchiverError for a damaged archive, LoadFailed with the
    worker's own cause, other ManagementErrors.
    """
    server.management.check_model_api()  # rather now than when it is verified and unpacked
    with _offered(server, source, name, progress) as offer:
        status = server.management.register(offer.url, offer.name, on_status=LoadWatch(server, progress))
        try:
            if count > 1:
                scale_model(server, status, count, progress=progress)
            return server.management.describe(status.name, status.version)
        except BaseException:
            with contextlib.suppress(ManagementError):  # what went wrong first is what is told
                server.management.unregister(status.name, status.version)
            raise


def unregister_model(
    server: RunningServer, model: ModelStatus, *, drain_timeout_s: float = 60.0, force: bool = False, progress: Progress = SILENT
) -> None:
    """Remove a version when nobody uses it any more, or at once with ``force``. Raises StillBusy, NotDrainable, ManagementError."""
    if not force:
        _check_removable(server, model)
    with contextlib.nullcontext() if force else drained(server, model, drain_timeout_s, progress):
        server.management.unregister(model.name, model.version)
    if server.local:
        store.remove(model.archive, server.local.model_store)


def _check_removable(server: RunningServer, model: ModelStatus) -> None:
    """Raise what the server would say to its removal, before its workers are made to wait for it."""
    server.management.check_model_api()
    versions = server.management.versions(model.name)
    if len(versions) > 1 and any(one.is_default and one.version == model.version for one in versions):
        raise Refused(
            f"{model.name} {model.version} is the default and cannot go while there are others: "
            f"make one of them the default, with `marquee models default {model.name} VERSION`"
        )


def _is_registered(server: RunningServer, name: str, archive: str) -> bool:
    """Whether a version comes from ``archive``, or may."""
    try:
        return any(version.archive == archive for version in server.management.versions(name))
    except ModelNotFound:
        return False
    except ManagementError:
        return True


@contextmanager
def _offered(server: RunningServer, source: str, name: str | None, progress: Progress) -> Iterator[_Offer]:
    """Put the archive within the server's reach; out of it again if the block fails."""
    if "://" in source:
        _check_allowed(source, server.local)
        yield _Offer(source, name)
        return
    path = Path(source)
    if not path.exists() and path.name == source:
        yield _Offer(source, name)  # the server will say if it has none of that name
        return
    model = ServedModel.from_archive(path, name)
    local = _local(server, source)
    _check_requirements(model, local)
    _check_new(server, model)
    _check_archive(path, progress)
    if model.archive.is_dir() and model.archive.parent == local.model_store.resolve():
        yield _Offer(model.archive.name, model.name)
        return
    place = store.place(model.archive, local.model_store, f"{model.name}-{model.version}", progress)
    try:
        yield _Offer(place.name, model.name)
    except BaseException:
        if not _is_registered(server, model.name, place.name):
            store.remove(place.name, local.model_store)
        raise


def _local(server: RunningServer, source: str) -> LocalServer:
    if server.local is None:
        raise UsageError(
            f"no TorchServe of this user listens at {server.management.url} on this machine, so {source} cannot be put into its model "
            "store: put it there and register it by its file name, or register an https URL"
        )
    return server.local


def _check_allowed(url: str, local: LocalServer | None) -> None:
    allowed = local.properties().get("allowed_urls") if local else None
    if allowed and not any(re.fullmatch(pattern.strip(), url) for pattern in allowed.split(",")):
        raise UsageError(f"the server does not take archives from {url}: its allowed_urls are {allowed}")


def _check_requirements(model: ServedModel, local: LocalServer) -> None:
    if model.has_requirements and local.properties().get("install_py_dep_per_model") != "true":
        raise UsageError(f"{model.archive} has requirements, which this server does not install: set install_py_dep_per_model=true")


def _check_new(server: RunningServer, model: ServedModel) -> None:
    with contextlib.suppress(ModelNotFound):
        if model.version in [other.version for other in server.management.versions(model.name)]:
            raise Conflict(f"{model.name} {model.version} is registered already: build another version with `marquee archive --version …`")


def _check_archive(path: Path, progress: Progress) -> None:
    report = verify_archive(path, progress=lambda done, total: progress.doing(f"verifying {path}: {done / max(total, 1):.0%}"))
    if not report.ok:
        raise ArchiverError(f"{path} is damaged: {report.problems[0]} (`marquee verify {path}` shows all)")
