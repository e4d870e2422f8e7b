"""Make a served model of whatever the user names: a checkpoint, a GGUF file, an archive, a model on the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from archiver.deploy.archive_cache import cached_archive
from archiver.deploy.served_model import ServedModel
from archiver.errors import UsageError
from archiver.package.archive import ArchiveSpec
from archiver.package.checkpoint import weights_format
from archiver.package.source import resolve_model
from archiver.plan.archived import PlanChoice, with_plan
from handlers.errors import ConfigError
from handlers.integrity import Progress
from handlers.quant.formats import PLAIN
from handlers.quant.machine import Machine
from handlers.quant.preflight import check_weights


@dataclass(frozen=True)
class PackagingOptions:
    """How a checkpoint is packaged on the way; an archive has all of it inside. ``settings``: entries of the ``handler:`` section."""

    version: str = "1.0"
    handler: Path | None = None
    extra: tuple[Path, ...] = ()
    requirements: Path | None = None
    config: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    plan: PlanChoice = PlanChoice()
    draft_model: Path | None = None


def prepare_model(
    model: str | Path,
    *,
    name: str | None = None,
    revision: str | None = None,
    options: PackagingOptions = PackagingOptions(),
    progress: Progress | None = None,
) -> ServedModel:
    """Return what to serve for ``model``; a checkpoint is packaged, or its archive found in the cache.

    Without a ``name`` a checkpoint goes by its directory's, an archive by the one in its manifest. Raises UsageError, in one line, for what
    cannot be served.
    """
    source = resolve_model(model, revision=revision)
    if source.kind == "archive":
        _refuse_options(model, options)
        return ServedModel.from_archive(source.path, name)
    _check_machine(source.path)
    spec = ArchiveSpec(
        source=source.path,
        name=name or model_name_from(source.name),
        version=options.version,
        handler=options.handler,
        extra=options.extra,
        requirements=options.requirements,
        config=options.config,
        settings=options.settings,
        draft_model=options.draft_model,
    )
    return ServedModel.from_archive(cached_archive(with_plan(spec, options.plan), progress))


def model_name_from(text: str) -> str:
    """Return ``text`` as a model name: letters, digits, ``_``, ``-`` and ``.``, the first one a letter or digit."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-._") or "model"


def _check_machine(checkpoint: Path) -> None:
    """Refuse weights that this machine cannot run, before the work of packaging; the worker would."""
    row = weights_format(checkpoint)
    if row is PLAIN:
        return  # without a look for GPUs, for which torch is imported
    try:
        check_weights(row, Machine.here())
    except ConfigError as error:
        raise UsageError(f"{checkpoint}: {error}") from None


def _refuse_options(archive: str | Path, options: PackagingOptions) -> None:
    given = [option.name for option in fields(options) if getattr(options, option.name) != getattr(PackagingOptions(), option.name)]
    if given:
        raise UsageError(f"{archive} is an archive and has its own {given[0]}: leave --{given[0]} out, or serve the checkpoint")
