"""Generate with an engine in which requests join and leave at every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from handlers.config import HandlerConfig
from handlers.driver import Cadence, ContinuousDriver
from handlers.engine.build import build_engine_client
from handlers.engine.client import EngineClient
from handlers.frontend import read_batch, write_replies
from handlers.hooks import HandlerHooks
from handlers.requests import Request
from handlers.text.tokenizer import TextTokenizer
from handlers.weights.checkpoint import eos_token_ids
from handlers.worker_lock import claim_only_worker

# Beyond its batchSize the frontend keeps requests to itself: none of them gets a 429, and no model list or bad request gets past them.
_ROOM_FOR_REFUSALS = 64


class ContinuousGenerationMixin(HandlerHooks):
    """Hand requests to a continuous-batching engine and answer them from its events.

    Adds ``inference`` and TorchServe's ``continuousBatching`` mode. Owns ``engine``, and the lock that keeps a second worker out. Requires
    a checkpoint and a tokenizer.
    """

    provides = frozenset({"inference"})
    requires = {"checkpoint": "CheckpointMixin", "tokenizer": "TokenizerMixin"}
    tokenizer: TextTokenizer
    engine: EngineClient

    @classmethod
    def frontend_keys(cls, config: HandlerConfig) -> dict[str, Any]:
        """One worker, fed by the frontend with everything that may run or wait, and with some more, to be refused at once."""
        batch_size = config.engine.max_running + config.engine.max_waiting + _ROOM_FOR_REFUSALS
        return super().frontend_keys(config) | {"continuousBatching": True, "batchSize": batch_size, "maxBatchDelay": 1}

    def initialize(self, context: Any) -> None:
        """Load the model into an engine and start it; raise ConfigError if this is a second worker."""
        super().initialize(context)
        self._lock = claim_only_worker(self.model_name, self.model_version)
        model = self.load_model()
        self.engine = build_engine_client(model, self.config.engine, eos_token_ids=eos_token_ids(model))
        self.tokenizer.limit_prompts(self.engine.max_model_len - 1)
        cadence = Cadence(flush_s=self.config.stream.flush_ms / 1000)
        self._driver = ContinuousDriver(self, self.engine, self.tokenizer.output, cadence)

    def handle(self, data: Sequence[Mapping[str, Any]], context: Any) -> list[bytes]:
        """Answer one call of the frontend, which lists every live request."""
        return write_replies(self._driver.step(read_batch(data, context)), context)

    def inference(self, requests: list[Request]) -> list[Request]:
        """Admit the requests to the engine, which refuses what never fits (400) and what finds no room (429)."""
        for request in requests:
            request.limit_tokens(self.config.generation.max_new_tokens, self.engine.max_model_len)
            self.engine.add(request.id, request.prompt_token_ids, request.params)
        return requests

    def describe(self) -> dict[str, Any]:
        """Add the engine's limits."""
        return super().describe() | {"max_model_len": self.engine.max_model_len}

    def close(self) -> None:
        """Stop the engine and let another worker take the model."""
        self.engine.close()
        self._lock.close()
        super().close()
