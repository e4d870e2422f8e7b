"""Speak the OpenAI API."""

from __future__ import annotations

import time

from handlers.hooks import HandlerHooks
from handlers.weights.checkpoint import Checkpoint
from handlers.wire.chat import ChatCodec
from handlers.wire.codec import Codec
from handlers.wire.completions import CompletionCodec
from handlers.wire.models import ModelsCodec


class OpenAIMixin(HandlerHooks):
    """Serve ``v1/chat/completions``, ``v1/completions`` and ``v1/models`` below ``/predictions/<model>/<version>/``.

    Adds three routes. Owns nothing. Requires a checkpoint, for its recommended sampling parameters.
    """

    requires = {"checkpoint": "CheckpointMixin"}
    checkpoint: Checkpoint

    def routes(self) -> dict[str, Codec]:
        """Add the routes of the OpenAI API."""
        defaults = self.checkpoint.sampling_defaults
        models = ModelsCodec(self.model_name, created_s=time.time())
        return super().routes() | {
            "v1/chat/completions": ChatCodec(self.model_name, defaults),
            "v1/completions": CompletionCodec(self.model_name, defaults),
            "v1/models": models,
            f"v1/models/{self.model_name}": models,
        }
