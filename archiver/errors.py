"""What can go wrong before a server runs, as one tree; the class decides the exit code.

::

    ArchiverError           exit code 1: the command ran and found a problem
    └── UsageError          exit code 2: the command was used wrongly

Every message is one line that says what is wrong and what to do about it; the command line prints it without a traceback.
"""

from __future__ import annotations

from typing import ClassVar


class ArchiverError(Exception):
    """Root of the tree: a damaged archive, a full disk, a hub out of reach."""

    exit_code: ClassVar[int] = 1


class UsageError(ArchiverError):
    """What was asked for cannot be done as it stands: no such directory, two classes in a handler file, a name that TorchServe refuses."""

    exit_code: ClassVar[int] = 2
