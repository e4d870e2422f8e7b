"""Load quantized weights, and quantize plain ones on the way."""

from __future__ import annotations

import logging
from typing import Any

from handlers.hooks import HandlerHooks
from handlers.quant.machine import Machine
from handlers.weights.checkpoint import Checkpoint
from handlers.weights.loading import choose_loader, weights_name

logger = logging.getLogger(__name__)


class QuantizedLoadMixin(HandlerHooks):
    """Load checkpoints in quantized formats and GGUF files, and plain ones by the recipe in ``handler.quantization``.

    Adds the name of the weights' format to ``describe``. Owns nothing. Requires a checkpoint.
    """

    provides = frozenset({"quantized weights"})
    requires = {"checkpoint": "CheckpointMixin"}
    checkpoint: Checkpoint

    def load_weights(self, checkpoint: Checkpoint) -> Any:
        """Load what is quantized or is to be; refuse, with the nearest format that works, what this machine cannot run."""
        load = choose_loader(checkpoint, self.config, Machine.here())
        logger.info("weights: %s", weights_name(checkpoint, self.config))
        return super().load_weights(checkpoint) if load is None else load()

    def describe(self) -> dict[str, Any]:
        """Add what the weights are."""
        return super().describe() | {"weights": weights_name(self.checkpoint, self.config)}
