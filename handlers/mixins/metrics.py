"""Report what became of each request, and how long the worker took to load."""

from __future__ import annotations

import time
from typing import Any

from handlers.hooks import HandlerHooks
from handlers.requests import Request
from handlers.telemetry import catalogue as metrics
from handlers.telemetry import observe_request


class MetricsMixin(HandlerHooks):
    """Report each request once to TorchServe's metrics: its status, its times in seconds, its tokens. Stands left of what loads.

    Adds the metrics that ``handlers.telemetry`` lists. Owns nothing. Requires nothing.
    """

    def initialize(self, context: Any) -> None:
        """Report how long it took everything that stands to the right."""
        started_s = time.monotonic()
        super().initialize(context)
        self.report(metrics.LOAD_TIME, time.monotonic() - started_s, {})
        for status in metrics.STATUSES:
            self.report(metrics.REQUESTS, 0, {"status": status})

    def record(self, request: Request) -> None:
        """Report the request."""
        super().record(request)
        observe_request(request, self.report)
