"""Divide a device's memory: see what all else takes, give the rest to the KV cache, and prove that it is enough."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace

from handlers.config import EngineConfig
from handlers.engine.capacity import Capacity, plan_capacity
from handlers.engine.memory.budget import TokenBytes, cpu_budget, gpu_budget
from handlers.engine.memory.comparison import Finding, Grant, Verdict, apply_policy, compare, is_for
from handlers.engine.memory.device import DeviceMemory
from handlers.engine.memory.footprint import Footprint
from handlers.engine.memory.out_of_memory import is_out_of_memory
from handlers.engine.memory.warm_up import largest_step, measure, run_step
from handlers.engine.runner import ResizableRunner
from handlers.errors import ConfigError
from handlers.memory_ledger import MemoryLedger

logger = logging.getLogger(__name__)

_RETRY_SHARE = 16
"""Where blocks cannot be allocated though there seemed to be room, a sixteenth fewer are tried next."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What was measured in the end, and how many sequences may run: as configured, unless the plan was exceeded."""

    footprint: Footprint
    max_running: int


def settle_memory(
    runner: ResizableRunner, memory: DeviceMemory, config: EngineConfig, token: TokenBytes, ledger: MemoryLedger | None
) -> Settled:
    """Give ``runner``, which has a few blocks only, all that it can have: see what the largest step takes, compare, allocate, try.

    ``ledger`` is what was planned for this model, if anything was. Raises ConfigError when the largest step does not fit, when the cache
    does not hold the longest sequence that the operator set, and when the policy is to refuse what was not planned.
    """
    footprint = _warm_up(runner, memory, config)
    grant = Grant(kv_budget(config, memory, token, footprint), config.max_running)
    if ledger is not None and not is_for(ledger, memory.kind, memory.total_bytes):
        logger.info("the plan in the archive is for another device, %s: memory is not compared with it", ledger.device_name)
        ledger = None
    if ledger is not None:
        grant = _keep_to_plan(ledger, footprint, config, grant)
    config = replace(config, max_running=grant.max_running)
    _allocate(runner, memory, config, token, grant.kv_bytes)
    footprint = replace(footprint, kv_cache=runner.kv_bytes)
    if ledger is not None:
        _log(Finding("KV cache", footprint.kv_cache, ledger.total("kv_cache")), bad="below")
    return Settled(footprint, config.max_running)


def kv_budget(config: EngineConfig, memory: DeviceMemory, token: TokenBytes, footprint: Footprint) -> int:
    """Return the bytes that keys and values may take beside the fixed parts of ``footprint``, whose activations are free at the moment."""
    if memory.kind == "cpu":
        return cpu_budget(config, memory.free_bytes())
    return gpu_budget(config, footprint, token, total_bytes=memory.total_bytes, free_bytes=memory.free_bytes())


def _warm_up(runner: ResizableRunner, memory: DeviceMemory, config: EngineConfig) -> Footprint:
    """Measure the largest step, and CUDA graphs.

    On a CPU, where contexts are not what memory is short of, the step is one at the beginning of a prompt.
    """
    is_cpu = memory.kind == "cpu"
    prompt_len = min(config.prefill_chunk_tokens, runner.max_model_len) if is_cpu else runner.max_model_len
    step = largest_step(config, runner.num_blocks, prompt_len=prompt_len, decode_len=1)
    try:
        footprint = measure(runner, memory, step)
        return replace(footprint, graphs=_graph_bytes(runner, memory))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise ConfigError(
            f"the largest step does not fit into memory ({config.prefill_chunk_tokens} prompt tokens at the end of {prompt_len}, beside "
            f"{config.max_running - 1} sequences): lower handler.engine.prefill_chunk_tokens, max_running or max_model_len"
        ) from error


def _graph_bytes(runner: ResizableRunner, memory: DeviceMemory) -> int:
    """Have the runner record CUDA graphs, if it does so, over the few blocks that it has; return what they take."""
    if memory.kind == "cpu":
        return 0
    before = memory.own_bytes()
    runner.resize(runner.num_blocks, runner.max_model_len)
    memory.release_unused()
    taken = max(memory.own_bytes() - before, 0)
    if taken:
        logger.info("CUDA graphs take %.1f MB", taken / 1e6)
    return taken


def _keep_to_plan(ledger: MemoryLedger, footprint: Footprint, config: EngineConfig, wanted: Grant) -> Grant:
    findings = compare(footprint, ledger)
    for finding in findings:
        _log(finding, bad="above")
    predicted_kv_bytes = ledger.total("kv_cache").expected or wanted.kv_bytes
    grant = apply_policy(config.memory_policy, findings, predicted_kv_bytes, wanted)
    if grant != wanted:
        logger.warning(
            "the engine is smaller than configured, as more memory was taken than planned: %.1f MB of KV cache, %d sequences at once",
            grant.kv_bytes / 1e6,
            grant.max_running,
        )
    return grant


def _allocate(runner: ResizableRunner, memory: DeviceMemory, config: EngineConfig, token: TokenBytes, budget_bytes: int) -> None:
    """Allocate what ``budget_bytes`` hold, and less as long as it turns out to be too much."""
    model_len = runner.max_model_len  # what its tables are made for
    while True:
        capacity = plan_capacity(config, token_bytes=token.kept, model_len=model_len, budget_bytes=budget_bytes)
        kv_bytes = capacity.num_blocks * config.block_tokens * token.kept
        try:
            surplus = _surplus_bytes(runner, memory, config, capacity)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            surplus = max(kv_bytes // _RETRY_SHARE, 1)
        memory.release_unused()  # not where the error was caught: its traceback held the tensors of the step
        if not surplus:
            return
        logger.warning("the KV cache of %.1f MB is %.1f MB too large for what is really free", kv_bytes / 1e6, surplus / 1e6)
        budget_bytes = kv_bytes - surplus


def _surplus_bytes(runner: ResizableRunner, memory: DeviceMemory, config: EngineConfig, capacity: Capacity) -> int:
    """Allocate, and on a GPU run the fullest step over all blocks; return by how much that is beyond ``memory_fraction``."""
    step = largest_step(
        config,
        capacity.num_blocks,
        prompt_len=capacity.max_model_len,
        decode_len=max(min(capacity.num_blocks // config.max_running * config.block_tokens, capacity.max_model_len), 1),
    )
    runner.resize(capacity.num_blocks, capacity.max_model_len)
    if memory.kind == "cpu":
        return 0  # memory becomes real as it is used, and this would use all of it
    memory.reset_peak()
    run_step(runner, step)
    return max(math.ceil(memory.peak_bytes() - config.memory_fraction * memory.total_bytes), 0)


def _log(finding: Finding, *, bad: Verdict) -> None:
    logger.log(logging.WARNING if finding.verdict == bad else logging.INFO, "memory: %s", finding)
