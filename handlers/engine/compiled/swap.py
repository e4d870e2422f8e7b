"""Put compiled layers in the place of an engine's own, once there are any that compute the same."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Thread

import torch

from handlers.engine.compiled.agreement import agrees
from handlers.engine.compiled.compiler import CompilationError, compile_package
from handlers.engine.compiled.decode_layer import LayerShape
from handlers.engine.compiled.layers import CompiledLayer, CompiledLayers
from handlers.engine.compiled.package import SUFFIX, Package
from handlers.engine.lean_layers import LeanLayers
from handlers.engine.lean_runner import LeanRunner
from handlers.engine.runner import Runner
from handlers.native.private_cache import private_cache

logger = logging.getLogger(__name__)


def compile_layers(runner: Runner, archived: Path | None) -> Thread | None:
    """Have ``runner`` compute decode steps by compiled code: from the directory ``archived``, the user's cache or, later, a compiler.

    What is there is used at once. Otherwise a thread is returned, which waits for the compiler and then exchanges the runner's layers.
    Whatever goes wrong is a line in the log, and the engine goes on as it is.
    """
    if not isinstance(runner, LeanRunner):
        logger.info("compiled decode step: not used, as %s is faster or cannot be compiled", type(runner).__name__)
        return None
    packages = packages_of(runner)
    if packages is None:
        logger.info("compiled decode step: not used, as quantized or divided weights have code of their own")
        return None
    if archived is not None:
        _explain_misfits(packages, archived)
    cache = _own_cache()
    files = _find(packages, [directory for directory in (archived, cache) if directory is not None])
    if files is not None:
        _use(runner, files)
        return None
    if cache is None:
        return None
    thread = Thread(target=_compile, args=(runner, packages, cache), name="compile", daemon=True)
    thread.start()
    return thread


def packages_of(runner: LeanRunner) -> Mapping[LayerShape, Package] | None:
    """Return what there is to compile for a runner: once for all layers that are alike; None if some cannot be compiled."""
    shapes = {LayerShape.of(layer, runner.block_tokens) for layer in _lean(runner).layers}
    packages = {shape: Package.here(shape) for shape in shapes if shape is not None}
    return packages if len(packages) == len(shapes) else None


def load_layers(runner: LeanRunner, files: Mapping[LayerShape, Path]) -> CompiledLayers:
    """Return a runner's layers with the code in ``files``, which is loaded and trusted; raises what loading a library raises."""
    lean = _lean(runner)
    codes = {shape: _load(file) for shape, file in files.items()}
    shapes = (LayerShape.of(layer, runner.block_tokens) for layer in lean.layers)
    return CompiledLayers(lean, [codes[shape] for shape in shapes if shape is not None], runner.block_tokens)


def _load(file: Path) -> CompiledLayer:
    # What torch's aoti_load_package calls, without the 150 MB and two seconds that importing the compiler takes.
    run_single_threaded, num_runners, default_device = True, 1, -1
    code: CompiledLayer = torch._C._aoti.AOTIModelPackageLoader(str(file), "model", run_single_threaded, num_runners, default_device).run
    return code


def _lean(runner: LeanRunner) -> LeanLayers:
    assert isinstance(runner.layers, LeanLayers), "exchanged already"
    return runner.layers


def _own_cache() -> Path | None:
    try:
        return private_cache("compiled")
    except OSError as error:
        logger.warning("compiled decode step: there is no place to keep it: %s", error)
        return None


def _find(packages: Mapping[LayerShape, Package], directories: Sequence[Path]) -> dict[LayerShape, Path] | None:
    """Return the file of each package, in the first directory that has it; None if one of them is nowhere."""
    places = ((shape, directory / package.file_name) for shape, package in packages.items() for directory in reversed(directories))
    files = {shape: file for shape, file in places if file.is_file()}
    return files if len(files) == len(packages) else None


def _explain_misfits(packages: Mapping[LayerShape, Package], archived: Path) -> None:
    """Say of each package in the archive why it is not used, unless all that are wanted are there."""
    wanted = {package.file_name: package for package in packages.values()}
    there = {file.name: file for file in archived.glob(f"*{SUFFIX}")}
    if wanted.keys() <= there.keys():
        return
    for name in sorted(there.keys() - wanted.keys()):
        logger.warning("compiled decode step in the archive: %s: not used", next(iter(wanted.values())).misfit(there[name]))


def _compile(runner: LeanRunner, packages: Mapping[LayerShape, Package], cache: Path) -> None:
    logger.info("compiled decode step: being compiled; until then layers are computed as they are")
    try:
        files = {shape: compile_package(package, cache) for shape, package in packages.items()}
    except (CompilationError, OSError) as error:
        logger.warning("compiled decode step: not used, as it cannot be compiled: %s", error)
    else:
        _use(runner, files)


def _use(runner: LeanRunner, files: Mapping[LayerShape, Path]) -> None:
    """Exchange the layers for those in ``files``; a step that is being computed is finished by the old ones."""
    try:
        compiled = load_layers(runner, files)
        is_right = agrees(_lean(runner), compiled, runner.block_tokens)
    except Exception as error:  # noqa: BLE001 - whatever loading a library, or what is in it, raises
        logger.warning("compiled decode step: not used, as it fails: %s", error)
        return
    if not is_right:
        logger.warning("compiled decode step: not used, as it computes something else")
        return
    runner.layers = compiled
    logger.info("compiled decode step: used (%s, any number of rows)", Package.here(next(iter(files))).target)
