"""The metrics that a worker reports: one observation a finished request, nothing a token.

TorchServe passes no histogram buckets, so durations are in seconds, which fit the Prometheus client's default buckets.
``config/metrics.yaml`` declares the same names; a test compares the two.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from handlers.requests import Request


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric's name, type and unit; ``labels`` beyond ``ModelName``."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    labels: tuple[str, ...] = ()


REQUESTS = Metric("marquee_requests_total", "counter", "count", ("status",))
REQUEST_TIME = Metric("marquee_request_seconds", "histogram", "s")
FIRST_TOKEN_TIME = Metric("marquee_time_to_first_token_seconds", "histogram", "s")
TOKEN_TIME = Metric("marquee_inter_token_seconds", "histogram", "s")
PROMPT_TOKENS = Metric("marquee_prompt_tokens_total", "counter", "count")
GENERATED_TOKENS = Metric("marquee_generated_tokens_total", "counter", "count")
WASTED_TOKENS = Metric("marquee_tokens_after_disconnect_total", "counter", "count")

METRICS = (REQUESTS, REQUEST_TIME, FIRST_TOKEN_TIME, TOKEN_TIME, PROMPT_TOKENS, GENERATED_TOKENS, WASTED_TOKENS)

logger = logging.getLogger(__name__)

Report = Callable[[Metric, float, Mapping[str, str]], None]
"""Take a metric, an observation and its labels."""


def observe_request(request: Request, report: Report) -> None:
    """Report everything about a request whose fate is known. ``status`` is ``ok``, ``cancelled`` or the HTTP status of its error."""
    now_s = time.time()
    report(REQUESTS, 1, {"status": _status(request)})
    report(PROMPT_TOKENS, len(request.prompt_token_ids), {})
    report(GENERATED_TOKENS, request.num_generated_tokens, {})
    if request.finish_reason == "cancelled":
        report(WASTED_TOKENS, request.num_wasted_tokens, {})
    if request.error is not None or request.first_token_s is None:
        return
    report(REQUEST_TIME, now_s - request.created_s, {})
    report(FIRST_TOKEN_TIME, request.first_token_s - request.created_s, {})
    if request.num_generated_tokens > 1:
        report(TOKEN_TIME, (now_s - request.first_token_s) / (request.num_generated_tokens - 1), {})


def _status(request: Request) -> str:
    if request.error is not None:
        return str(request.error.status)
    return "cancelled" if request.finish_reason == "cancelled" else "ok"


def report_loading(activity: str) -> None:
    """Say in the worker's log what it is doing while it loads; ``marquee serve`` shows it to whoever waits."""
    logger.info("MARQUEE LOADING: %s", activity)
