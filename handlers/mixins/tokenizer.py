"""Turn messages and prompts into token ids, and token ids back into text."""

from __future__ import annotations

from typing import Any

from handlers.hooks import HandlerHooks
from handlers.requests import Request
from handlers.stages import run_stage
from handlers.telemetry import report_loading
from handlers.text.tokenizer import TextTokenizer, load_tokenizer


class TokenizerMixin(HandlerHooks):
    """Apply the checkpoint's chat template and tokenizer.

    Adds ``tokenizer``, with the vocabulary and template of the checkpoint. Owns nothing else. Requires nothing.
    """

    provides = frozenset({"tokenizer"})
    tokenizer: TextTokenizer

    def initialize(self, context: Any) -> None:
        """Load the tokenizer; raise ConfigError if the checkpoint has none."""
        super().initialize(context)
        report_loading("loading the tokenizer")
        self.tokenizer = load_tokenizer(self.model_dir / self.config.model.path, self.model_dir, self.config)

    def render(self, requests: list[Request]) -> list[Request]:
        """Set every request's ``prompt_token_ids``; one that cannot be rendered fails alone."""
        for request in super().render(requests):
            run_stage(lambda rows: self.tokenizer.render(rows[0]), [request])
        return requests
