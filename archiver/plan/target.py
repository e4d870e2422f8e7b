"""The machine that a plan is for: a GPU by its name, what this machine has, or its CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from archiver.errors import UsageError
from archiver.plan.hardware.catalogue import find_hardware
from archiver.plan.hardware.cpu import this_cpu
from archiver.plan.hardware.detect import detect
from archiver.plan.hardware.measurement import measure_cpu
from archiver.plan.hardware.profile import Hardware
from archiver.plan.model.facts import ModelFacts
from archiver.plan.model.storage import requantize, with_dtype
from handlers.quant.formats import PLAIN

OnStage = Callable[[str, int, int], None]


@dataclass(frozen=True)
class TargetOptions:
    """What the user says of the machine: ``gpu`` by name or profile, or ``cpu``; neither is this machine, as it is, which is ``auto``."""

    gpu: str | None = None
    count: int | None = None
    auto: bool = False
    cpu: bool = False
    measure: bool = False


@dataclass(frozen=True)
class Target:
    """``count`` devices of ``hardware``; ``warnings`` are sentences for the user."""

    hardware: Hardware
    count: int = 1
    warnings: tuple[str, ...] = ()


def find_target(options: TargetOptions, on_stage: OnStage = lambda stage, done, total: None) -> Target:
    """Return the machine that is meant; raises UsageError for options that contradict each other, and for an unknown GPU."""
    _check(options)
    if options.gpu is not None:
        return Target(find_hardware(options.gpu), options.count or 1)
    if not options.cpu and (found := detect()) is not None:
        return Target(found.hardware, min(options.count or found.count, found.count), found.warnings)
    return Target(measure_cpu(on_stage) if options.measure else this_cpu())


def as_loaded(model: ModelFacts, hardware: Hardware, dtype: str | None = None) -> ModelFacts:
    """Return a model as it would lie in memory: in ``dtype``, if one is asked for.

    A CPU that does not multiply half-precision numbers computes in float32, and unpacks quantized weights when it loads them. A GPU without
    bfloat16 (before Ampere) computes in float16.
    """
    if dtype is not None:
        return with_dtype(model, dtype)
    if hardware.device == "cpu" and "bfloat16" not in hardware.flops and model.dtype != "float32":
        return with_dtype(requantize(model, PLAIN) if model.format is not PLAIN else model, "float32")
    if hardware.device == "cuda" and "bfloat16" not in hardware.flops and model.dtype == "bfloat16":
        return with_dtype(model, "float16")
    return model


def _check(options: TargetOptions) -> None:
    if sum((options.gpu is not None, options.auto, options.cpu)) > 1:
        raise UsageError("--gpu, --auto and --cpu exclude each other")
    if options.measure and not options.cpu:
        raise UsageError("--measure measures this machine's CPU: add --cpu")
    if options.count is not None and (options.count < 1 or options.cpu):
        raise UsageError(f"--count is a number of GPUs, 1 or more; got {options.count}{' with --cpu' if options.cpu else ''}")
