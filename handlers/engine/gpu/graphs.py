"""CUDA graphs: the steps of running sequences are recorded once for some numbers of rows, and a step replays the next larger one.

At few rows a GPU computes a layer faster than the host can ask for it; a whole step as one request takes the host out of the way.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from handlers.engine.gpu.block_tables import BlockTables
from handlers.engine.gpu.flat_plan import FlatPlan
from handlers.engine.gpu.staging import Staging
from handlers.engine.gpu.step_input import StepInput, StepShape, aligned
from handlers.engine.scheduler import StepPlan

logger = logging.getLogger(__name__)

_MOST_ROWS = 512
"""So many rows keep a GPU busy for longer than the host needs to ask for a step kernel by kernel."""
_FINE, _FINE_UNTIL, _COARSE = 8, 256, 32
_LOG_EVERY = 8

Replay = Callable[[], object]


class Capture(Protocol):
    """Records what is asked of the device."""

    def __call__(self, compute: Callable[[], None]) -> Replay:
        """Return what does on the device all that ``compute`` does, on the same memory."""
        ...


class CudaCapture:
    """Records CUDA graphs, which share one pool of memory: none of them may need what another one has left there.

    Once all of them are gone, the pool is not to be used again. ``stream``: no graphs of others are recorded on it, as the end of one takes
    cuBLAS's workspace on its stream from the others (https://github.com/pytorch/pytorch/issues/193402).
    """

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream = stream
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, compute: Callable[[], None]) -> Replay:
        """Run it, so that kernels are compiled and libraries have their memory; then record it."""
        graph = torch.cuda.CUDAGraph()
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):  # which a recording that fails may not leave by itself
            compute()
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                compute()
        return graph.replay


Decode = Callable[[StepInput[Tensor], Tensor], Tensor]
"""From a step without prompts, and what was drawn before it, to the logits ``(num_logits, vocab_size)``."""


class DecodeGraphs:
    """A recording for each of some numbers of rows: they share their input, their output and the memory in between. Used by one thread."""

    def __init__(
        self,
        decode: Decode,
        capture: Capture,
        sizes: Sequence[int],
        *,
        max_context: int,
        block_tokens: int,
        vocab_size: int,
        device: torch.device,
    ) -> None:
        """Record ``decode`` for all ``sizes``, in ascending order, over contexts of up to ``max_context`` tokens. Raises what it raises."""
        self._sizes = sizes
        self._width = aligned(-(-max_context // block_tokens))
        self._staging = Staging(device, StepShape.of_decodes(sizes[-1], self._width).size)
        self._drawn = torch.zeros(sizes[-1], dtype=torch.int64, device=device)
        self._logits = torch.empty(sizes[-1], vocab_size, dtype=torch.float32, device=device)
        self._replays: dict[int, Replay] = {}
        padding = FlatPlan(StepPlan(()), block_tokens), BlockTables(self._width, block_tokens)
        for size in reversed(sizes):  # what is in between of the largest is enough for the others
            step = self._send(*padding, size)
            self._replays[size] = capture(partial(self._compute, decode, step))
            if not (num_captured := len(self._replays)) % _LOG_EVERY or num_captured == len(sizes):
                logger.info("captured %d/%d graphs of decode steps", num_captured, len(sizes))

    def run(self, plan: FlatPlan, tables: BlockTables, drawn: Tensor | None) -> Tensor | None:
        """Replay a step, and return its logits, good until the next one; None for a step that no recording has room for."""
        shape = plan.shape
        if shape.num_prompts or shape.num_rows > self._sizes[-1] or (drawn is not None and len(drawn) > len(self._drawn)):
            return None
        if drawn is not None:
            self._drawn[: len(drawn)] = drawn
        size = self._sizes[bisect_left(self._sizes, shape.num_rows)]
        self._send(plan, tables, size)
        self._replays[size]()
        return self._logits[: plan.num_logits]

    def _send(self, plan: FlatPlan, tables: BlockTables, size: int) -> StepInput[Tensor]:
        shape = StepShape.of_decodes(size, self._width)
        plan.write(shape.split(self._staging.begin(shape.size)), tables)
        return shape.split(self._staging.send(shape.size))

    def _compute(self, decode: Decode, step: StepInput[Tensor]) -> None:
        self._logits[: len(step.sampling)] = decode(step, self._drawn)


def bucket_sizes(max_rows: int) -> tuple[int, ...]:
    """Return the numbers of rows to capture: 1, 2, 4, then by eights, beyond 256 by 32, and ``max_rows`` itself unless it is too many.

    A step computes less than 8 rows too many, or an eighth of its rows.
    """
    max_rows = min(max_rows, _MOST_ROWS)
    steps = (1, 2, 4, *range(_FINE, _FINE_UNTIL, _FINE), *range(_FINE_UNTIL, max_rows, _COARSE))
    return (*(size for size in steps if size < max_rows), max_rows)
