"""Packages of compiled code: what one was made for, which is its name, and why one that is there does not fit.

A package is an AOTInductor ``.pt2``: a ZIP file with a shared library in it, 1–2 MB, without weights. Loading it runs native code, so
packages come from a verified archive or from a directory that only this user may write to.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import platform
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import torch

from handlers.engine import attention, lean_layers, linear, paged_cache, step_layout
from handlers.engine.compiled import decode_layer
from handlers.engine.compiled.decode_layer import LayerShape

SUFFIX = ".pt2"
_SOURCES = (attention, decode_layer, lean_layers, linear, paged_cache, step_layout)
"""What the compiled code is traced from."""
_INSTRUCTION_SETS = re.compile("abm|adx|aes|amx|avx|bmi|f16c|fma|gfni|movbe|pclmul|popcnt|sha|s?sse|vaes|vpclmul")
"""How x86 flags begin that a compiler may act upon (``-march=native``); the others are the kernel's business."""


@dataclass(frozen=True)
class Target:
    """What runs compiled code: a version of torch and, in words and exactly, a processor or GPU."""

    torch: str
    machine: str
    instructions: str

    @classmethod
    def here(cls, device: str) -> Target:
        """Return this process's torch and machine, as code for ``device`` ("cpu" or "cuda") sees them."""
        if device == "cpu":
            return cls(torch.__version__, *_processor())
        major, minor = torch.cuda.get_device_capability()
        return cls(torch.__version__, torch.cuda.get_device_name(), f"sm_{major}{minor}")

    def __str__(self) -> str:
        return f"torch {self.torch} and {self.machine}"


@dataclass(frozen=True)
class Package:
    """What one package is for. Equal ones are the same file, whoever made it."""

    target: Target
    shape: LayerShape

    @classmethod
    def here(cls, shape: LayerShape) -> Package:
        """Return what this process can use for layers of ``shape``."""
        return cls(Target.here(shape.device), shape)

    @property
    def file_name(self) -> str:
        """Its name in a directory: a hash of all that it depends on."""
        digest = hashlib.sha256("\0".join(f"{key}={value}" for key, value in sorted(self.metadata.items())).encode())
        return f"decode-{digest.hexdigest()[:16]}{SUFFIX}"

    @property
    def metadata(self) -> dict[str, str]:
        """What is written into the package itself."""
        return asdict(self.target) | {"shape": json.dumps(asdict(self.shape)), "source": _source_hash()}

    def misfit(self, file: Path) -> str:
        """Say in words why the package in ``file`` is not this one."""
        try:
            made = _read_metadata(file)
            target = Target(made["torch"], made["machine"], made["instructions"])
        except (OSError, BadZipFile, ValueError, KeyError, StopIteration):
            return f"{file.name} cannot be read"
        if (target.torch, target.machine) != (self.target.torch, self.target.machine):
            return f"compiled for {target}, this is {self.target}"
        if target != self.target:
            others = sorted(set(target.instructions.split()) ^ set(self.target.instructions.split()))
            return f"compiled for a {target.machine} that differs from this one in {' '.join(others)}"
        if made["source"] != _source_hash():
            return "compiled by another version of marquee"
        return "compiled for another model, dtype or block_tokens"


def _read_metadata(file: Path) -> dict[str, str]:
    with ZipFile(file) as package:
        name = next(name for name in package.namelist() if name.endswith("_metadata.json"))
        return dict(json.loads(package.read(name)))


def _source_hash() -> str:
    return hashlib.sha256(b"\0".join(inspect.getsource(module).encode() for module in _SOURCES)).hexdigest()


def _processor() -> tuple[str, str]:
    """Return what this processor has in words, and every instruction set that a compiler may use unasked (``-march=native``)."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags = next(line for line in lines if line.startswith(("flags", "Features"))).partition(":")[2].split()
    except (OSError, StopIteration):
        return platform.machine(), platform.processor()
    return " ".join(_words(set(flags))), " ".join(sorted(flag for flag in flags if _INSTRUCTION_SETS.match(flag)))


def _words(flags: set[str]) -> Iterator[str]:
    yield torch.backends.cpu.get_cpu_capability()
    yield from (word for word, flag in (("BF16", "avx512_bf16"), ("AMX", "amx_bf16")) if flag in flags)
