"""Everything that can go wrong in a handler, as one tree.

::

    MarqueeError
    ├── ConfigError             the operator's or the author's mistake: the worker refuses to load
    │   └── IntegrityError      the archive is not what was packaged
    └── RequestError            one request fails; its class decides the HTTP status
        ├── InvalidRequest      400
        ├── NotFound            404
        ├── Overloaded          429, with ``Retry-After``
        ├── Unavailable         503, with ``Retry-After``
        └── Failed              500: our fault or an author's; the client learns no details

Bodies follow the OpenAI error object, ``{"error": {message, type, param, code}}``
(https://platform.openai.com/docs/guides/error-codes).
"""

from __future__ import annotations

from typing import Any, ClassVar

SHUTTING_DOWN = "the server is shutting down"
"""What a client is told that comes, or is still there, when the server stops."""


class MarqueeError(Exception):
    """Root of the tree; its text is written for the person who can act on it."""


class ConfigError(MarqueeError):
    """A configuration, archive or handler class cannot work; the message says what to change."""


class IntegrityError(ConfigError):
    """A member of the archive is missing, added or altered; the message names it."""


class RequestError(MarqueeError):
    """One request fails, alone.

    ``param`` names the offending parameter where there is one; ``status`` overrides the class's own (an author's ``request.fail``).
    """

    status: int = 500
    kind: ClassVar[str] = "server_error"

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None, status: int | None = None) -> None:
        super().__init__(message)
        self.message = str(message)
        self.param = param
        self.code = code
        if status is not None:
            self.status = status

    @property
    def headers(self) -> dict[str, str]:
        """Response headers that belong to this error."""
        return {}

    def body(self) -> dict[str, Any]:
        """Return the OpenAI error object."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


class InvalidRequest(RequestError):
    """The client sent something that cannot be served as it stands."""

    status = 400
    kind = "invalid_request_error"


class NotFound(InvalidRequest):
    """No such route or model."""

    status = 404


class Overloaded(RequestError):
    """No room, or no turn in time; try again after ``retry_after_s`` seconds."""

    status = 429
    kind = "rate_limit_error"

    def __init__(self, message: str, *, retry_after_s: int = 1, code: str = "overloaded") -> None:
        super().__init__(message, code=code)
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        """Return ``Retry-After`` in seconds (RFC 9110, 10.2.3)."""
        return {"Retry-After": str(self.retry_after_s)}


class Unavailable(RequestError):
    """The server is stopping, or has no engine that could take the request now; another server, or this one in a moment, can."""

    status = 503

    @property
    def headers(self) -> dict[str, str]:
        """Return ``Retry-After`` in seconds (RFC 9110, 10.2.3)."""
        return {"Retry-After": "1"}


class Failed(RequestError):
    """Something broke on our side; the details are in the log only."""

    status = 500

    def __init__(self, message: str = "internal error; the server's log has the details", **details: Any) -> None:
        super().__init__(message, **details)
