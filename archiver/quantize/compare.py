"""``marquee quantize --compare``: several recipes on one model, measured on this machine, and which one to take."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from archiver.errors import UsageError
from archiver.package.checkpoint import read_checkpoint
from archiver.package.source import Source, resolve_model
from archiver.quantize.budget import exceeded
from archiver.quantize.command import Quantized, carry_out
from archiver.quantize.comparison import DEFAULT_BUDGET, SOURCE, Comparison, Row
from archiver.quantize.comparison_plot import plot_comparison
from archiver.quantize.comparison_table import show_comparison
from archiver.quantize.display import Progress
from archiver.quantize.plan import Plan, make_plan, weight_bytes
from archiver.quantize.producer import OnProgress
from archiver.quantize.quality.loading import load_as_served
from archiver.quantize.receipt import REJECTED_SUFFIX, Receipt
from archiver.quantize.recipes import list_recipes, read_recipe
from archiver.quantize.request import QuantizeRequest
from archiver.quantize.speed import Load, Speeds, describe_machine, device_kind, measure_speeds
from handlers.quant.machine import Machine

logger = logging.getLogger(__name__)

RESULT_FILE = "comparison.json"
PLOT_FILE = "comparison.png"

CarryOut = Callable[[Plan, OnProgress, Callable[[str], None]], Quantized]
MeasureSpeeds = Callable[[Mapping[str, Load], OnProgress], Mapping[str, Speeds]]


def compare_recipes(
    request: QuantizeRequest, *, as_json: bool, carry_out: CarryOut = carry_out, measure_speeds: MeasureSpeeds = measure_speeds
) -> Comparison:
    """Carry out each recipe (all there are, if none is named), measure all results, print and plot them, and return the comparison.

    ``request.out`` holds a directory for each recipe, ``comparison.json`` and ``comparison.png``. A recipe that is done already, with the
    same options and calibration, is only measured for speed. One that fails has its reason in its row. Raises UsageError for a model that
    cannot be quantized at all.
    """
    _check_request(request)
    found = resolve_model(request.model, revision=request.revision)
    read_checkpoint(found.path)
    out = (request.out or Path(f"{found.name}-compared")).expanduser().resolve()
    out.mkdir(parents=True, exist_ok=True)
    request = replace(request, budget=request.budget or DEFAULT_BUDGET)
    with Progress() as progress:
        names = request.recipes or tuple(recipe.name for recipe in list_recipes())
        rows = [_source_row(found), *(_recipe_row(request, name, out, progress, carry_out) for name in names)]
        speeds = measure_speeds({row.name: partial(load_as_served, row.directory) for row in rows if row.directory}, progress.update)
    machine = Machine.here()
    comparison = Comparison(
        model=found.name,
        machine=describe_machine(machine),
        device=device_kind(machine),
        budget=request.budget,
        rows=tuple(replace(row, tokens_per_s=speeds.get(row.name, {})) for row in rows),
    )
    (out / RESULT_FILE).write_text(json.dumps(comparison.to_dict(), indent=2) + "\n")
    plot_comparison(comparison, out / PLOT_FILE)
    show_comparison(comparison, out, as_json=as_json)
    return comparison


def _check_request(request: QuantizeRequest) -> None:
    if not request.measure:
        raise UsageError("--compare is there to measure: leave --no-measure out")
    if find_spec("matplotlib") is None:
        raise UsageError("--compare draws a plot and needs matplotlib: pip install 'marquee[quantize]'")


def _source_row(source: Source) -> Row:
    return Row(SOURCE, source.path, weight_bytes(source.path))


def _recipe_row(request: QuantizeRequest, name: str, out: Path, progress: Progress, carry_out: CarryOut) -> Row:
    """Return a recipe's row; unless forced, from the result of an earlier run if there is one."""
    try:
        plan = make_plan(replace(request, recipes=(name,), out=out / read_recipe(name).label, force=True))
        result = (None if request.force else _earlier_result(plan)) or _new_result(plan, progress, carry_out)
    except Exception as error:  # Whatever a library makes of this model: it is this recipe's result, and the others go on.
        logger.debug("recipe %s failed", name, exc_info=True)
        problem = " ".join(str(error).split()) or type(error).__name__
        progress.announce(f"{name}: {problem}")
        return Row(name, problem=problem)
    receipt = result.receipt
    if receipt.quality is None:  # it cannot be loaded here, for want of a GPU for example
        return Row(name, problem="; ".join(receipt.exceeded))
    return Row(name, result.directory, receipt.bytes_after, receipt, exceeded(request.budget, receipt.quality))


def _earlier_result(plan: Plan) -> Quantized | None:
    for directory in _places(plan):
        receipt = Receipt.read(directory)
        if receipt and _is_of(receipt, plan):
            return Quantized(directory, receipt)
    return None


def _is_of(receipt: Receipt, plan: Plan) -> bool:
    """Whether the receipt is what this plan would give again."""
    evaluation = plan.request.evaluation
    calibration = plan.calibration.record if plan.calibration else None
    return (
        receipt.quality is not None
        and (receipt.source, receipt.recipe, receipt.calibration) == (plan.source_name, plan.recipe.name, calibration)
        and json.dumps(receipt.options, sort_keys=True) == json.dumps(plan.recipe.options, sort_keys=True)
        and (evaluation is None or receipt.quality.evaluation == evaluation.name)
    )


def _new_result(plan: Plan, progress: Progress, carry_out: CarryOut) -> Quantized:
    result = carry_out(plan, lambda stage, *counts: progress.update(f"{plan.recipe.name}: {stage}", *counts), progress.announce)
    for directory in _places(plan):
        if directory != result.directory:
            shutil.rmtree(directory, ignore_errors=True)  # with another budget it went there
    return result


def _places(plan: Plan) -> tuple[Path, Path]:
    return plan.out, plan.out.with_name(plan.out.name + REJECTED_SUFFIX)
