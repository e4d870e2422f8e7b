"""Load a Hugging Face checkpoint."""

from __future__ import annotations

from typing import Any

from handlers.errors import ConfigError
from handlers.hooks import HandlerHooks
from handlers.quant.formats import PLAIN
from handlers.telemetry import report_loading
from handlers.weights.checkpoint import Checkpoint
from handlers.weights.division import check_division, own_share
from handlers.weights.loading import weights_name


class CheckpointMixin(HandlerHooks):
    """Load the checkpoint that travels in the archive.

    Adds ``checkpoint``: what the directory says about itself, open from ``initialize`` on. Owns no weights: ``load_model`` hands them to
    its caller. Requires nothing.
    """

    provides = frozenset({"checkpoint"})
    checkpoint: Checkpoint

    def initialize(self, context: Any) -> None:
        """Refuse what is no checkpoint, or may not be loaded, before anything heavy is imported."""
        super().initialize(context)
        self.checkpoint = Checkpoint.open(self.model_dir / self.config.model.path, self.config.model)
        check_division(self.checkpoint, self.config)

    def load_model(self) -> Any:
        """Return the transformers model; an engine process has not been through ``initialize``."""
        super().load_model()
        report_loading("loading weights")
        return self.load_weights(Checkpoint.open(self.model_dir / self.config.model.path, self.config.model))

    def load_weights(self, checkpoint: Checkpoint) -> Any:
        """Load a checkpoint of plain weights, or this rank's share of it; raise ConfigError for quantized ones, and for a recipe."""
        name = weights_name(checkpoint, self.config)
        if name != PLAIN.name:
            raise ConfigError(f"{type(self).__name__} loads plain weights only, not {name}: put QuantizedLoadMixin before CheckpointMixin")
        return checkpoint.load() if self.config.engine.tensor_parallel == 1 else own_share(checkpoint)
