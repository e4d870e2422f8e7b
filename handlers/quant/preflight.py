"""Before weights are loaded: whether this machine can run their format, and which one it could run instead."""

from __future__ import annotations

from handlers.errors import ConfigError
from handlers.quant.formats import FORMATS, LOAD_RECIPES, PLAIN, Format
from handlers.quant.machine import Machine, dotted
from handlers.quant.quantization_config import StoredQuantization
from handlers.quant.recognition import recognise


def identify(stored: StoredQuantization | None) -> Format:
    """Return the format of a checkpoint's weights; raise ConfigError for one that no machine can serve."""
    if stored is None:
        return PLAIN
    row = recognise(stored)
    if row is None:
        known = ", ".join(other.name for other in FORMATS if not other.obstacle and other is not PLAIN)
        raise ConfigError(f"the checkpoint's weights are quantized in a way that is not supported ({stored.method}); supported are {known}")
    if row.obstacle:
        raise ConfigError(f"the checkpoint's weights are {row.name}: {row.obstacle}; quantize the plain model in another format")
    return row


def check_weights(row: Format, machine: Machine) -> None:
    """Raise ConfigError if a machine cannot run a checkpoint of this format: with what it takes, what there is, and what would work."""
    _check(row, f"the checkpoint's weights are {row.name}", machine)


def check_recipe(recipe: str, machine: Machine) -> Format:
    """Return what a recipe at load makes; raise ConfigError if a machine cannot run it. A CPU runs them all."""
    row = LOAD_RECIPES[recipe]
    if machine.device == "cuda":
        _check(row, f"handler.quantization.recipe: {recipe} makes {row.name}", machine)
    return row


def lacking(row: Format, machine: Machine) -> str | None:
    """Say what a format takes that a machine does not have; None if it runs there."""
    if row.obstacle:
        return f"another format: {row.obstacle}"
    route = row.route(machine.device)
    if route is None:
        return "a CUDA GPU" if machine.device == "cpu" else "a CPU"
    if machine.device == "cuda" and machine.capability < route.capability:
        return f"a GPU of compute capability {dotted(route.capability)} or newer"
    absent = [package for package in route.packages if package not in machine.packages]
    return f"the package{'s' * (len(absent) > 1)} {' and '.join(absent)} (pip install {' '.join(absent)})" if absent else None


def nearest(row: Format, machine: Machine) -> Format:
    """Return the format nearest in size that runs there and can be made; of two, the one that is calibrated, or not, as ``row`` is."""
    candidates = [other for other in FORMATS if other is not row and (other.recipe or other is PLAIN) and lacking(other, machine) is None]
    return min(candidates, key=lambda other: (abs(other.bits - row.bits), other.is_calibrated != row.is_calibrated))


def _check(row: Format, what: str, machine: Machine) -> None:
    need = lacking(row, machine)
    if need is None:
        return
    near = nearest(row, machine)
    way = f" (marquee quantize MODEL --recipe {near.recipe})" if near.recipe else ""
    on_cpu = "; CUDA_VISIBLE_DEVICES=-1 serves it on the CPU" if machine.device == "cuda" and row.cpu else ""
    advice = f"The nearest format that works here: {near.name}{way}{on_cpu}"
    raise ConfigError(f"{what}, which needs {need}; this machine has {machine}. {advice}")
