"""The root of every handler: TorchServe's lifecycle around the stages."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from handlers.batch import answer_batch, refuse_batch
from handlers.config import HandlerConfig, parse_handler_config
from handlers.control_socket import Commands, ControlSocket, open_control_socket
from handlers.errors import ConfigError
from handlers.frontend import Reply, read_batch, write_replies
from handlers.gate import Gate
from handlers.hooks import HandlerHooks
from handlers.idle_worker import IdleWorker
from handlers.integrity import verify_directory
from handlers.telemetry import Metric, report_loading
from handlers.torchrun import is_idle_worker, with_ranks
from handlers.torchserve_worker import adapt_worker, report_metric, send_intermediate, worker_name
from handlers.wire.codec import Codec
from handlers.worker_gpus import show_engines_their_gpus, use_own_gpu

if "ts" in sys.modules:  # A TorchServe worker. Elsewhere (packaging, tests) the import would cost seconds: its module imports torch.
    from ts.torch_handler.base_handler import BaseHandler
else:
    BaseHandler = object


class TorchServeHandler(HandlerHooks, BaseHandler):  # type: ignore[misc]
    """Run the stages once for each batch that the frontend sends: decode → preprocess → render → inference → postprocess → encode.

    Owns ``config``, ``model_dir``, ``model_name`` and the socket at which the worker takes orders. Thread safety: TorchServe calls a worker
    from one thread.
    """

    is_root: ClassVar[bool] = True
    _control: ControlSocket | None = None

    def __new__(cls) -> Any:
        """Make a handler, or what stands in for it in a worker that does nothing."""
        return IdleWorker() if is_idle_worker() else super().__new__(cls)

    @classmethod
    def frontend_keys(cls, config: HandlerConfig) -> dict[str, Any]:
        """One worker, and TorchServe's own dynamic batching of up to 8 requests within 50 ms."""
        return {"minWorkers": 1, "maxWorkers": 1, "batchSize": 8, "maxBatchDelay": 50, "responseTimeout": 300, "startupTimeout": 600}

    def initialize(self, context: Any) -> None:
        """Read the configuration and check the archive before anything is loaded from it; raise ConfigError."""
        super().initialize(context)
        keys = context.model_yaml_config or {}
        self.model_dir = Path(context.system_properties["model_dir"])
        self.model_name = context.model_name
        self.model_version = str((context.manifest or {}).get("model", {}).get("modelVersion", "1.0"))
        self.config = with_ranks(parse_handler_config(keys), keys)
        check_frontend_mode(type(self), keys, self.config)
        if self.config.integrity != "off":
            report_loading("verifying the archive")
            verify_directory(self.model_dir, required=self.config.integrity == "required")
        self._metrics = context.metrics
        self._worker_name = worker_name(self.model_name, self.model_version)
        adapt_worker(context)
        self._gate = Gate()
        if keys.get("continuousBatching"):
            show_engines_their_gpus(keys)
        else:
            use_own_gpu(context.system_properties.get("gpu_id"))
            self.take_orders(self._gate.commands())

    def handle(self, data: Sequence[Mapping[str, Any]], context: Any) -> list[bytes]:
        """Answer one batch; every request succeeds or fails alone."""
        # GET :8081/models/<name>?customized=true comes alone and without a body; a client may send the same header.
        if len(data) == 1 and not data[0] and context.get_request_header(0, "describe") == "True":
            self._gate.wait_while_parked()
            return [json.dumps(self.describe()).encode()]
        with self._gate.batch() as is_open:
            batch = read_batch(data, context)
            send = functools.partial(_send, context)
            replies = answer_batch(self, self._routes, batch, send=send) if is_open else refuse_batch(self, batch)
            return write_replies(replies, context)

    @functools.cached_property
    def _routes(self) -> dict[str, Codec]:
        return self.routes()

    def describe(self) -> dict[str, Any]:
        """Name the class, the model and the configuration."""
        return super().describe() | {"handler": type(self).__name__, "model": self.model_name, "version": self.model_version}

    def take_orders(self, commands: Commands) -> None:
        """Open the control socket."""
        self._control = open_control_socket(self.model_name, self.model_version, commands)

    def close(self) -> None:
        """Take no more orders."""
        if self._control is not None:
            self._control.close()
        super().close()

    def report(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """Hand one observation to TorchServe's metrics; it reaches Prometheus if metrics.yaml declares it."""
        own = {"ModelName": self.model_name, "ModelVersion": self.model_version, "WorkerName": self._worker_name}
        report_metric(self._metrics, metric, value, own | dict(labels))


def check_frontend_mode(handler: type[HandlerHooks], keys: Mapping[str, Any], config: HandlerConfig) -> None:
    """Raise ConfigError, with the line to write, if model-config.yaml asks the frontend for another mode than the class was built for."""
    wanted = handler.frontend_keys(config)
    for key in ("continuousBatching", "asyncCommunication"):
        if bool(keys.get(key, False)) != bool(wanted.get(key, False)):
            line = f"{key}: {str(bool(wanted.get(key))).lower()}"
            raise ConfigError(f"{handler.__name__} needs '{line}' at the top level of model-config.yaml")
    if not wanted.get("continuousBatching"):
        return
    if keys.get("maxWorkers", 1) != 1:
        raise ConfigError(f"{handler.__name__} takes one worker: set 'minWorkers: 1' and 'maxWorkers: 1' in model-config.yaml")
    if keys.get("batchSize", 1) < wanted["batchSize"]:
        line = f"batchSize: {wanted['batchSize']}"
        raise ConfigError(f"{handler.__name__} needs '{line}' at the top level of model-config.yaml: all that may run, wait or be refused")


def _send(context: Any, reply: Reply) -> None:
    """Send a part of the answer to the one request of a batch; outside of continuous batching TorchServe can do so for no larger one."""
    send_intermediate(write_replies([reply], context), context)
