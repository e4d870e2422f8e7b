"""What a worker tells Prometheus: one observation a finished request, an engine's statistics once a second, nothing a token.

TorchServe passes no histogram buckets, so durations are in seconds, which fit the Prometheus client's default buckets.
``config/metrics.yaml`` declares what ``catalogue`` lists; a test compares the two.
"""

from handlers.telemetry.catalogue import METRICS
from handlers.telemetry.engine_gauges import EngineGauges
from handlers.telemetry.loading import report_loading
from handlers.telemetry.metric import Metric, Report
from handlers.telemetry.requests import observe_request

__all__ = ["METRICS", "EngineGauges", "Metric", "Report", "observe_request", "report_loading"]
