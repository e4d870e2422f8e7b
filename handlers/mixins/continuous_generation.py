"""Generate with an engine in which requests join and leave at every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from handlers.config import HandlerConfig
from handlers.driver import Cadence, ContinuousDriver
from handlers.engine.build import build_engine_client
from handlers.engine.client import EngineClient
from handlers.engine.control import describe_engine, describe_memory, engine_commands
from handlers.engine.memory.turn import loading_turn
from handlers.engine.parallel.start import start_ranks
from handlers.engine.process.client import start_process_client
from handlers.engine.surroundings import Surroundings
from handlers.errors import InvalidRequest
from handlers.frontend import read_batch, write_replies
from handlers.hooks import HandlerHooks
from handlers.memory_ledger import read_memory_ledger
from handlers.requests import Request
from handlers.telemetry import EngineGauges
from handlers.text.tokenizer import TextTokenizer
from handlers.torchserve_worker import serve_directly
from handlers.weights.checkpoint import Checkpoint, eos_token_ids
from handlers.worker_lock import claim_only_worker


class ContinuousGenerationMixin(HandlerHooks):
    """Hand requests to a continuous-batching engine and answer them from its events.

    Adds ``inference`` and TorchServe's ``continuousBatching`` mode. Owns ``engine`` and the lock that keeps a second worker out. Requires a
    checkpoint and a tokenizer.
    """

    provides = frozenset({"inference"})
    requires = {"checkpoint": "CheckpointMixin", "tokenizer": "TokenizerMixin"}
    tokenizer: TextTokenizer
    engine: EngineClient

    @classmethod
    def frontend_keys(cls, config: HandlerConfig) -> dict[str, Any]:
        """One worker, fed by the frontend with everything that may run or wait, and with some more, to be refused at once."""
        places = config.engine.frontend_places
        return super().frontend_keys(config) | {"continuousBatching": True, "batchSize": places, "maxBatchDelay": 1}

    def initialize(self, context: Any) -> None:
        """Start the engine, in a process of its own or here; raise ConfigError if it cannot load or this is a second worker."""
        super().initialize(context)
        self._claim = claim_only_worker(self.model_name, self.model_version)
        self._ledger = read_memory_ledger(self.model_dir)
        self.engine = start_process_client(self) if self.config.engine.process else self.build_engine()
        self.tokenizer.limit_prompts(self.engine.max_model_len - 1)
        cadence = Cadence(flush_s=self.config.stream.flush_ms / 1000, hold_s=self.config.stream.hold_ms / 1000)
        self._driver = ContinuousDriver(self, self.engine, self.tokenizer.output, cadence)
        self._gauges = EngineGauges(self.report, lambda: asdict(self.engine.stats()), self._ledger)
        self._gauges.start()
        serve_directly(self._driver.step)
        self.take_orders(engine_commands(self.engine) | {"describe": self.describe, "drain": self._driver.drain})

    def build_engine(self) -> EngineClient:
        """Load the model and start an engine over it, in this process. An engine process calls it on a handler without ``initialize``."""
        with loading_turn() as memory:
            ranks = start_ranks(self)
            model = self.load_model()
            draft = Checkpoint.open_draft(self.model_dir, self.config)
            around = Surroundings.of(self.model_dir, memory, ranks, self.load_weights(draft) if draft else None)
            eos, max_queued_tokens = eos_token_ids(model), self.config.limits.max_queued_tokens
            return build_engine_client(model, self.config.engine, eos_token_ids=eos, max_queued_tokens=max_queued_tokens, around=around)

    def handle(self, data: Sequence[Mapping[str, Any]], context: Any) -> list[bytes]:
        """Answer one call of the frontend, which lists every live request; a worker that is served directly never comes here."""
        return write_replies(self._driver.step(read_batch(data, context)), context)

    def render(self, requests: list[Request]) -> list[Request]:
        """Refuse what will find no room before anything is done for it."""
        self.engine.check_room()
        return super().render(requests)

    def inference(self, requests: list[Request]) -> list[Request]:
        """Admit the choices of one client to the engine, which refuses what never fits (400) and what finds no room (429)."""
        places = self.config.engine.max_running + self.config.engine.max_waiting
        if len(requests) > places:
            raise InvalidRequest(f"this server takes at most {places} choices at once, got {len(requests)}", param="n")
        for request in requests:
            request.limit_tokens(self.config.generation.max_new_tokens, self.engine.max_model_len)
            self.engine.add(
                request.sequence_id,
                request.prompt_token_ids,
                request.params,
                priority=request.priority,
                max_queue_s=request.max_queue_s or self.config.limits.max_queue_s,
            )
        return requests

    def describe(self) -> dict[str, Any]:
        """Add the engine's limits, its processes and its memory."""
        return super().describe() | describe_engine(self.engine) | describe_memory(self.engine, self._ledger)

    def close(self) -> None:
        """Stop the engine and let another worker take the model."""
        self._gauges.close()
        self.engine.close()
        self._claim.close()
        super().close()
