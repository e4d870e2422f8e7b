"""What stands in for a handler in a worker that does nothing: TorchServe sends it requests, and keeps what it returns to itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from handlers.torchserve_worker import adapt_worker, serve_directly


class IdleWorker:
    """Reads requests and forgets them; see ``handlers.torchrun``."""

    def initialize(self, context: Any) -> None:
        """Load nothing."""
        adapt_worker(context)
        serve_directly(lambda batch: [None] * len(batch))

    def handle(self, data: Sequence[Mapping[str, Any]], context: Any) -> list[bytes]:
        """Answer nothing."""
        return [b""] * len(data)
