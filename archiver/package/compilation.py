"""``marquee archive --compile``: the decode step compiled for this machine, as members of the archive."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from archiver.errors import ArchiverError, UsageError
from archiver.package.archive import ArchiveSpec
from archiver.package.checkpoint import weights_format
from archiver.package.model_config import handler_config, load_model_config
from handlers.config import HandlerConfig
from handlers.errors import ConfigError
from handlers.quant.formats import PLAIN

if TYPE_CHECKING:
    from handlers.engine.compiled.package import Package

_INSTEAD = "leave --compile out"


def with_compiled_step(spec: ArchiveSpec, progress: Callable[[str, int, int], None] | None = None) -> ArchiveSpec:
    """Return what to build with the compiled decode step in it and ``engine.compile`` set; ``spec`` has all other settings by now.

    The code is kept in the user's cache, too, and taken from there: two archives have the same. ``progress`` is told what is being done.
    Raises UsageError for a model whose decode step is not compiled, ArchiverError if the compiler fails.
    """
    from handlers.engine.compiled.compiler import CompilationError, compile_package
    from handlers.native.private_cache import private_cache

    config = handler_config(load_model_config(spec.config, spec.settings))
    packages = _packages(spec, config)
    files = []
    try:
        for done, package in enumerate(packages):
            if progress:
                progress(f"compiling for {package.target}", done, len(packages))
            files.append(compile_package(package, private_cache("compiled")))
    except (CompilationError, OSError) as error:
        raise ArchiverError(f"the decode step cannot be compiled: {error}; {_INSTEAD}") from None
    engine = {**spec.settings.get("engine", {}), "compile": True}
    return replace(spec, settings={**spec.settings, "engine": engine}, compiled=tuple(files))


def _packages(spec: ArchiveSpec, config: HandlerConfig) -> tuple[Package, ...]:
    """Return what an engine on this machine would look for."""
    import torch
    from transformers import AutoConfig

    from handlers.engine.compiled.ahead import packages_for
    from handlers.weights.checkpoint import Checkpoint

    try:
        if weights_format(spec.source) is not PLAIN or config.quantization.recipe != "none":
            raise UsageError(f"{spec.source} is served with quantized weights, which have kernels of their own; {_INSTEAD}")
        checkpoint = Checkpoint.open(spec.source, config.model)
        settings = AutoConfig.from_pretrained(spec.source, local_files_only=True, trust_remote_code=config.model.trust_remote_code)
        dtype = checkpoint.gpu_dtype if torch.cuda.is_available() else checkpoint.cpu_dtype
        return packages_for(settings, dtype, config.engine.block_tokens)
    except ConfigError as error:
        raise UsageError(f"{error}; {_INSTEAD}") from None
