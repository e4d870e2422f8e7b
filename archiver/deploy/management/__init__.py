"""TorchServe's management API, typed: the models of a running server, listed, registered, scaled, removed."""

from archiver.deploy.management.client import AsyncManagementClient, ManagementClient
from archiver.deploy.management.errors import (
    Conflict,
    LoadFailed,
    ManagementError,
    ModelApiOff,
    ModelNotFound,
    Refused,
    Unauthorized,
    Unreachable,
)
from archiver.deploy.management.keys import KeyFile, Purpose
from archiver.deploy.management.status import ModelStatus, ModelSummary, WorkerStatus

__all__ = [
    "AsyncManagementClient",
    "Conflict",
    "KeyFile",
    "LoadFailed",
    "ManagementClient",
    "ManagementError",
    "ModelApiOff",
    "ModelNotFound",
    "ModelStatus",
    "ModelSummary",
    "Purpose",
    "Refused",
    "Unauthorized",
    "Unreachable",
    "WorkerStatus",
]
