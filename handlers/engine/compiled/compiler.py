"""Compile a layer of the decode step, in a process of its own: it takes a minute of a core, and must not stall an engine.

``python -m handlers.engine.compiled.compiler PARENT FILE`` reads the layer's shape as JSON from its standard input.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from handlers.engine.compiled.decode_layer import DecodeLayer, LayerShape, example_inputs
from handlers.engine.compiled.package import Package
from handlers.engine.process.child import end_with_parent

_TIMEOUT_S = 1800
_NICENESS = 19
_OPTIONS = {
    "cpp.dynamic_threads": True,  # the engine decides how many by trial, and differently elsewhere
    "cpp.vec_isa_ok": True,  # not tried out with a dozen small programs, which takes as long as the compilation
    "aot_inductor.enable_line_tables": False,  # two thirds of the file
    "aot_inductor.precompile_headers": False,  # pays from the second compilation on
}


class CompilationError(Exception):
    """There is no package; the message says why, in a line."""


def compile_package(package: Package, directory: Path) -> Path:
    """Return the package's file in ``directory``, made by a child process unless it is there; raises CompilationError.

    Of several processes that want the same one, one makes it and the others wait. It appears whole or not at all.
    """
    file = directory / package.file_name
    compiler = os.environ.get("CXX", "g++")  # as torch chooses it
    if package.shape.device == "cpu" and not file.exists() and shutil.which(compiler) is None:
        raise CompilationError(f"there is no C++ compiler ({compiler})")
    with file.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.exists():
            with _scratch_directory(directory / f".{file.stem}") as scratch:
                output = scratch / file.name
                _run_compiler(package.shape, output)
                output.rename(file)
    return file


@contextmanager
def _scratch_directory(path: Path) -> Iterator[Path]:
    """Yield an empty directory that nobody else uses; one is there if a compilation was cut short."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(mode=0o700)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _run_compiler(shape: LayerShape, output: Path) -> None:
    scratch = str(output.parent)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)),
        "TORCHINDUCTOR_CACHE_DIR": scratch,
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
        "TMPDIR": scratch,
    }
    command = [sys.executable, "-P", "-m", __name__, str(os.getpid()), str(output)]
    try:
        child = subprocess.run(
            command, input=json.dumps(asdict(shape)), env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CompilationError(str(error)) from error
    if child.returncode or not output.exists():
        raise CompilationError((child.stderr.strip().splitlines() or [f"exit code {child.returncode}"])[-1][:300])


def main(output: Path, shape: LayerShape) -> None:
    """Write the package for layers of ``shape`` on this machine; whatever torch raises passes through."""
    from torch._inductor import aoti_compile_and_package  # here, as it takes an engine seconds that it need not spend
    from torch.export import Dim, export

    if shape.is_packed:
        _take_packed_weights_as_inputs()
    inputs = example_inputs(shape)
    rows, width, blocks = Dim("rows", min=1, max=1 << 20), Dim("width", min=1, max=1 << 20), Dim("blocks", min=1, max=1 << 40)
    step = (*({0: rows},) * 5, {0: rows, 1: width}, {0: blocks}, {0: blocks})
    with torch.no_grad():
        program = export(DecodeLayer(shape), inputs, dynamic_shapes=(*step, (None,) * (len(inputs) - len(step))))
    options: dict[str, Any] = _OPTIONS | {"aot_inductor.metadata": Package.here(shape).metadata}
    aoti_compile_and_package(program, package_path=str(output), inductor_configs=options)


def _take_packed_weights_as_inputs() -> None:
    """Compile linear layers to the calls they are; torch 2.13's own rule for weights in oneDNN's layout insists on constants."""
    import torch._inductor.mkldnn_lowerings  # first: it brings the rules that are replaced here
    from torch._inductor import lowering
    from torch._inductor.ir import TensorBox
    from torch._inductor.mkldnn_ir import LinearBinary, LinearUnary

    operator = torch.ops.mkldnn._linear_pointwise
    for overload, kernel in ((operator.default, LinearUnary), (operator.binary, LinearBinary)):
        call: Any = kernel.create
        lowering.lowerings[overload] = lambda *inputs, call=call: TensorBox.create(call(*inputs))


def _shape_from(fields: dict[str, Any]) -> LayerShape:
    return LayerShape(**fields | {"weights": tuple(None if size is None else tuple(size) for size in fields["weights"])})


if __name__ == "__main__":
    end_with_parent(int(sys.argv[1]))
    os.nice(_NICENESS)
    try:
        main(Path(sys.argv[2]), _shape_from(json.load(sys.stdin)))
    except Exception as error:  # noqa: BLE001 - whatever torch's compiler raises, in a line for the log of whoever asked
        sys.exit(" ".join(f"{type(error).__name__}: {error}".split()))
