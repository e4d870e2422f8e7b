"""The ``config.properties`` of one server: what ships with the package, what this instance needs, what the user adds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from archiver.configuration import config_path
from archiver.deploy.instance import Instance
from archiver.deploy.ports import Ports
from archiver.deploy.served_model import ServedModel
from archiver.deploy.settings import ServerSettings
from archiver.errors import UsageError

# Of a plan's settings; a heap is taken from --ts-config only, and threads are left to TorchServe where several models share the server.
_PLANNED_SIZES = frozenset({"job_queue_size", "max_request_size"})

# A restart that makes every client fetch a new key is worse than a key that lives as long as the server: TorchServe's own limit is an hour.
_TOKEN_EXPIRATION_MIN = 365 * 24 * 60


def read_properties(path: Path) -> dict[str, str]:
    """Read ``key=value`` lines the way TorchServe's launcher does; lines that start with ``#`` are comments.

    Raises UsageError for a file that cannot be read or a line that is no setting.
    """
    try:
        lines = [line.strip() for line in path.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--ts-config {path}: cannot read it ({error.strerror if isinstance(error, OSError) else 'not text'})") from None
    settings = [line for line in lines if line and not line.startswith("#")]
    for line in settings:
        if "=" not in line:
            raise UsageError(f"--ts-config {path}: not a setting: {line!r} (expected key=value)")
    return {key.strip(): value.strip() for key, value in (line.split("=", 1) for line in settings)}


def write_properties(instance: Instance, ports: Ports, models: Sequence[ServedModel], settings: ServerSettings) -> None:
    """Write the instance's ``config.properties``: each of these wins over the one before."""
    properties = {
        **read_properties(config_path("config.properties")),
        **_planned(models),
        **_suggested(instance, models),
        **settings.properties,
        **({"enable_model_api": "true"} if settings.model_api else {}),
        **_decided(instance, ports, models, settings),
    }
    instance.config_file.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))


def _planned(models: Sequence[ServedModel]) -> dict[str, str]:
    """Return the sizes that the plans of all models ask for: of each the largest."""
    sizes: dict[str, int] = {}
    for model in models:
        for key in _PLANNED_SIZES & model.planned.keys():
            sizes[key] = max(sizes.get(key, 0), model.planned[key])
    return {key: str(size) for key, size in sorted(sizes.items())}


def _suggested(instance: Instance, models: Sequence[ServedModel]) -> dict[str, str]:
    return {
        "allowed_urls": f"file://{instance.model_store}/.*",
        "install_py_dep_per_model": str(any(model.has_requirements for model in models)).lower(),
        "metrics_config": str(config_path("metrics.yaml")),
        "token_expiration_min": str(_TOKEN_EXPIRATION_MIN),
    }


def _decided(instance: Instance, ports: Ports, models: Sequence[ServedModel], settings: ServerSettings) -> dict[str, str]:
    return {
        "inference_address": url(settings.host, ports.inference),
        "management_address": url(settings.management_host, ports.management),
        "metrics_address": url(settings.metrics_host, ports.metrics),
        # They stay here: streams break over gRPC, and the management of models over it asks for no key of its own.
        "grpc_inference_address": "127.0.0.1",
        "grpc_inference_port": str(ports.grpc_inference),
        "grpc_management_address": "127.0.0.1",
        "grpc_management_port": str(ports.grpc_management),
        "disable_token_authorization": str(not settings.needs_key).lower(),
        "model_store": str(instance.model_store),
        "load_models": ",".join(f"{model.name}={model.store_name}" for model in models),
    }


def url(host: str, port: int) -> str:
    """Return the base URL of a port."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
