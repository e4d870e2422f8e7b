"""Answer at the bare prediction URL."""

from __future__ import annotations

from handlers.hooks import HandlerHooks
from handlers.weights.checkpoint import Checkpoint
from handlers.wire.codec import Codec
from handlers.wire.prediction import PredictionCodec


class PredictionMixin(HandlerHooks):
    """Serve ``/predictions/<model>``: text-generation-inference's ``{"inputs", "parameters"}``, and plain text.

    Adds one route. Owns nothing. Requires a checkpoint, for its recommended sampling parameters.
    """

    requires = {"checkpoint": "CheckpointMixin"}
    checkpoint: Checkpoint

    def routes(self) -> dict[str, Codec]:
        """Add the bare route."""
        return super().routes() | {"": PredictionCodec(self.model_name, self.checkpoint.sampling_defaults)}
