"""The memory of the device that a model runs on: all of it, what is free, and what this process has taken."""

from __future__ import annotations

import ctypes
import gc
import re
from pathlib import Path
from typing import Literal, Protocol

import psutil
import torch

from handlers import host_limits
from handlers.engine.memory.nvml import used_bytes

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"
"""Written to clear_refs, it makes the peak what there is now (proc(5))."""


class DeviceMemory(Protocol):
    """One device as this process sees it; all numbers are bytes."""

    kind: Literal["cuda", "cpu"]
    name: str
    total_bytes: int

    def free_bytes(self) -> int:
        """What any process could take now."""
        ...

    def own_bytes(self) -> int:
        """What this process has taken."""
        ...

    def reset_peak(self) -> None:
        """Forget what was taken before."""
        ...

    def peak_bytes(self) -> int:
        """The most that this process had at once since ``reset_peak``."""
        ...

    def release_unused(self) -> None:
        """Give back what allocators keep though nobody uses it."""
        ...


class CudaMemory:
    """A GPU. Made before the process has taken anything of it: what comes after that is the process's own."""

    kind: Literal["cuda", "cpu"] = "cuda"

    def __init__(self, device: torch.device) -> None:
        properties = torch.cuda.get_device_properties(device)
        self.name: str = properties.name
        self.uuid = str(properties.uuid)
        self.total_bytes: int = properties.total_memory
        self._device = device
        self._used_before = used_bytes(self.uuid)

    def free_bytes(self) -> int:
        """What the driver says."""
        free, _ = torch.cuda.mem_get_info(self._device)
        return free

    def own_bytes(self) -> int:
        """By how much the GPU is fuller than it was; where NVML does not say, what torch has taken, which leaves out the driver's part."""
        reserved = torch.cuda.memory_reserved(self._device)
        used = used_bytes(self.uuid)
        if used is None or self._used_before is None:
            return reserved
        return max(used - self._used_before, reserved)  # others may have left in the meantime

    def reset_peak(self) -> None:
        """See DeviceMemory."""
        torch.cuda.synchronize(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)

    def peak_bytes(self) -> int:
        """What the process has besides torch's allocator never shrinks, so that its peak is the allocator's."""
        torch.cuda.synchronize(self._device)
        given_back = torch.cuda.max_memory_reserved(self._device) - torch.cuda.memory_reserved(self._device)
        return self.own_bytes() + given_back

    def release_unused(self) -> None:
        """See DeviceMemory."""
        gc.collect()
        torch.cuda.empty_cache()


class HostMemory:
    """The machine's memory, or a container's share of it. The peak is Linux's alone; elsewhere it is what the process has now."""

    kind: Literal["cuda", "cpu"] = "cpu"
    name = "CPU"

    def __init__(self) -> None:
        self.total_bytes = host_limits.memory_bytes()
        self._has_peak = False

    def free_bytes(self) -> int:
        """What the system could give without swapping, as far as a container may have it."""
        return min(int(psutil.virtual_memory().available), host_limits.free_bytes())

    def own_bytes(self) -> int:
        """Resident pages, those of mapped files among them."""
        resident = _status_bytes("VmRSS")
        return int(psutil.Process().memory_info().rss) if resident is None else resident

    def reset_peak(self) -> None:
        """See DeviceMemory."""
        try:
            _CLEAR_REFS.write_text(_RESET_PEAK)
        except OSError:
            return
        self._has_peak = True

    def peak_bytes(self) -> int:
        """See DeviceMemory."""
        peak = _status_bytes("VmHWM") if self._has_peak else None
        return self.own_bytes() if peak is None else peak

    def release_unused(self) -> None:
        """Have the C library give back what it keeps for the next allocation (glibc)."""
        if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
            trim(0)


def memory_of(device: torch.device) -> DeviceMemory:
    """Return the memory of a torch device."""
    return CudaMemory(device) if device.type == "cuda" else HostMemory()


def _status_bytes(name: str) -> int | None:
    if not _STATUS.exists():
        return None
    line = re.search(rf"^{name}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    return int(line[1]) << 10 if line else None
