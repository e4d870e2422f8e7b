"""From a loaded model to an engine client."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from handlers.config import EngineConfig
from handlers.engine.scheduler import Chunk, StepPlan
from handlers.errors import ConfigError
from handlers.gguf_file import GgufFile

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel

    from handlers.engine.client import EngineClient
    from handlers.engine.engine import Engine
    from handlers.engine.memory.device import DeviceMemory
    from handlers.engine.parallel.ranks import Ranks
    from handlers.memory_ledger import MemoryLedger

logger = logging.getLogger(__name__)


_FIRST_BLOCKS = 8
"""Enough to check a runner and to see what it takes."""


def build_engine_client(
    model: PreTrainedModel | GgufFile,
    config: EngineConfig,
    *,
    eos_token_ids: frozenset[int],
    max_queued_tokens: int | None = None,
    memory: DeviceMemory | None = None,
    ledger: MemoryLedger | None = None,
    ranks: Ranks | None = None,
    draft_model: PreTrainedModel | None = None,
    compiled_dir: Path | None = None,
) -> EngineClient:
    """Start an engine over ``model``, which belongs to it from now on: its attention is replaced, ``model.generate`` no longer works.

    So does ``draft_model``, which ``config.speculation`` may ask for. A GGUF file is for llama.cpp to load. ``memory`` is that of the
    model's device from before the model was loaded, ``ledger`` what was planned for it: both are for the continuous engine. Raises
    ConfigError when no engine that ``config.name`` allows can run the model, or when its KV cache does not fit into memory.

    With ``ranks``, ``model`` is this process's share of the model, of which they have the others. ``compiled_dir`` may hold the decode step
    that ``config.compile`` asks for; what is in it is trusted.
    """
    # Here and not above, so that whoever composes handlers may import this module without torch.
    from handlers.engine.compatibility import Unfit
    from handlers.engine.generate_engine import build_generate_engine
    from handlers.engine.thread import ThreadClient

    if isinstance(model, GgufFile):
        from handlers.engine.llama_cpp.build import build_llama_cpp_engine

        return ThreadClient(build_llama_cpp_engine(model, config, eos_token_ids=eos_token_ids, max_queued_tokens=max_queued_tokens))
    if config.name == "llamacpp":
        raise ConfigError("handler.engine.name llamacpp runs GGUF files only; make one: marquee quantize MODEL --recipe gguf:Q4_K_M")
    if config.name != "generate":
        own_attention = model.config._attn_implementation
        try:
            return ThreadClient(
                _build_continuous_engine(model, config, eos_token_ids, max_queued_tokens, memory, ledger, ranks, draft_model, compiled_dir)
            )
        except Unfit as error:
            if ranks is not None:
                raise  # no other engine shares a model
            if config.name == "continuous":
                raise ConfigError(f"{error}. Set handler.engine.name: generate") from error
            model.set_attn_implementation(own_attention)
            logger.warning("%s; it runs on transformers' generate instead, in batches that do not grow", error)
    return ThreadClient(build_generate_engine(model, config, eos_token_ids=eos_token_ids, max_queued_tokens=max_queued_tokens))


def _build_continuous_engine(
    model: PreTrainedModel,
    config: EngineConfig,
    eos_token_ids: frozenset[int],
    max_queued_tokens: int | None,
    memory: DeviceMemory | None,
    ledger: MemoryLedger | None,
    ranks: Ranks | None,
    draft_model: PreTrainedModel | None,
    compiled_dir: Path | None,
) -> Engine:
    from handlers.engine.capacity import Capacity, model_len, plan_capacity
    from handlers.engine.compatibility import adopt
    from handlers.engine.engine import Engine
    from handlers.engine.gpu.build import kv_dtype
    from handlers.engine.memory.budget import TokenBytes
    from handlers.engine.memory.device import memory_of
    from handlers.engine.memory.footprint import Footprint
    from handlers.engine.memory.settle import kv_budget, settle_memory
    from handlers.engine.parallel.linear import join
    from handlers.engine.parallel.runner import choose_parallel_runner
    from handlers.engine.runners import choose_runner
    from handlers.engine.speculation.build import add_draft_model, build_speculation
    from handlers.engine.threads import settle_num_threads
    from handlers.engine.weight_memory import plain_bytes

    as_plain = plain_bytes(model)  # before a runner takes the weights over
    if memory is None or memory.kind != model.device.type:
        memory = memory_of(model.device)
    if ranks is not None:
        join(model, ranks.collective)
    adoption = adopt(model)
    token = TokenBytes.of(adoption.kv_shapes, kv_dtype(config, model.dtype))
    if draft_model is not None:
        draft_adoption = adopt(draft_model)
        token += TokenBytes.of(draft_adoption.kv_shapes, kv_dtype(config, draft_model.dtype))
    most = plan_capacity(
        config,
        token_bytes=token.kept,
        model_len=model_len(model.config),
        budget_bytes=kv_budget(config, memory, token, Footprint(context=memory.own_bytes())),
    )
    capacity = Capacity(_FIRST_BLOCKS, most.max_model_len)
    choose = choose_runner if ranks is None else partial(choose_parallel_runner, ranks)
    runner = choose(model, adoption, capacity, config)
    if memory.kind == "cpu":
        settle_num_threads(partial(runner.run, _trial_step(runner.num_blocks)), config.num_threads)
        runner.reset()
    if config.compile:
        from handlers.engine.compiled.swap import compile_layers  # here, as it loads torch's compiler

        compile_layers(runner, compiled_dir)
    drafter = None
    if draft_model is not None:
        runner, drafter = add_draft_model(runner, draft_model, draft_adoption, capacity, config)
    settled = settle_memory(runner, memory, config, token, ledger)
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


def _trial_step(num_blocks: int) -> StepPlan:
    """Return a step of a few sequences at once, as an engine with something to do makes it."""
    return StepPlan(tuple(Chunk(f"trial {block}", 0, (0,), [block], samples=True) for block in range(min(num_blocks, 8))))
