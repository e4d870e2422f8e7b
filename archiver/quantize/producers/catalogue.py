"""The producers there are: what each can be told, and what it needs to run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

from archiver.errors import UsageError
from archiver.quantize.producers.options import (
    AwqOptions,
    GgufImportanceOptions,
    GgufOptions,
    GptqOptions,
    Int8Options,
    Nf4Options,
    RoundOptions,
    SmoothQuantOptions,
    TorchaoOptions,
)


@dataclass(frozen=True)
class ProducerKind:
    """A producer: the file ``<name>.py`` beside this one, whose function ``produce`` is a Producer.

    ``options``: the type of its options for each ``method`` that it has; a producer with one way of doing things has only "". It runs in
    the environment of ``tool``, else in this one. This one must have ``packages`` either way: tokens and quality are its business.
    """

    name: str
    options: Mapping[str, type[Any]]
    tool: str | None = None
    packages: tuple[str, ...] = ()

    @property
    def file(self) -> Path:
        """Return the Python file that does it."""
        return Path(__file__).with_name(f"{self.name}.py")

    def check_packages(self) -> None:
        """Raise UsageError if this environment lacks a package."""
        if missing := [package for package in self.packages if find_spec(package) is None]:
            raise UsageError(f"{self.name} recipes need {', '.join(missing)}: pip install 'marquee[quantize]'")


_KINDS = (
    ProducerKind(
        "llmcompressor",
        {"gptq": GptqOptions, "awq": AwqOptions, "round": RoundOptions, "smoothquant": SmoothQuantOptions},
        tool="llmcompressor",
        packages=("torch", "transformers"),
    ),
    ProducerKind("bitsandbytes", {"nf4": Nf4Options, "int8": Int8Options}, packages=("torch", "transformers", "bitsandbytes")),
    ProducerKind("torchao", {"": TorchaoOptions}, packages=("torch", "transformers", "torchao")),
    ProducerKind("gguf", {"": GgufOptions, "importance": GgufImportanceOptions}, packages=("torch", "transformers", "gguf")),
)
PRODUCERS: Mapping[str, ProducerKind] = MappingProxyType({kind.name: kind for kind in _KINDS})
