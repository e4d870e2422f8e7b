"""TorchServe's worker process, made fit for a handler that is called hundreds of times a second.

With ``handlers.torchserve`` all that imports ``ts``. Correctness never depends on what is changed here; another version of TorchServe than
the tested one is left as it is.
"""

from __future__ import annotations

import itertools
import logging
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from handlers.frontend import Incoming, Reply
from handlers.frontend_messages import MessageReader, write_message
from handlers.telemetry import Metric

TESTED_VERSION = "0.12.0"

logger = logging.getLogger(__name__)


def adapt_worker(context: Any) -> None:
    """Make reads buffered and logs quiet, and have bodies delivered as they came. Call it once, while the model loads."""
    # Bodies are parsed by our codecs: the frontend's decoder lets NaN through and hides what was malformed.
    os.environ["TS_DECODE_INPUT_REQUEST"] = "false"
    if not _is_tested_version():
        return
    from ts.protocol import otf_message_handler

    otf_message_handler._retrieve_buffer = MessageReader().read
    _silence_steps(context)


def serve_directly(answer: Callable[[list[Incoming]], list[Reply | None]]) -> None:
    """Have ``answer`` called with the frontend's requests, past TorchServe's service and context. Call it once, while the model loads.

    They build, for every live request in every call, all headers and a context; at 64 streams that is most of a step. Where this
    changes nothing (no TorchServe, another version), ``handle`` is called.
    """
    if not _is_tested_version():
        return
    from ts.protocol import otf_message_handler
    from ts.service import Service

    reader = MessageReader()
    otf_message_handler._retrieve_buffer = reader.read
    otf_message_handler._retrieve_inference_msg = reader.read_requests
    Service.predict = lambda service, batch: write_message(batch, answer(batch))


def _is_tested_version() -> bool:
    try:
        import ts
    except ImportError:
        return False
    version = ts.__version__.strip()
    if version != TESTED_VERSION:
        logger.warning("TorchServe %s is not the tested %s: its worker stays as slow as it is", version, TESTED_VERSION)
    return bool(version == TESTED_VERSION)


def worker_name(model: str, version: str) -> str:
    """Return what the frontend calls this worker in its own metrics: the number is at the end of the socket that it was started with.

    A worker that is started again keeps it.
    """
    sockets = [value for name, value in itertools.pairwise(sys.argv) if name in ("--sock-name", "--port")]
    number = sockets[0].rpartition(".")[2] if sockets else ""
    return f"W-{number}-{model}_{version}"


def report_metric(metrics: Any, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
    """Hand one observation to TorchServe's ``metrics`` cache, past its ``add_metric``, which attaches the ids of all live requests.

    Of ``labels`` those count that ``metrics.yaml`` has for the metric.
    """
    from ts.metrics.metric_type_enum import MetricTypes

    kind = MetricTypes(metric.kind)
    known = metrics.cache.get(kind, {}).get(metric.name)
    target = known or metrics.add_metric_to_cache(metric.name, metric.unit, ["ModelName", "ModelVersion", *metric.labels], kind)
    target.add_or_update(value, [labels.get(name, "") for name in target.dimension_names])


def send_intermediate(bodies: list[bytes], context: Any) -> None:
    """Send a part of the answer to the one request of a batch, before ``handle`` returns."""
    from ts.handler_utils.utils import send_intermediate_predict_response

    send_intermediate_predict_response(bodies, context.request_ids, "", 200, context)


def _silence_steps(context: Any) -> None:
    """Drop what TorchServe writes at every step: a line on the root logger, and a time that lists every live request's id."""
    logging.getLogger().addFilter(lambda record: record.levelno > logging.INFO)
    metrics = context.metrics
    add_time = metrics.add_time

    def add_time_except_steps(name: str, *args: Any, **kwargs: Any) -> None:
        if name != "PredictionTime":
            add_time(name, *args, **kwargs)

    metrics.add_time = add_time_except_steps
