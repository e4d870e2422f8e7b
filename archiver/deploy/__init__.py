"""Start TorchServe around archives, wait until it can answer, manage its models, stop it without a trace."""

from archiver.deploy.management import (
    AsyncManagementClient,
    KeyFile,
    ManagementClient,
    ManagementError,
    ModelStatus,
    ModelSummary,
    WorkerStatus,
)

__all__ = ["AsyncManagementClient", "KeyFile", "ManagementClient", "ManagementError", "ModelStatus", "ModelSummary", "WorkerStatus"]
