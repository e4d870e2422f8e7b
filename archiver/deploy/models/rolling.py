"""Replace a model by a new version of it while clients are served.

The new version is registered beside the old one, asked something, and only then made the default: until that moment a failure leaves
everything as it was. The old one goes when the last of its requests is answered.
"""

from __future__ import annotations

from dataclasses import dataclass

from archiver.deploy.management import ModelStatus
from archiver.deploy.models.draining import controls_of
from archiver.deploy.models.listing import list_versions
from archiver.deploy.models.probe import TEXT_GENERATION, Probe
from archiver.deploy.models.progress import SILENT, Progress
from archiver.deploy.models.registration import register_model, unregister_model
from archiver.deploy.running_server import RunningServer
from archiver.errors import ArchiverError


@dataclass(frozen=True)
class Rolled:
    """Which version serves now, instead of which; ``is_old_kept``: whether that one is still registered."""

    name: str
    old_version: str
    new_version: str
    is_old_kept: bool


def roll_model(
    server: RunningServer,
    name: str,
    source: str,
    *,
    probe: Probe | None = TEXT_GENERATION,
    drain_timeout_s: float = 60.0,
    keep_old: bool = False,
    progress: Progress = SILENT,
) -> Rolled:
    """Have the archive at ``source`` (see ``register_model``) answer for ``name``, with as many workers or replicas as the version before.

    Raises ArchiverError: before the switch the old version serves on, alone, as it did; after it the new one serves, and the message says
    how to remove the old one, which has been left because it is still in use.
    """
    (old,) = (listed for listed in list_versions(server, name) if listed.status.is_default)
    if not keep_old:
        controls_of(server, old.status, old.status.workers)  # rather now than after the switch
    count = len(old.replicas or ()) if old.status.is_continuous else len(old.status.workers)
    new = register_model(server, source, name=name, count=max(count, 1), progress=progress)
    progress.done(f"{name} {new.version} is loaded")
    _switch(server, old.status, new, probe, progress)
    if not keep_old:
        _retire(server, old.status, new, drain_timeout_s, progress)
    return Rolled(name, old.status.version, new.version, keep_old)


def _switch(server: RunningServer, old: ModelStatus, new: ModelStatus, probe: Probe | None, progress: Progress) -> None:
    try:
        if probe:
            progress.doing(f"{new.name} {new.version}: answering the probe")
            probe.send(server, new)
            progress.done(f"{new.name} {new.version} answers the probe")
        server.management.set_default(new.name, new.version)
    except BaseException:
        progress.doing(f"removing {new.name} {new.version}")
        unregister_model(server, new, force=True)
        progress.done(f"{new.name} {new.version} is removed, {old.version} serves on")
        raise
    progress.done(f"{new.name} {new.version} is the default instead of {old.version}")


def _retire(server: RunningServer, old: ModelStatus, new: ModelStatus, drain_timeout_s: float, progress: Progress) -> None:
    try:
        unregister_model(server, old, drain_timeout_s=drain_timeout_s, progress=progress)
    except (ArchiverError, KeyboardInterrupt) as error:
        raise ArchiverError(
            f"{new.name} {new.version} serves; {old.version} is left ({error or 'interrupted'}): clients that name it in their URLs must "
            f"name {new.version}, then `marquee models unregister {old.name} --version {old.version}`"
        ) from error
    progress.done(f"{old.name} {old.version} has answered its last request and is removed")
