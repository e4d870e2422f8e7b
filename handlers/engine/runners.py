"""Which runner a model gets: the fastest one that says what the model itself says."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from handlers.config import EngineConfig
from handlers.engine.capacity import Capacity
from handlers.engine.compatibility import Adoption, Unfit, check_runner
from handlers.engine.decoder_parts import take_apart
from handlers.engine.gpu.build import fits_gpu, make_gpu_runner
from handlers.engine.lean_runner import LeanRunner
from handlers.engine.native_runner import NativeRunner, fits
from handlers.engine.runner import ResizableRunner
from handlers.engine.transformers_runner import TransformersRunner
from handlers.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)


def choose_runner(model: PreTrainedModel, adoption: Adoption, capacity: Capacity, config: EngineConfig) -> ResizableRunner:
    """Return an empty runner for ``model``; raise Unfit if there is none, or ConfigError if none does what the operator set."""
    for make in _candidates(model, adoption, capacity, config):
        runner = make()
        try:
            check_runner(model, runner, adoption)
        except Unfit as error:
            if isinstance(runner, TransformersRunner):
                raise
            logger.warning("%s is not used: %s", type(runner).__name__, error)
        else:
            return runner
    raise AssertionError("there is a runner for any model")


def _candidates(
    model: PreTrainedModel, adoption: Adoption, capacity: Capacity, config: EngineConfig
) -> Iterator[Callable[[], ResizableRunner]]:
    """Yield runners in the order of their speed."""
    num_blocks, block_tokens = capacity.num_blocks, config.block_tokens
    parts = take_apart(model, adoption.scorings, capacity.max_model_len)
    if parts is not None and fits_gpu(parts):
        yield lambda: make_gpu_runner(parts, config, num_blocks)
    if config.kv_dtype == "fp8":
        raise ConfigError("handler.engine.kv_dtype is fp8, which takes a CUDA GPU and a decoder like Llama's: set it to auto")
    if parts is not None and config.native_kernels and fits(parts, block_tokens):
        yield lambda: NativeRunner(parts, num_blocks=num_blocks, block_tokens=block_tokens)
    if parts is not None:
        yield lambda: LeanRunner(parts, num_blocks=num_blocks, block_tokens=block_tokens)
    yield lambda: TransformersRunner(
        model, adoption.kv_shapes, num_blocks=num_blocks, block_tokens=block_tokens, max_model_len=capacity.max_model_len
    )
