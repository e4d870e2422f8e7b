"""Serve a causal language model with TorchServe's own dynamic batching over ``model.generate``."""

from __future__ import annotations

from handlers.mixins.batched_generation import BatchedGenerationMixin
from handlers.mixins.checkpoint import CheckpointMixin
from handlers.mixins.metrics import MetricsMixin
from handlers.mixins.openai import OpenAIMixin
from handlers.mixins.prediction import PredictionMixin
from handlers.mixins.quantized_load import QuantizedLoadMixin
from handlers.mixins.streaming import StreamingMixin
from handlers.mixins.tokenizer import TokenizerMixin
from handlers.torchserve import TorchServeHandler


class BatchedCausalLMHandler(
    StreamingMixin,
    OpenAIMixin,
    PredictionMixin,
    MetricsMixin,
    BatchedGenerationMixin,
    QuantizedLoadMixin,
    CheckpointMixin,
    TokenizerMixin,
    TorchServeHandler,
):
    """The compatibility path: every model that ``generate`` can run, in static batches. Scales by TorchServe workers."""
