"""Quantize a GGUF file with llama.cpp, whose mixed types give the tensors that matter most more bits."""

from __future__ import annotations

import ctypes
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gguf import GGMLQuantizationType, GGUFReader

from archiver.errors import ArchiverError, UsageError
from archiver.package.staging import staged_file
from archiver.quantize.gguf.file_types import WRITTEN_HERE, file_type_number
from archiver.quantize.producer import OnProgress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Importance = Mapping[str, NDArray[np.float32]]

logger = logging.getLogger(__name__)

_BLOCK = 256  # columns, of the mixed types
_PROGRESS = re.compile(rb"\[\s*(\d+)/\s*(\d+)\]")


def check_llama_cpp(file_type: str) -> None:
    """Raise UsageError if llama-cpp-python is not installed."""
    if find_spec("llama_cpp") is None:
        ours = ", ".join(WRITTEN_HERE)
        raise UsageError(f"{file_type} needs llama.cpp's quantizer: pip install 'marquee[gguf]' (types that need nothing more: {ours})")


def quantize(source: Path, target: Path, file_type: str, importance: Importance, on_progress: OnProgress) -> None:
    """Write ``source``, a GGUF file of F32, F16 or BF16, to ``target``, whole or not at all; what llama.cpp says goes to standard error.

    ``importance``: a number for each column, by tensor; rounding errors are weighed by it. Empty: all columns weigh the same.
    A failed assertion in llama.cpp ends the process, so call this in one of your own (``producers/process.py`` does). Raises ArchiverError
    if the quantizer gives up.
    """
    import llama_cpp

    parameters: Any = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = file_type_number(file_type)
    if importance:
        parameters.imatrix = _importance_matrix(importance)
    with staged_file(target) as staged, _following_log(on_progress):
        if llama_cpp.llama_model_quantize(str(source).encode(), str(staged).encode(), ctypes.byref(parameters)):
            raise ArchiverError(f"llama.cpp could not quantize to {file_type}")
    for name, columns, stored in _fallbacks(target):
        logger.warning("%s is stored as %s: its %d columns are not divisible by %d", name, stored, columns, _BLOCK)


def _importance_matrix(importance: Importance) -> Any:
    """Return the C array; its end is an element without a name. It points into ``importance``."""
    import llama_cpp

    matrix = (llama_cpp.llama_model_imatrix_data * (len(importance) + 1))()
    for element, (name, columns) in zip(matrix, importance.items(), strict=False):
        element.name, element.data, element.size = name.encode(), columns.ctypes.data_as(ctypes.POINTER(ctypes.c_float)), len(columns)
    return matrix


@contextmanager
def _following_log(on_progress: OnProgress) -> Iterator[None]:
    """Have llama.cpp call ours, which must not be freed before it is told of another: none is its own."""
    import llama_cpp

    ours = llama_cpp.llama_log_callback(_LogFollower(on_progress))
    llama_cpp.llama_log_set(ours, ctypes.c_void_p(0))
    try:
        yield
    finally:
        llama_cpp.llama_log_set(llama_cpp.llama_log_callback(), ctypes.c_void_p(0))


class _LogFollower:
    """Called with each piece that llama.cpp logs; a tensor's line begins with its number, ``[   3/  74]``."""

    def __init__(self, on_progress: OnProgress) -> None:
        self._on_progress = on_progress

    def __call__(self, level: int, text: bytes, user_data: Any) -> None:
        sys.stderr.write(text.decode(errors="replace"))
        if match := _PROGRESS.match(text):
            self._on_progress("tensors", int(match[1]), int(match[2]))


def _fallbacks(path: Path) -> list[tuple[str, int, str]]:
    """Return the matrices whose rows are no whole blocks, for which llama.cpp takes a type of smaller blocks: (name, columns, type)."""
    tensors = GGUFReader(path).tensors
    return [
        (tensor.name, int(tensor.shape[0]), GGMLQuantizationType(tensor.tensor_type).name)
        for tensor in tensors
        if len(tensor.shape) > 1 and tensor.shape[0] % _BLOCK
    ]
