"""Build the continuous engine: choose a runner, have it take what the configuration adds, and divide the memory."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from handlers.config import EngineConfig
from handlers.engine.capacity import Capacity, model_len, plan_capacity
from handlers.engine.compatibility import Adoption, adopt
from handlers.engine.engine import Engine
from handlers.engine.gpu.build import kv_dtype
from handlers.engine.memory.budget import TokenBytes
from handlers.engine.memory.device import memory_of
from handlers.engine.memory.footprint import Footprint
from handlers.engine.memory.settle import kv_budget, settle_memory
from handlers.engine.parallel.linear import join
from handlers.engine.parallel.runner import choose_parallel_runner
from handlers.engine.runner import ResizableRunner
from handlers.engine.runners import choose_runner
from handlers.engine.scheduler import Chunk, StepPlan
from handlers.engine.speculation.build import add_draft_model, build_speculation
from handlers.engine.surroundings import Surroundings
from handlers.engine.threads import settle_num_threads
from handlers.engine.weight_memory import plain_bytes

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

_FIRST_BLOCKS = 8
"""Enough to check a runner and to see what it takes."""


def build_continuous_engine(
    model: PreTrainedModel,
    config: EngineConfig,
    *,
    eos_token_ids: frozenset[int],
    max_queued_tokens: int | None,
    around: Surroundings,
) -> Engine:
    """Return an engine that owns ``model`` and its surroundings. Raises Unfit for a model that it cannot run, and ConfigError."""
    as_plain = plain_bytes(model)  # before a runner takes the weights over
    memory = around.memory
    if memory is None or memory.kind != model.device.type:
        memory = memory_of(model.device)
    if around.ranks is not None:
        join(model, around.ranks.collective)
    adoption = adopt(model)
    token = TokenBytes.of(adoption.kv_shapes, kv_dtype(config, model.dtype))
    if around.draft_model is not None:
        draft_adoption = adopt(around.draft_model)
        token += TokenBytes.of(draft_adoption.kv_shapes, kv_dtype(config, around.draft_model.dtype))
    most = plan_capacity(
        config,
        token_bytes=token.kept,
        model_len=model_len(model.config),
        budget_bytes=kv_budget(config, memory, token, Footprint(context=memory.own_bytes())),
    )
    capacity = Capacity(_FIRST_BLOCKS, most.max_model_len)
    runner = _choose(model, adoption, capacity, config, around)
    drafter = None
    if around.draft_model is not None:
        runner, drafter = add_draft_model(runner, around.draft_model, draft_adoption, capacity, config)
    settled = settle_memory(runner, memory, config, token, around.ledger)
    logger.info(
        "engine ready: %s, %.1f MB of weights (%.1f as plain numbers), %d blocks of %d tokens, sequences of up to %d",
        type(runner).__name__, runner.weight_bytes / 1e6, as_plain / 1e6, runner.num_blocks, runner.block_tokens, runner.max_model_len,
    )  # fmt: skip
    return Engine(
        runner,
        max_running=settled.max_running,
        max_waiting=config.max_waiting,
        max_queued_tokens=max_queued_tokens,
        prefill_chunk_tokens=config.prefill_chunk_tokens,
        prefix_caching=config.prefix_caching,
        eos_token_ids=eos_token_ids,
        speculation=build_speculation(config, drafter, memory.kind),
        footprint=settled.footprint,
        release_unused=memory.release_unused,
    )


def _choose(model: PreTrainedModel, adoption: Adoption, capacity: Capacity, config: EngineConfig, around: Surroundings) -> ResizableRunner:
    """Return the runner of the model itself, with the threads and the compiled layers that it gets."""
    choose = choose_runner if around.ranks is None else partial(choose_parallel_runner, around.ranks)
    runner = choose(model, adoption, capacity, config)
    if model.device.type == "cpu":
        settle_num_threads(partial(runner.run, _trial_step(runner.num_blocks)), config.num_threads)
        runner.reset()
    if config.compile:
        from handlers.engine.compiled.swap import compile_layers  # here, as it loads torch's compiler

        compile_layers(runner, around.compiled_dir)
    return runner


def _trial_step(num_blocks: int) -> StepPlan:
    """Return a step of a few sequences at once, as an engine with something to do makes it."""
    return StepPlan(tuple(Chunk(f"trial {block}", 0, (0,), [block], samples=True) for block in range(min(num_blocks, 8))))
