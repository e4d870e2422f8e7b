"""What work on a running server tells while it is done."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Is told of everything in a few words, from one thread at a time."""

    def doing(self, what: str) -> None:
        """Hear what is being waited for now; it holds until the next word."""

    def done(self, what: str) -> None:
        """Hear of a step that is over."""


class Silent:
    """Tells nobody."""

    def doing(self, what: str) -> None:
        """Say nothing."""

    def done(self, what: str) -> None:
        """Say nothing."""


SILENT = Silent()
