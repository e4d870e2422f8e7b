"""Where a server's metrics are, for a user who knows where the server is."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from archiver.deploy.addresses import INFERENCE_TO_METRICS, neighbour
from archiver.deploy.scrape import MetricsUnavailable, Samples


class Metrics:
    """The metrics of one server. ``url`` is theirs, or the root of the API that has them, or that of the server.

    ``scrape`` raises MetricsUnavailable where there are none. Raises UsageError for what is no URL. Not thread-safe.
    """

    def __init__(self, url: str, scrape: Callable[[str], Samples]) -> None:
        root = neighbour(url, 0)
        is_complete = urlsplit(url).path.strip("/")
        self._urls = [url] if is_complete else [f"{root}/metrics", f"{neighbour(root, INFERENCE_TO_METRICS)}/metrics"]
        self._scrape = scrape

    @property
    def url(self) -> str:
        """Where they are; until they were read for the first time, where they are looked for first."""
        return self._urls[0]

    def read(self) -> Samples:
        """Return a reading. Raises MetricsUnavailable."""
        problems = []
        for url in self._urls:
            try:
                reading = self._scrape(url)
            except MetricsUnavailable as problem:
                problems.append(problem)
            else:
                self._urls = [url]
                return reading
        raise problems[0]
