"""Which GPUs this machine has, as ``nvidia-smi`` says, without torch."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from dataclasses import dataclass, replace

from archiver.errors import UsageError
from archiver.plan.hardware.catalogue import known_hardware, load_catalogue
from archiver.plan.hardware.nvidia_smi import GPU_FIELDS, Device, has_nvlinks, parse_gpus, parse_instances, visible_devices
from archiver.plan.hardware.profile import NO_LINK, Hardware

log = logging.getLogger(__name__)
_TIMEOUT_S = 30  # without its persistence daemon, the driver takes seconds to start


@dataclass(frozen=True)
class Detected:
    """``count`` devices that are all at least as large as ``hardware``; ``warnings`` are sentences for the user."""

    hardware: Hardware
    count: int
    warnings: tuple[str, ...] = ()


def detect() -> Detected | None:
    """Look for the GPUs that CUDA_VISIBLE_DEVICES leaves to a program here; None if there are none.

    Raises UsageError for a GPU that has no profile.
    """
    gpus = _ask(f"--query-gpu={','.join(GPU_FIELDS)}", "--format=csv,noheader,nounits")
    if gpus is None:
        return None
    return choose(gpus, _ask("-L") or "", _ask("topo", "-m") or "", os.environ.get("CUDA_VISIBLE_DEVICES"))


def choose(gpus: str, listing: str, topology: str, visible: str | None) -> Detected | None:
    """Choose by what ``nvidia-smi`` printed: of ``--query-gpu``, ``-L`` and ``topo -m``. A pure function; see ``detect``."""
    devices = visible_devices(parse_gpus(gpus), parse_instances(listing), visible)
    if not devices:
        return None
    if any(device.instance for device in devices):
        return _one_instance(devices)
    known = [(_profile(device), device) for device in devices]
    hardware, _ = min(known, key=lambda pair: pair[0].memory_bytes)
    names = sorted({device.name for device in devices})
    warnings = [f"the GPUs differ ({', '.join(names)}): planned as if all were {hardware.name}"] if len(names) > 1 else []
    is_linked = has_nvlinks(topology, [device.index for device in devices])
    if len(devices) > 1 and is_linked is not None:
        hardware = hardware.linked_by("nvlink" if is_linked else "pcie")
    return Detected(hardware, len(devices), tuple(warnings))


def _one_instance(devices: list[Device]) -> Detected:
    """The smallest part of a GPU that is divided (MIG): a process can use no more than one, and parts exchange nothing."""
    parts = [_part(_profile(device), device) for device in devices]
    smallest = min(parts, key=lambda part: part.memory_bytes)
    ignored = f"; {len(parts) - 1} other device(s) cannot be joined with it" if len(parts) > 1 else ""
    return Detected(smallest, 1, (f"the GPU is divided (MIG): planned for one part, {smallest.name}{ignored}",))


def _part(whole: Hardware, device: Device) -> Hardware:
    """A MIG instance "3g.40gb": 3 compute slices, and memory with its bandwidth in eighths (NVIDIA, MIG User Guide).

    A slice is about an eighth of the GPU, though there are seven: 14 of 108 multiprocessors of an A100, 16 of 132 of an H100.
    """
    if device.instance is None:
        return whole
    compute, memory_gb = device.instance
    share = min(round(8 * memory_gb * 1e9 / whole.memory_bytes) or 1, 8) / 8
    return replace(
        whole,
        id=f"{whole.id}-{compute}g",
        name=f"{whole.name}, MIG {compute}g.{memory_gb}gb",
        memory_bytes=int(whole.memory_bytes * share),
        bandwidth=whole.bandwidth * share,
        flops={dtype: peak * compute / 8 for dtype, peak in whole.flops.items()},
        links=(NO_LINK,),
    )


def _profile(device: Device) -> Hardware:
    profile = known_hardware(device.name)
    if profile is None:
        known = ", ".join(each.id for each in load_catalogue())
        raise UsageError(
            f"this machine's {device.name} has no profile, so its bandwidth and FLOP/s are not known: name the nearest with --gpu"
            f" ({known}), or give --gpu a YAML file like those in config/gpus"
        )
    return replace(profile, memory_bytes=device.memory_bytes or profile.memory_bytes)


def _ask(*arguments: str) -> str | None:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    try:
        answer = subprocess.run([tool, *arguments], capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("nvidia-smi %s failed (%s): the GPUs, if there are any, are not used", " ".join(arguments), error)
        return None
    return answer.stdout
