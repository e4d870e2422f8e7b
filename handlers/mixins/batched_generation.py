"""Generate over transformers' ``generate``, a batch at a time."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from handlers.engine.client import Event
from handlers.errors import Failed
from handlers.hooks import HandlerHooks
from handlers.requests import Delta, Request
from handlers.stages import run_stage
from handlers.telemetry import catalogue as metrics
from handlers.text.output import TextOutput
from handlers.text.tokenizer import TextTokenizer
from handlers.weights.checkpoint import eos_token_ids

if TYPE_CHECKING:
    from handlers.engine.engine import Engine

logger = logging.getLogger(__name__)


class BatchedGenerationMixin(HandlerHooks):
    """Run the batches that TorchServe forms, each to its end; a batch lasts as long as its longest answer.

    Adds ``inference``. Owns ``generator``, an engine that holds the model. Requires a tokenizer and a checkpoint.
    """

    provides = frozenset({"inference"})
    requires = {"checkpoint": "CheckpointMixin", "tokenizer": "TokenizerMixin"}
    tokenizer: TextTokenizer
    generator: Engine

    def initialize(self, context: Any) -> None:
        """Load the model into this worker."""
        from handlers.engine.generate_engine import build_generate_engine
        from handlers.engine.generate_runner import PaddingMeter

        super().initialize(context)
        model = self.load_model()
        engine, self._meter = self.config.engine, PaddingMeter()
        self.generator = build_generate_engine(
            model, engine, eos_token_ids=eos_token_ids(model), max_running=engine.max_running, meter=self._meter
        )
        self.report(metrics.WEIGHT_BYTES, self.generator.stats().weight_bytes, {})
        self.tokenizer.limit_prompts(self.generator.limits.max_model_len - 1)

    def inference(self, requests: list[Request]) -> list[Request]:
        """Generate for all ``requests`` together; their text goes to ``emit`` token by token."""
        for request in requests:
            run_stage(self._admit, [request])
            request.times.book("tokenize")
        live = {request.sequence_id: (request, self.tokenizer.output(request)) for request in requests if request.error is None}
        while self.generator.has_work:
            for event in self._step():
                self._take(event, *live[event.sequence_id])
        if live:
            self._report_batch(len(live))
        return requests

    def describe(self) -> dict[str, Any]:
        """Add what the weights take in memory."""
        return super().describe() | {"weight_bytes": self.generator.stats().weight_bytes}

    def _report_batch(self, num_rows: int) -> None:
        self.report(metrics.BATCHES, 1, {})
        self.report(metrics.BATCHED_SEQUENCES, num_rows, {})
        self.report(metrics.POSITIONS, self._meter.positions, {})
        self.report(metrics.PADDING, self._meter.padding, {})
        self._meter.positions = self._meter.padding = 0

    def _admit(self, requests: list[Request]) -> None:
        (request,) = requests
        request.limit_tokens(self.config.generation.max_new_tokens, self.generator.limits.max_model_len)
        self.generator.add(self.generator.new_sequence(request.sequence_id, request.prompt_token_ids, request.params))

    def _step(self) -> list[Event]:
        try:
            return self.generator.step()
        except Exception:  # whatever a model can raise
            logger.exception("a batch failed")
            return self.generator.recover()

    def _take(self, event: Event, request: Request, output: TextOutput) -> None:
        request.times.book_engine(has_tokens=bool(event.token_ids), queue_s=event.start.queue_s if event.start else 0.0)
        run_stage(lambda _: self._advance(event, request, output), [request])
        request.times.book("detokenize")
        if request.is_finished:
            self.generator.cancel(event.sequence_id)  # it may have ended by a stop string, or failed in a hook

    def _advance(self, event: Event, request: Request, output: TextOutput) -> None:
        if event.finish_reason == "error":
            raise Failed(event.error or "the engine gave this request up; send it again")
        text = output.push(event.token_ids, event.num_stop_tokens, event.logprobs)
        request.num_generated_tokens = output.num_tokens
        reason = "stop" if output.is_stopped else event.finish_reason
        if reason is not None:
            text += output.finish()
        request.tokens += output.take_tokens()
        if text:
            self.emit(request, Delta(text))
        request.finish_reason = reason
