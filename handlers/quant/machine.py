"""What this machine has, as far as formats of weights ask: GPUs and packages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata, util

from handlers.quant.formats import FORMATS, Device


@dataclass(frozen=True)
class Gpu:
    """A CUDA GPU."""

    name: str
    capability: tuple[int, int]
    memory_bytes: int

    def __str__(self) -> str:
        return f"{self.name} (compute capability {dotted(self.capability)})"


@dataclass(frozen=True)
class Machine:
    """``gpus`` that torch can use, and the versions of the ``packages`` that are installed."""

    gpus: tuple[Gpu, ...] = ()
    packages: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def here(cls) -> Machine:
        """Look at this machine; where torch is not installed, no GPU counts."""
        wanted = {package for row in FORMATS for route in (row.cpu, row.cuda) if route for package in route.packages}
        return cls(_visible_gpus(), installed_packages(wanted))

    @property
    def device(self) -> Device:
        """Where models run: on the GPUs if there are any."""
        return "cuda" if self.gpus else "cpu"

    @property
    def capability(self) -> tuple[int, int]:
        """The compute capability of the oldest GPU: a model may lie on all of them."""
        return min(gpu.capability for gpu in self.gpus)

    def __str__(self) -> str:
        return ", ".join(map(str, self.gpus)) or "no CUDA GPU"


def installed_packages(names: Iterable[str]) -> dict[str, str]:
    """Return the versions of those distributions that are installed."""
    found: dict[str, str] = {}
    for name in sorted(names):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def dotted(capability: tuple[int, int]) -> str:
    """Return a compute capability as NVIDIA writes it."""
    return ".".join(map(str, capability))


def _visible_gpus() -> tuple[Gpu, ...]:
    if util.find_spec("torch") is None:
        return ()
    import torch

    if not torch.cuda.is_available():
        return ()
    properties = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return tuple(Gpu(each.name, (each.major, each.minor), each.total_memory) for each in properties)
