"""Report what became of each request."""

from __future__ import annotations

from handlers.hooks import HandlerHooks
from handlers.requests import Request
from handlers.telemetry import observe_request


class MetricsMixin(HandlerHooks):
    """Report each request once to TorchServe's metrics: its status, its times in seconds, its tokens.

    Adds the metrics that ``handlers.telemetry`` lists. Owns nothing. Requires nothing.
    """

    def record(self, request: Request) -> None:
        """Report the request."""
        super().record(request)
        observe_request(request, self.report)
