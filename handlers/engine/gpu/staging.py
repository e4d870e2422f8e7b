"""Numbers on their way to the device: one copy a step, which runs while the host goes on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from handlers.engine.gpu.block_tables import Ints


class Staging:
    """A row of int32 numbers on the device, and two on the host: one is filled while the other may still be on its way.

    The device does one thing after the other, so that its row is not overwritten before the step that reads it is done. Where that row lies
    changes only when it must grow. Used by one thread.
    """

    def __init__(self, device: torch.device, size: int = 0) -> None:
        self._device = device
        self._allocate(size)

    def begin(self, size: int) -> Ints:
        """Return ``size`` numbers to fill, which hold something old; waits for the copy that last read them, which began two steps ago."""
        if size > len(self._row):
            self._allocate(max(size, 2 * len(self._row)))
        self._hosts.reverse()
        return self._hosts[0].begin(size)

    def send(self, size: int) -> Tensor:
        """Begin to copy what ``begin`` returned. The device finds it, from now until the next ``send``, in the row that is returned."""
        row = self._row[:size]
        self._hosts[0].send_to(row)
        return row

    def _allocate(self, size: int) -> None:
        # What is in flight still reads the memory before: torch gives it to others only when that is done.
        self._row = torch.zeros(size, dtype=torch.int32, device=self._device)
        self._hosts = [_HostRow(size, self._device) for _ in range(2)]


class _HostRow:
    """Numbers on the host, pinned where the device is a GPU, and the end of the last copy from them."""

    def __init__(self, size: int, device: torch.device) -> None:
        is_gpu = device.type == "cuda"
        self._numbers = torch.zeros(size, dtype=torch.int32, device="cpu", pin_memory=is_gpu)
        self._array: Ints = self._numbers.numpy()
        self._copied: Any = torch.cuda.Event() if is_gpu else None  # type: ignore[no-untyped-call]

    def begin(self, size: int) -> Ints:
        if self._copied is not None:
            self._copied.synchronize()
        return self._array[:size]

    def send_to(self, row: Tensor) -> None:
        row.copy_(self._numbers[: len(row)], non_blocking=True)
        if self._copied is not None:
            self._copied.record()
