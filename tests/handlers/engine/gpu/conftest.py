"""Triton's interpreter stands in for a GPU where there is none: kernels run on tensors of the CPU."""

from __future__ import annotations

import importlib.util
import os

import pytest
import torch

_HAS_TRITON = importlib.util.find_spec("triton") is not None


def pytest_collect_file() -> None:
    if not _HAS_TRITON:
        pytest.skip("Triton has no wheels for this platform")


def _interpret() -> None:
    """Let kernels that are imported from now on be interpreted, also where another test has imported Triton before.

    Triton decides when a function is decorated; its own library (``tl.sum`` …) was decorated when it was first imported.
    """
    os.environ["TRITON_INTERPRET"] = "1"
    import triton
    from triton.runtime.interpreter import InterpretedFunction

    for module in (triton.language, triton.language.standard):
        for name, function in vars(module).items():
            if isinstance(function, triton.JITFunction):
                setattr(module, name, InterpretedFunction(function.fn))


if _HAS_TRITON and not torch.cuda.is_available():
    _interpret()
