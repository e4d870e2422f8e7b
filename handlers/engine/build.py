"""From a loaded model to an engine client."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from handlers.config import EngineConfig
from handlers.engine.scheduler import Chunk, StepPlan

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from handlers.engine.client import EngineClient

logger = logging.getLogger(__name__)


def build_engine_client(model: PreTrainedModel, config: EngineConfig, *, eos_token_ids: frozenset[int]) -> EngineClient:
    """Start an engine over ``model``, which belongs to it from now on: its attention is replaced, ``model.generate`` no longer works.

    Raises ConfigError when the engine cannot run the model, or when its KV cache does not fit into memory.
    """
    # Here and not above, so that whoever composes handlers may import this module without torch.
    from handlers.engine.capacity import kv_budget_bytes, model_len, plan_capacity
    from handlers.engine.compatibility import adopt, check_runner
    from handlers.engine.engine import Engine
    from handlers.engine.thread import ThreadClient
    from handlers.engine.threads import settle_num_threads
    from handlers.engine.transformers_runner import TransformersRunner

    adoption = adopt(model)
    capacity = plan_capacity(
        config,
        token_bytes=sum(shape.elements for shape in adoption.kv_shapes) * model.dtype.itemsize,
        model_len=model_len(model.config),
        budget_bytes=kv_budget_bytes(config, model.device),
    )
    runner = TransformersRunner(model, adoption.kv_shapes, num_slots=capacity.num_slots, max_model_len=capacity.max_model_len)
    check_runner(model, runner, adoption)
    if model.device.type == "cpu":
        settle_num_threads(partial(runner.run, _trial_step(capacity.num_slots)), config.num_threads)
        runner.reset()
    logger.info("engine ready: %d sequences of up to %d tokens", capacity.num_slots, capacity.max_model_len)
    engine = Engine(runner, prefill_chunk_tokens=config.prefill_chunk_tokens, eos_token_ids=eos_token_ids)
    return ThreadClient(engine, max_waiting=config.max_waiting)


def _trial_step(num_slots: int) -> StepPlan:
    """Return a step of a few sequences at once, as an engine with something to do makes it."""
    return StepPlan(tuple(Chunk(f"trial {slot}", slot, 0, (0,), samples=True) for slot in range(min(num_slots, 8))))
