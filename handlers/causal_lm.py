"""Serve a causal language model with continuous batching, streaming and the OpenAI API."""

from __future__ import annotations

from handlers.mixins.checkpoint import CheckpointMixin
from handlers.mixins.continuous_generation import ContinuousGenerationMixin
from handlers.mixins.metrics import MetricsMixin
from handlers.mixins.openai import OpenAIMixin
from handlers.mixins.prediction import PredictionMixin
from handlers.mixins.quantized_load import QuantizedLoadMixin
from handlers.mixins.streaming import StreamingMixin
from handlers.mixins.tokenizer import TokenizerMixin
from handlers.torchserve import TorchServeHandler


class CausalLMHandler(
    StreamingMixin,
    OpenAIMixin,
    PredictionMixin,
    MetricsMixin,
    ContinuousGenerationMixin,
    QuantizedLoadMixin,
    CheckpointMixin,
    TokenizerMixin,
    TorchServeHandler,
):
    """The default: requests join and leave the running batch at every step. One worker a model."""
