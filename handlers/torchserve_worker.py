"""TorchServe's worker process, made fit for a handler that is called hundreds of times a second.

With ``handlers.torchserve`` all that imports ``ts``. Correctness never depends on what is changed here; another version of TorchServe than
the tested one is left as it is.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from handlers.telemetry import Metric

TESTED_VERSION = "0.12.0"
READ_BUFFER_BYTES = 256 * 1024

logger = logging.getLogger(__name__)


def adapt_worker(context: Any) -> None:
    """Make reads buffered and logs quiet, and have bodies delivered as they came. Call it once, while the model loads."""
    # Bodies are parsed by our codecs: the frontend's decoder lets NaN through and hides what was malformed.
    os.environ["TS_DECODE_INPUT_REQUEST"] = "false"
    try:
        import ts
        from ts.protocol import otf_message_handler
    except ImportError:
        return
    if ts.__version__.strip() != TESTED_VERSION:
        logger.warning("TorchServe %s is not the tested %s: socket reads stay unbuffered", ts.__version__, TESTED_VERSION)
        return
    otf_message_handler._retrieve_buffer = buffered_reads()
    _silence_steps(context)


def buffered_reads() -> Callable[[Any, int], bytes]:
    """Return a replacement for ``otf_message_handler._retrieve_buffer``, which calls ``recv`` about 30 times for one request.

    The worker has one connection and nothing else reads from it, so bytes that are read ahead are never lost.
    """
    readers: dict[int, io.BufferedReader] = {}

    def read(connection: Any, length: int) -> bytes:
        reader = readers.get(id(connection))
        if reader is None:
            reader = readers[id(connection)] = connection.makefile("rb", buffering=READ_BUFFER_BYTES)
        data: bytes = reader.read(length)
        if len(data) < length:
            logger.info("the frontend closed the connection")
            sys.exit(0)
        return data

    return read


def report_metric(metrics: Any, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
    """Hand one observation to TorchServe's ``metrics`` cache, past its ``add_metric``, which attaches the ids of all live requests."""
    from ts.metrics.metric_type_enum import MetricTypes

    kind = MetricTypes(metric.kind)
    known = metrics.cache.get(kind, {}).get(metric.name)
    target = known or metrics.add_metric_to_cache(metric.name, metric.unit, list(labels), kind)
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
