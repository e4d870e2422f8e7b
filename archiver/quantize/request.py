"""What the user asks ``marquee quantize`` for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class QuantizeRequest:
    """``recipes``: names or YAML files, one of them unless ``compare``; a name may carry a variant (``gguf:Q4_K_M``).

    ``calibration`` and ``evaluation``: JSONL or text; without an evaluation set the quality is measured on text that the model writes
    itself. ``prompts``: one a line, for the greedy comparison. ``budget``: limits by name (``kl``, ``ppl``, ``top1``); empty is none.
    ``out`` None names the result after the model and the recipe.
    """

    model: str
    recipes: tuple[str, ...]
    out: Path | None = None
    calibration: Path | None = None
    num_samples: int = 256
    max_length: int = 2048
    evaluation: Path | None = None
    prompts: Path | None = None
    budget: Mapping[str, float] = field(default_factory=dict)
    measure: bool = True
    force: bool = False  # replace an existing ``out``
    revision: str | None = None
