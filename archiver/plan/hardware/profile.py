"""A hardware profile: peaks from data sheets, and which share of them serving reaches."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from handlers.memory_ledger import Interval

Dtype = Literal["bfloat16", "float16", "float8", "int8", "float32"]
"""What is multiplied; sums are kept in float32 (int32 for int8)."""
LinkKind = Literal["nvlink", "pcie", "xgmi", "none"]

_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
_Positive = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, config=_STRICT)
class Source:
    """Where figures are from: ``gives`` says which, ``date`` is of the document, or of the day it was read."""

    gives: str
    title: str
    date: str
    address: str | None = None


@dataclass(frozen=True, config=_STRICT)
class Efficiency:
    """The ``share`` of a peak that is reached. ``calibrated``: measured on such a device, and ``source`` says by what."""

    share: Interval
    calibrated: bool
    source: str
    date: str


@dataclass(frozen=True, config=_STRICT)
class Link:
    """How devices of one machine exchange data: ``bandwidth`` in bytes/s, each direction, of one device, at its peak.

    ``share`` of it is what large all-reduces reach; ``latency_s`` is what an all-reduce of next to nothing takes.
    """

    kind: LinkKind
    bandwidth: Annotated[float, Field(ge=0)]
    share: Interval
    latency_s: Interval

    def all_reduce_s(self, num_bytes: float, num_devices: int) -> Interval:
        """Return the seconds in which ``num_bytes``, which each device has, are summed over all.

        A ring sends 2 (n - 1) / n of them over each link (NVIDIA, nccl-tests, doc/PERFORMANCE.md).
        Raises ValueError for devices that are not connected.
        """
        if num_devices == 1:
            return Interval.exact(0)
        if self.kind == "none":
            raise ValueError(f"{num_devices} devices without a link between them cannot sum anything")
        wire_s = 2 * (num_devices - 1) / num_devices * num_bytes / self.bandwidth
        return self.latency_s + Interval(wire_s / self.share.high, wire_s / self.share.expected, wire_s / self.share.low)


NO_LINK = Link("none", 0, share=Interval.exact(1), latency_s=Interval.exact(0))
"""Of a device that always works alone."""


@dataclass(frozen=True, config=_STRICT)
class Hardware:
    """One device, or all usable cores of a CPU.

    ``aliases`` are other names for it, what ``nvidia-smi`` calls it among them. ROCm counts as ``cuda``, as it does for torch.
    ``memory_bytes``: what a program is told that there is, less than the name says. ``bandwidth`` of that memory in bytes/s, and ``flops``
    (FLOP/s, of dense matrices; a type that is missing is not multiplied in hardware) are peaks. ``links``: the usual one comes first.
    ``context``: bytes that a process takes for the driver and its libraries.
    """

    id: str
    name: str
    device: Literal["cuda", "cpu"]
    memory_bytes: Annotated[int, Field(gt=0)]
    bandwidth: _Positive
    flops: Mapping[Dtype, _Positive]
    links: Annotated[tuple[Link, ...], Field(min_length=1)]
    context: Interval
    decode_efficiency: Efficiency
    prefill_efficiency: Efficiency
    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    aliases: tuple[str, ...] = ()
    capability: tuple[int, int] | None = None

    @property
    def link(self) -> Link:
        """How such devices are usually connected."""
        return self.links[0]

    @property
    def decode_bandwidth(self) -> Interval:
        """Bytes/s at which decoding reads weights and KV cache."""
        return self.decode_efficiency.share * self.bandwidth

    def prefill_flops(self, dtype: Dtype) -> Interval | None:
        """Return the FLOP/s at which prompts are processed; None for a type that is not multiplied in hardware."""
        return self.prefill_efficiency.share * self.flops[dtype] if dtype in self.flops else None

    def linked_by(self, kind: LinkKind) -> Hardware:
        """Return the same with links of this kind first; unchanged if it can have none."""
        return dataclasses.replace(self, links=tuple(sorted(self.links, key=lambda link: link.kind != kind)))


def has_fp8(hardware: Hardware) -> bool:
    """Whether it multiplies FP8 numbers itself."""
    return "float8" in hardware.flops
