"""Change the models of a running server without losing a request: register, scale, roll, unregister."""

from archiver.deploy.models.draining import NotDrainable, StillBusy
from archiver.deploy.models.listing import ListedModel, list_models, list_versions
from archiver.deploy.models.parking import NotParked
from archiver.deploy.models.probe import Probe, ProbeFailed
from archiver.deploy.models.progress import Progress, Silent
from archiver.deploy.models.registration import register_model, unregister_model
from archiver.deploy.models.rolling import Rolled, roll_model
from archiver.deploy.models.scaling import Scaled, scale_model

__all__ = [
    "ListedModel",
    "NotDrainable",
    "NotParked",
    "Probe",
    "ProbeFailed",
    "Progress",
    "Rolled",
    "Scaled",
    "Silent",
    "StillBusy",
    "list_models",
    "list_versions",
    "register_model",
    "roll_model",
    "scale_model",
    "unregister_model",
]
