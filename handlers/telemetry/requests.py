"""What is reported of a request."""

from __future__ import annotations

from handlers.requests import Request
from handlers.telemetry import catalogue as metrics
from handlers.telemetry.metric import Report


def observe_request(request: Request, report: Report) -> None:
    """Report everything about a choice whose fate is known.

    A client's request is counted on its first choice, and a prompt on the first choice of its own. How long a request took in all is
    observed of those that were answered.
    """
    if request.index == 0:
        report(metrics.REQUESTS, 1, {"status": _status(request)})
    if request.is_first_choice:
        report(metrics.PROMPT_TOKENS, len(request.prompt_token_ids), {})
        report(metrics.CACHED_TOKENS, request.num_cached_tokens, {})
    report(metrics.GENERATED_TOKENS, request.num_generated_tokens, {})
    if request.finish_reason == "cancelled":
        report(metrics.WASTED_TOKENS, request.num_wasted_tokens, {})
    _observe_times(request, report)


def _observe_times(request: Request, report: Report) -> None:
    times = request.times
    if "queue" in times.parts:
        report(metrics.QUEUE_TIME, times.parts["queue"], {})
    if request.error is not None or times.first_token_s is None:
        return
    report(metrics.FIRST_TOKEN_TIME, times.first_token_s, {})
    if request.num_generated_tokens > 1:
        report(metrics.TOKEN_TIME, times.generation_s / (request.num_generated_tokens - 1), {})
    if request.finish_reason == "cancelled":
        return
    report(metrics.REQUEST_TIME, times.total_s, {})
    for part, seconds in times.parts.items():
        report(metrics.PART_TIME, seconds, {"part": part})


def _status(request: Request) -> str:
    if request.error is not None:
        return str(request.error.status)
    return "cancelled" if request.finish_reason == "cancelled" else "ok"
