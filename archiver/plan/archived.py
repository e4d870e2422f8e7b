"""The plan that an archive is built by and carries: for this machine, for GPUs that are named, or made before."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from archiver.errors import UsageError
from archiver.package.archive import ArchiveSpec
from archiver.package.model_config import load_model_config
from archiver.plan.command import PlanOptions, plan_for
from archiver.plan.model.source import read_model
from archiver.plan.plan import Plan
from archiver.plan.target import TargetOptions
from handlers.memory_ledger import PLAN_FILE, SCHEMA

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlanChoice:
    """What the user says of an archive's plan: ``target``, or a ``file`` that ``marquee plan --out`` wrote, or that he wants none."""

    target: TargetOptions = TargetOptions()
    file: Path | None = None
    is_wanted: bool = True

    def __post_init__(self) -> None:
        if not self.is_wanted and (self.file or self.target != TargetOptions()):
            raise UsageError("--no-plan leaves nothing to plan for: leave --gpu, --count, --auto and --plan out")
        if self.file and self.target != TargetOptions():
            raise UsageError("--plan says what it is for: leave --gpu, --count and --auto out")

    @property
    def is_explicit(self) -> bool:
        """Whether the user named what to plan for; a plan for this machine, unasked, is left out where it cannot be made."""
        return self.file is not None or self.target != TargetOptions()


def with_plan(spec: ArchiveSpec, choice: PlanChoice) -> ArchiveSpec:
    """Return what to build with the plan in it, whose settings it has; the user's own go first.

    Raises UsageError for a plan that was asked for by name and cannot be made or does not fit; without that a warning says why there is
    none.
    """
    if not choice.is_wanted:
        return spec
    try:
        content = _read(choice.file, spec) if choice.file else _make(spec, choice.target)
    except UsageError as error:
        if choice.is_explicit:
            raise
        logger.warning("no plan goes into the archive: %s", error)
        return spec
    user = load_model_config(spec.config, spec.settings).get("handler", {}).get("engine") or {}
    engine = {**content["settings"], **user}
    return replace(
        spec,
        settings={**spec.settings, "engine": engine} if engine else spec.settings,
        frontend=content["frontend"],
        plan=json.dumps(content, indent=1).encode() + b"\n",
    )


def _make(spec: ArchiveSpec, target: TargetOptions) -> Mapping[str, Any]:
    options = PlanOptions(
        model=str(spec.source),
        target=target,
        engine="marquee",
        config=spec.config,
        settings=spec.settings.get("engine"),
        has_own_code=spec.handler is not None,
    )
    plan, warnings = plan_for(options)
    for warning in warnings:
        logger.warning(warning)
    if plan.verdict.fits == "no":
        raise UsageError(_refusal(plan))
    return plan.to_dict()


def _read(file: Path, spec: ArchiveSpec) -> Mapping[str, Any]:
    """Read a plan that was made before, for this very model."""
    try:
        content = json.loads(file.read_bytes())
        schema, engine = content["schema"], content["engine"]
        planned = content["model"]["architecture"], content["model"]["num_parameters"]
        plan: dict[str, Any] = content | {key: content[key] for key in ("settings", "frontend", "ledger")}
    except OSError as error:
        raise UsageError(f"cannot read --plan {file}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"--plan {file} is no {PLAN_FILE} of `marquee plan --out`") from None
    if schema != SCHEMA:
        raise UsageError(f"--plan {file} is of another version of marquee: make it again with `marquee plan --out`")
    if engine != "marquee":
        raise UsageError(f"--plan {file} is for the engine {engine}: make one for ours with `marquee plan --engine marquee --out`")
    model = read_model(spec.source)
    actual = model.architecture, model.num_elements
    if planned != actual:
        raise UsageError(f"--plan {file} is for {_named(*planned)}, and {spec.source.name} is {_named(*actual)}")
    return plan


def _named(architecture: str, num_parameters: int) -> str:
    return f"a {architecture} of {num_parameters:,} parameters"


def _refusal(plan: Plan) -> str:
    changes = "; ".join(remedy.change for remedy in plan.remedies)
    advice = f" Would fit: {changes}." if changes else ""
    return f"{plan.request.model.name} {plan.verdict}.{advice} --no-plan packages it all the same"
