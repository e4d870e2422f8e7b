"""Running a stage over requests so that what goes wrong in it stays with the requests it was given."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from handlers.errors import Failed, RequestError
from handlers.requests import Request

logger = logging.getLogger(__name__)


def run_stage(stage: Callable[[list[Request]], Any], requests: Sequence[Request]) -> None:
    """Call ``stage`` with the requests that have not failed; if it raises, they fail, and nothing is raised.

    A RequestError is the answer to the client; anything else is a bug, which goes to the log with its traceback and to the client as a 500.
    """
    live = [request for request in requests if request.error is None]
    if not live:
        return
    try:
        stage(live)
    except RequestError as error:
        _fail(live, error)
    except Exception:
        logger.exception("%s failed for %d request(s)", getattr(stage, "__qualname__", stage), len(live))
        _fail(live, Failed())


def run_observer(observer: Callable[[Request], Any], request: Request) -> None:
    """Call a hook that only looks on (``record``); what it raises goes to the log and changes nothing."""
    try:
        observer(request)
    except Exception:
        logger.exception("%s failed", getattr(observer, "__qualname__", observer))


def _fail(requests: Sequence[Request], error: RequestError) -> None:
    for request in requests:
        request.error = request.error or error
