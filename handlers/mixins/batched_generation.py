"""Generate with ``model.generate``, a batch at a time."""

from __future__ import annotations

import time
from typing import Any

from handlers.engine.batch_generate import BatchGenerator, Prompt
from handlers.hooks import HandlerHooks
from handlers.requests import Delta, Request
from handlers.stages import run_stage
from handlers.text.tokenizer import TextTokenizer
from handlers.weights.checkpoint import eos_token_ids


class BatchedGenerationMixin(HandlerHooks):
    """Run transformers' ``generate`` over the batches that TorchServe forms; a batch lasts as long as its longest answer.

    Adds ``inference``. Owns ``generator``, which holds the model. Requires a tokenizer and a checkpoint.
    """

    provides = frozenset({"inference"})
    requires = {"checkpoint": "CheckpointMixin", "tokenizer": "TokenizerMixin"}
    tokenizer: TextTokenizer
    generator: BatchGenerator

    def initialize(self, context: Any) -> None:
        """Load the model into this worker."""
        super().initialize(context)
        model = self.load_model()
        self.generator = BatchGenerator(model, self.config.engine, eos_token_ids=eos_token_ids(model))
        self.tokenizer.limit_prompts(self.generator.max_model_len - 1)

    def inference(self, requests: list[Request]) -> list[Request]:
        """Generate for all ``requests`` together; their text goes to ``emit`` token by token."""
        for request in requests:
            run_stage(self._limit, [request])
        live = [request for request in requests if request.error is None]
        outputs = [self.tokenizer.output(request) for request in live]

        def push(row: int, token_id: int, is_end: bool) -> bool:
            self._emit(live[row], outputs[row].push((token_id,), num_stop_tokens=int(is_end)))
            return outputs[row].is_stopped or live[row].error is not None

        prompts = [Prompt(tuple(request.prompt_token_ids), request.params) for request in live]
        reasons = self.generator.run(prompts, push) if prompts else []
        for request, output, reason in zip(live, outputs, reasons, strict=True):
            self._emit(request, output.finish())
            request.num_generated_tokens = output.num_tokens
            request.finish_reason = reason
        return requests

    def _limit(self, requests: list[Request]) -> None:
        requests[0].limit_tokens(self.config.generation.max_new_tokens, self.generator.max_model_len)

    def _emit(self, request: Request, text: str) -> None:
        request.first_token_s = request.first_token_s or time.time()
        if text:
            run_stage(lambda rows: self.emit(rows[0], Delta(text)), [request])
