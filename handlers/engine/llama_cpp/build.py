"""From a GGUF file to an engine over llama.cpp."""

from __future__ import annotations

import logging

from handlers.config import EngineConfig
from handlers.engine.capacity import plan_capacity
from handlers.engine.engine import Engine
from handlers.engine.llama_cpp.library import MAX_SLOTS, ContextSizes, LlamaModel
from handlers.engine.llama_cpp.runner import LlamaCppRunner
from handlers.engine.memory.budget import cpu_budget
from handlers.engine.memory.device import HostMemory
from handlers.errors import ConfigError
from handlers.gguf_file import GgufFile
from handlers.host_limits import num_cores

logger = logging.getLogger(__name__)

_FLOAT16_BYTES = 2
"""Of a key's or value's element in llama.cpp's memory."""
_CELL_MULTIPLE = 256
"""llama.cpp pads its memory to so many tokens."""


def build_llama_cpp_engine(
    file: GgufFile, config: EngineConfig, *, eos_token_ids: frozenset[int], max_queued_tokens: int | None = None
) -> Engine:
    """Load ``file`` into llama.cpp and return an engine over it. Raises ConfigError for what it cannot load, or does not fit."""
    _check_vocabulary(file)
    token_bytes = _token_bytes(file)
    capacity = plan_capacity(
        config,
        token_bytes=token_bytes,
        model_len=int(file.number("context_length")),
        budget_bytes=cpu_budget(config, HostMemory().free_bytes()),
    )
    model = LlamaModel(file.path)
    max_running = min(config.max_running, MAX_SLOTS)
    num_slots = min(2 * max_running, MAX_SLOTS)  # as many again for what has ended and may be shared
    num_tokens = capacity.num_blocks * config.block_tokens
    sizes = ContextSizes(
        num_tokens=-(-num_tokens // _CELL_MULTIPLE) * _CELL_MULTIPLE,
        max_rows=config.prefill_chunk_tokens + max_running,
        num_slots=num_slots,
        num_threads=config.num_threads or _num_cores(),
    )
    runner = LlamaCppRunner(
        model.open_context(sizes),
        num_blocks=capacity.num_blocks,
        block_tokens=config.block_tokens,
        max_model_len=capacity.max_model_len,
        vocab_size=model.vocab_size,
        weight_bytes=model.weight_bytes,
        kv_bytes=sizes.num_tokens * token_bytes,
        num_slots=num_slots,
    )
    logger.info(
        "engine ready: llama.cpp with %d threads, %.1f MB of weights, %d blocks of %d tokens, sequences of up to %d",
        sizes.num_threads, runner.weight_bytes / 1e6, runner.num_blocks, runner.block_tokens, runner.max_model_len,
    )  # fmt: skip
    return Engine(
        runner,
        max_running=max_running,
        max_waiting=config.max_waiting,
        max_queued_tokens=max_queued_tokens,
        prefill_chunk_tokens=config.prefill_chunk_tokens,
        prefix_caching=config.prefix_caching,
        eos_token_ids=eos_token_ids,
    )


def _check_vocabulary(file: GgufFile) -> None:
    """Refuse what llama.cpp would end the process over."""
    tokens = file.metadata["tokenizer.ggml.tokens"]
    if len(set(tokens)) < len(tokens):
        raise ConfigError(f"{file.path.name} has two tokens of the same name in its vocabulary; convert it again")


def _token_bytes(file: GgufFile) -> int:
    """Return what all layers keep of one token; the heads may be given layer by layer."""
    num_layers, heads = int(file.number("block_count")), file.setting("attention.head_count")
    kv_heads = file.setting("attention.head_count_kv", heads)
    num_kv_heads = sum(kv_heads) if isinstance(kv_heads, tuple) else num_layers * int(kv_heads)
    default = file.number("embedding_length") // (max(heads) if isinstance(heads, tuple) else heads)
    widths = file.number("attention.key_length", default) + file.number("attention.value_length", default)
    return int(num_kv_heads * widths) * _FLOAT16_BYTES


def _num_cores() -> int:
    """Return the physical cores that this process may use: a second thread of a core slows llama.cpp down."""
    import psutil

    return min(num_cores(), psutil.cpu_count(logical=False) or num_cores())
