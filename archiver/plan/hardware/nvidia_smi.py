"""Read what ``nvidia-smi`` prints: GPUs, their parts, what a program may see of them, and the links between them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

GPU_FIELDS = ("index", "uuid", "name", "memory.total", "memory.reserved")
_MIB = 1 << 20
_GPU_LINE = re.compile(r"GPU (?P<index>\d+): ")
_INSTANCE_LINE = re.compile(r"\s+MIG (?:\d+c\.)?(?P<compute>\d+)g\.(?P<memory>\d+)gb\S*\s+Device\s+\d+: \(UUID: (?P<uuid>MIG-[^)]+)\)")


@dataclass(frozen=True)
class Device:
    """A GPU, or a part of one (``instance``: compute slices and GB of memory). ``memory_bytes`` None: the driver does not tell."""

    index: int
    uuid: str
    name: str
    memory_bytes: int | None
    instance: tuple[int, int] | None = None


def parse_gpus(text: str) -> list[Device]:
    """Read ``--query-gpu`` of ``GPU_FIELDS`` as CSV without header and units.

    A program is told of the total less what the driver reserves.
    """
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines() if line.strip()]
    return [Device(int(index), uuid, name, _memory(total, reserved)) for index, uuid, name, total, reserved in rows]


def _memory(total: str, reserved: str) -> int | None:
    return (int(total) - int(reserved)) * _MIB if total.isdigit() and reserved.isdigit() else None


def parse_instances(text: str) -> Mapping[int, list[tuple[str, tuple[int, int]]]]:
    """Read ``-L``: of each GPU that is divided (MIG), the parts with their UUIDs."""
    found: dict[int, list[tuple[str, tuple[int, int]]]] = {}
    index = -1
    for line in text.splitlines():
        if gpu := _GPU_LINE.match(line):
            index = int(gpu["index"])
        elif part := _INSTANCE_LINE.match(line):
            found.setdefault(index, []).append((part["uuid"], (int(part["compute"]), int(part["memory"]))))
    return found


def visible_devices(
    gpus: Iterable[Device], instances: Mapping[int, list[tuple[str, tuple[int, int]]]], setting: str | None
) -> list[Device]:
    """Return what CUDA_VISIBLE_DEVICES leaves of the GPUs, with parts in place of those that are divided; None leaves all.

    Entries are indices, or UUIDs that may be cut short; the first that means nothing ends the list (CUDA C++ Programming Guide).
    """
    gpus = list(gpus)
    parts = {gpu.index: [replace(gpu, uuid=uuid, instance=size) for uuid, size in instances.get(gpu.index, ())] for gpu in gpus}
    if setting is None:
        return [device for gpu in gpus for device in parts[gpu.index] or [gpu]]
    every = [device for gpu in gpus for device in (gpu, *parts[gpu.index])]
    chosen: list[Device] = []
    for entry in setting.split(","):
        device = _named(entry.strip(), every)
        if device is None:
            break
        chosen += parts[device.index] if device.instance is None and parts[device.index] else [device]
    return chosen


def _named(entry: str, devices: Sequence[Device]) -> Device | None:
    if entry.isdigit():
        return next((device for device in devices if device.index == int(entry) and device.instance is None), None)
    return next((device for device in devices if device.uuid.startswith(entry)), None) if entry[:4] in ("GPU-", "MIG-") else None


def has_nvlinks(topology: str, indices: Sequence[int]) -> bool | None:
    """Read ``topo -m``: whether NVLinks join each of these GPUs to every other, not only pairs; None if it does not say."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in topology.splitlines()]
    # The line of headings begins with a tab.
    rows = {int(line.split()[0][3:]): line.split()[1:] for line in lines if re.match(r"GPU\d+\s", line)}
    try:
        pairs = [rows[one][other] for one in indices for other in indices if one != other]
    except (KeyError, IndexError):
        return None
    return all(re.fullmatch(r"NV\d+", pair) for pair in pairs)
