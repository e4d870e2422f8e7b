"""Marquee's handlers: compose mixins into a TorchServe handler, or subclass a ready one.

Importing this package needs neither torch nor TorchServe; public names are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "CausalLMHandler": "handlers.causal_lm",
    "BatchedCausalLMHandler": "handlers.batched_causal_lm",
    "TorchServeHandler": "handlers.torchserve",
    "HandlerHooks": "handlers.hooks",
    "BatchedGenerationMixin": "handlers.mixins.batched_generation",
    "CheckpointMixin": "handlers.mixins.checkpoint",
    "ContinuousGenerationMixin": "handlers.mixins.continuous_generation",
    "MetricsMixin": "handlers.mixins.metrics",
    "OpenAIMixin": "handlers.mixins.openai",
    "PredictionMixin": "handlers.mixins.prediction",
    "QuantizedLoadMixin": "handlers.mixins.quantized_load",
    "StreamingMixin": "handlers.mixins.streaming",
    "TokenizerMixin": "handlers.mixins.tokenizer",
    "Delta": "handlers.requests",
    "Request": "handlers.requests",
    "SamplingParams": "handlers.requests",
    "HandlerConfig": "handlers.config",
    "ConfigError": "handlers.errors",
    "RequestError": "handlers.errors",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
