"""Tell errors that mean "no memory was left" from all others."""

from __future__ import annotations

import torch

_SIGNS = (
    "CUDA out of memory",
    "CUDA error: out of memory",
    "Triton Error [CUDA]: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "can't allocate memory",  # torch's allocator on a CPU
    "not enough memory",  # the same on other systems
)
"""What plain RuntimeErrors say of it, from torch and from the libraries that it calls."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the same might work with less at once."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)
