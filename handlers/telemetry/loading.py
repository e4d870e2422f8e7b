"""What a worker says while it loads."""

from __future__ import annotations

import logging

logger = logging.getLogger(__name__)


def report_loading(activity: str) -> None:
    """Say in the worker's log what it is doing while it loads; ``marquee serve`` shows it to whoever waits."""
    logger.info("MARQUEE LOADING: %s", activity)
