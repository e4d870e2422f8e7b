"""Ask NVIDIA's management library how full a GPU is: unlike CUDA, it tells without taking memory itself."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

_LIBRARY = "libnvidia-ml.so.1"


class _Memory(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]  # nvmlMemory_t of the NVML API reference


def used_bytes(uuid: str) -> int | None:
    """Return what all processes have taken of the GPU, or of the part of one (MIG), that torch knows by ``uuid``.

    None where the library is missing, or knows no such GPU.
    """
    library = _load()
    if library is None:
        return None
    handle, memory = ctypes.c_void_p(), _Memory()
    names = [uuid] if uuid.startswith(("GPU-", "MIG-")) else [f"GPU-{uuid}", f"MIG-{uuid}"]
    for name in names:
        if library.nvmlDeviceGetHandleByUUID(name.encode(), ctypes.byref(handle)) == 0:
            return int(memory.used) if library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) == 0 else None
    return None


@functools.cache
def _load() -> Any:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
    return library if library.nvmlInit_v2() == 0 else None
