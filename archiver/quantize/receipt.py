"""The receipt of a quantization, ``quantization.json`` beside the weights: what was done, with what, and what it cost in quality."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from archiver.errors import ArchiverError

RECEIPT_FILE = "quantization.json"
REJECTED_SUFFIX = ".rejected"  # of the directory of a checkpoint that exceeded its budget
_FROZEN = ConfigDict(extra="forbid", strict=True)

Measured = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]
"""A number that a broken model can make NaN or infinite: null in JSON, which knows neither, and NaN when it is read again."""


@dataclass(frozen=True, config=_FROZEN)
class LayerError:
    """A linear layer and the relative error of its weight, ``|quantized - source| / |source|`` (Frobenius norms).

    AWQ and SmoothQuant scale channels in one layer and back in another: of their weights this says little.
    """

    name: str
    relative_error: Measured


@dataclass(frozen=True, config=_FROZEN)
class Quality:
    """Two models compared on the same held-out tokens, teacher forced; ``before`` is the source, ``after`` the quantized one.

    ``kl`` is the mean of KL(before || after) over the next-token distributions, in nats, ``kl_p99`` its 99th percentile. ``top1_agreement``
    is the share of positions with the same likeliest token. ``num_broken`` positions have logits ``after`` that are no finite numbers; one
    is enough to make perplexity and KL NaN. ``greedy_divergence`` is, for each prompt, how many greedy tokens are the same before the first
    that differs: ``greedy_tokens`` if none does, be it that both texts end earlier. ``worst_layers`` are the ten with the largest error.
    """

    evaluation: str  # where the tokens come from
    num_tokens: int  # predicted ones
    perplexity_before: Measured
    perplexity_after: Measured
    kl: Measured
    kl_p99: Measured
    top1_agreement: float
    greedy_tokens: int
    greedy_divergence: tuple[int, ...]
    worst_layers: tuple[LayerError, ...]
    num_broken: int = 0

    @property
    def perplexity_ratio(self) -> float:
        """After over before; 1 is none lost."""
        return self.perplexity_after / self.perplexity_before

    @property
    def worst_error(self) -> float:
        """The largest relative error of a layer's weight."""
        return self.worst_layers[0].relative_error if self.worst_layers else 0.0


@dataclass(frozen=True, config=_FROZEN)
class Calibration:
    """What a recipe was calibrated with. ``sha256`` is that of the file's bytes; ``warnings`` are what was wrong with the samples."""

    file: str
    sha256: str
    num_samples: int
    max_length: int  # tokens of a sample at most
    num_tokens: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, config=_FROZEN)
class Receipt:
    """The whole receipt. Sizes in bytes, times in seconds. ``exceeded`` says, in words, which limits of ``budget`` were."""

    recipe: str
    options: Mapping[str, Any]  # the recipe's, as they were used
    source: str
    versions: Mapping[str, str]
    calibration: Calibration | None
    bytes_before: int
    bytes_after: int
    seconds: float
    peak_memory_bytes: int
    quality: Quality | None  # None: not measured, as asked for
    budget: Mapping[str, float]
    exceeded: tuple[str, ...]

    @property
    def is_accepted(self) -> bool:
        """Whether every limit of the budget held."""
        return not self.exceeded

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as in the file."""
        return dict(json.loads(self._to_json()))

    def write(self, directory: Path) -> Path:
        """Write the receipt into a checkpoint's directory."""
        file = directory / RECEIPT_FILE
        file.write_bytes(self._to_json() + b"\n")
        return file

    def _to_json(self) -> bytes:
        return TypeAdapter(Receipt).dump_json(self, indent=2)

    @classmethod
    def parse(cls, content: bytes, name: str) -> Receipt:
        """Read a receipt; raises ArchiverError that calls it ``name``."""
        try:
            return TypeAdapter(Receipt).validate_json(content)
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(str(part) for part in problem["loc"])
            raise ArchiverError(f"{name} is no receipt of a quantization ({where}: {problem['msg']}); quantize again") from None

    @classmethod
    def read(cls, directory: Path) -> Receipt | None:
        """Read the receipt in a checkpoint's directory; None if there is none."""
        file = directory / RECEIPT_FILE
        return cls.parse(file.read_bytes(), str(file)) if file.is_file() else None


def is_rejected(directory: Path) -> bool:
    """Whether the directory's name says that what it holds exceeded its budget."""
    return directory.resolve().name.endswith(REJECTED_SUFFIX)
