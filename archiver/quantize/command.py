"""``marquee quantize``: produce, measure, write the receipt, and only then put the result in its place."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from archiver import __version__
from archiver.configuration import config_path
from archiver.errors import ArchiverError
from archiver.package.checkpoint import CONFIG
from archiver.package.staging import hidden_directory, place_directory
from archiver.quantize.budget import exceeded
from archiver.quantize.display import Progress, show_result
from archiver.quantize.environment import tool_python
from archiver.quantize.plan import Plan, make_plan, weight_bytes
from archiver.quantize.producer import Job, OnProgress
from archiver.quantize.producers.process import Outcome, run_producer
from archiver.quantize.receipt import REJECTED_SUFFIX, Quality, Receipt
from archiver.quantize.request import QuantizeRequest
from archiver.quantize.workspace import LOG, workspace


@dataclass(frozen=True)
class Quantized:
    """A finished quantization: a directory with weights and receipt, whose name ends in ``.rejected`` if it exceeded its budget."""

    directory: Path
    receipt: Receipt


@dataclass(frozen=True)
class _Verdict:
    quality: Quality | None
    complaints: tuple[str, ...]  # why the result is rejected; empty: it is not


def quantize(request: QuantizeRequest, *, as_json: bool = False) -> Receipt:
    """Quantize as asked for, with progress on standard error, and print the receipt; a budget that is exceeded is no error here.

    Raises UsageError for what cannot be done, ArchiverError for what fails. Nothing half-written is left, whatever ends it.
    """
    with Progress() as progress:
        plan = make_plan(request)
        for warning in plan.calibration.record.warnings if plan.calibration else ():
            progress.announce(f"calibration: {warning}")
        result = carry_out(plan, progress.update, progress.announce)
    show_result(result.directory, result.receipt, as_json=as_json)
    return result.receipt


def carry_out(plan: Plan, on_progress: OnProgress, announce: Callable[[str], None]) -> Quantized:
    """Do what is planned; ``announce`` is called with lines for the user. Raises ArchiverError."""
    tool = plan.recipe.producer.tool
    on_progress("preparing", 0, 1)
    python = tool_python(config_path(f"tools/{tool}.txt"), announce) if tool else None
    measure = _quality_measure(plan, on_progress)
    with workspace(plan) as work, hidden_directory(plan.out) as staged:
        job = Job(
            source=plan.source.directory,
            out=staged,
            options=plan.recipe.options,
            calibration=plan.calibration.samples if plan.calibration else None,
            workspace=work,
            on_progress=on_progress,
        )
        started = time.monotonic()
        outcome = run_producer(plan.recipe.producer.file, job, work / LOG, python)
        seconds = time.monotonic() - started
        _complete(plan, staged)
        receipt = _receipt(plan, staged, outcome, seconds, _judge(plan, staged, measure))
        receipt.write(staged)
        directory = plan.out if receipt.is_accepted else plan.out.with_name(plan.out.name + REJECTED_SUFFIX)
        place_directory(staged, directory)
    return Quantized(directory, receipt)


def _quality_measure(plan: Plan, on_progress: OnProgress) -> Callable[[Path], Quality | None]:
    """Choose what to measure on before the long work, for there may be something wrong with it."""
    if not plan.request.measure:
        return lambda quantized: None
    from archiver.quantize.quality.evaluation import choose_evaluation
    from archiver.quantize.quality.measure import measure_quality

    source = plan.source.directory
    evaluation = choose_evaluation(plan.request, source)
    return lambda quantized: measure_quality(source, quantized, evaluation, on_progress)


def _judge(plan: Plan, staged: Path, measure: Callable[[Path], Quality | None]) -> _Verdict:
    """Measure the quality; a result of which it cannot be measured here may be hours of work, and is kept as rejected."""
    try:
        quality = measure(staged)
    except ArchiverError as error:
        return _Verdict(None, (f"its quality cannot be measured on this machine: {error}",))
    return _Verdict(quality, exceeded(plan.request.budget, quality) if quality else ())


def _complete(plan: Plan, staged: Path) -> None:
    """Add the source's tokenizer, chat template and licence, byte by byte; a GGUF file has what it needs inside."""
    for file in plan.source.files if (staged / CONFIG).is_file() else ():
        if file.name != CONFIG and ".safetensors" not in file.suffixes:
            (staged / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(plan.source.directory / file, staged / file)
    mode = (plan.source.directory / CONFIG).stat().st_mode
    for file in staged.iterdir():
        if file.is_file():
            file.chmod(mode)  # safetensors writes files that others cannot read


def _receipt(plan: Plan, staged: Path, outcome: Outcome, seconds: float, verdict: _Verdict) -> Receipt:
    return Receipt(
        recipe=plan.recipe.name,
        options=plan.recipe.options,
        source=plan.source_name,
        versions={"marquee": __version__, **outcome.versions},
        calibration=plan.calibration.record if plan.calibration else None,
        bytes_before=weight_bytes(plan.source.directory),
        bytes_after=weight_bytes(staged),
        seconds=seconds,
        peak_memory_bytes=outcome.peak_memory_bytes,
        quality=verdict.quality,
        budget=plan.request.budget,
        exceeded=verdict.complaints,
    )
