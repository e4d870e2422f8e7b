"""What can go wrong between us and a running server, as one tree.

::

    ArchiverError
    └── ManagementError
        ├── Unreachable       no server answers there
        ├── Unauthorized      400: it wants a key that we do not have
        ├── ModelApiOff       405: it may not register and remove models
        ├── ModelNotFound     404: no such model, or not in that version
        ├── Conflict          409: that version is registered already
        ├── Refused           any other answer that is not 2xx, with the server's own words
        └── LoadFailed        a worker could not load its model
"""

from __future__ import annotations

from archiver.errors import ArchiverError


class ManagementError(ArchiverError):
    """A running server did not do what it was asked to; the message says what to do."""


class Unreachable(ManagementError):
    """No server answers at that address, or it stopped in the middle of an answer."""


class Unauthorized(ManagementError):
    """Token authorization is on, and no key of ours opens the door."""


class ModelApiOff(ManagementError):
    """The server was started without the functions that register and remove models."""


class ModelNotFound(ManagementError):
    """No model of that name, or not in that version."""


class Conflict(ManagementError):
    """The version is registered already."""


class Refused(ManagementError):
    """The server did not accept the request as it stands."""


class LoadFailed(ManagementError):
    """A model's worker could not load it; where the worker's own words are known, the message is they."""
