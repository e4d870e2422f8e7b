"""What makes a quantized checkpoint out of a plain one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

OnProgress = Callable[[str, int, int], None]
"""Called with what is being done ("layers", "samples"), how many are done, and how many there are."""


@dataclass(frozen=True)
class CalibrationSet:
    """Tokenized samples, each at most ``max_length`` tokens long."""

    samples: tuple[tuple[int, ...], ...]
    max_length: int


@dataclass(frozen=True)
class Job:
    """One quantization: of the plain checkpoint in ``source``, into the existing empty directory ``out``.

    ``options`` are the recipe's. ``calibration`` is None for recipes that need none. ``workspace`` is where a producer may keep what it
    needs to resume; it is the same directory when the same job is started again, and removed once the job is done.
    """

    source: Path
    out: Path
    options: Mapping[str, Any]
    calibration: CalibrationSet | None
    workspace: Path
    on_progress: OnProgress


class Producer(Protocol):
    """Quantizes with one library."""

    def __call__(self, job: Job) -> Mapping[str, str]:
        """Write a whole checkpoint that loads without its source: weights, configuration, tokenizer, chat template.

        Returns the versions of the libraries that did it, by package name. Raises UsageError for options or models that it cannot take,
        ArchiverError when it fails.
        """
        ...
