"""The ``handler:`` section of model-config.yaml as frozen dataclasses: every key the operator may set, its default and its unit."""

from __future__ import annotations

import difflib
import json
import threading
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from handlers.errors import ConfigError

_ROOM_FOR_REFUSALS = 64
_SCALABLE_TO = 8
"""Replicas that a running server can have work for, whatever it began with: the frontend's ``batchSize`` is settled with the load."""
COMPILED_DIR = "compiled"
"""Where an archive keeps the decode step that was compiled for it, relative to the model directory."""
_ROWS_CPU, _ROWS_GPU = 16, 64
_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@dataclass(frozen=True, config=_STRICT)
class ModelConfig:
    """Where the checkpoint lies (relative to the model directory) and how it is loaded."""

    path: str = "model"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    trust_remote_code: bool = False
    allow_pickle: bool = False


@dataclass(frozen=True, config=_STRICT)
class QuantizationConfig:
    """``recipe``: how weights that come as plain numbers are quantized while they are loaded. One that is quantized already needs none."""

    recipe: Literal["none", "int8", "nf4", "fp8", "torchao-int8", "torchao-int4"] = "none"


@dataclass(frozen=True, config=_STRICT)
class TokenizerConfig:
    """``chat_template``: a Jinja file relative to the model directory that replaces the checkpoint's own."""

    chat_template: str | None = None


@dataclass(frozen=True, config=_STRICT)
class SpeculationConfig:
    """Guess several tokens ahead and check them in one step; what is generated stays the same.

    ``method`` "ngram" guesses what followed the same tokens earlier in the sequence, "draft" what a smaller model says: ``draft_model`` is
    its checkpoint, relative to the model directory, with the same vocabulary. At most ``max_draft_tokens`` a sequence and step, and fewer
    where they turn out wrong. ``max_rows``: tokens of a step after which logits are wanted, guesses included, beyond which nothing is
    guessed, as the step would take longer for it; None is 16 on a CPU and 64 on a GPU.
    """

    method: Literal["none", "ngram", "draft"] = "none"
    draft_model: str = "draft"
    max_draft_tokens: int = Field(default=8, ge=1, le=64)
    max_rows: int | None = Field(default=None, ge=2)

    def most_rows(self, device: str) -> int:
        """Return ``max_rows``, or its default on a device ("cpu", "cuda"): about where reading the weights no longer bounds a step."""
        return self.max_rows or (_ROWS_CPU if device == "cpu" else _ROWS_GPU)


@dataclass(frozen=True, config=_STRICT)
class EngineConfig:
    """What runs the model, and its sizes: lengths in tokens, queues in requests, memory in GiB.

    ``name`` "continuous" is our own engine, "generate" runs transformers' ``generate`` over static batches, "llamacpp" (for GGUF files) is
    our engine over llama.cpp's kernels, "auto" the fastest that can run the model.
    ``process``: in a child process of the worker, of which there are ``replicas``; each holds the
    weights, and one that finishes no step for ``step_timeout_s`` while it has work is restarted. ``max_model_len`` None is the model's own.
    ``kv_memory_gib`` (of each process) None is, on a CPU, the smaller of 4 GiB and a quarter of free memory. ``num_threads`` (of each
    process) None is, on a CPU, the faster of one and all, by trial at the start. ``memory_fraction`` is the share of an accelerator's total
    memory that weights and KV cache may take together; replicas on one GPU divide it. ``memory_policy``: what follows when weights,
    activations or libraries take more memory than the plan in the archive says: "warn" in the log, "shrink" the KV cache and
    ``max_running``, or "refuse" to load.
    ``prefix_caching`` keeps the blocks of finished sequences for prompts that begin alike.
    ``native_kernels``: compile small C kernels where there is a compiler. ``cuda_graphs``: capture the steps of running sequences on GPUs.
    ``kv_dtype`` "fp8" keeps keys and values in 8 bits (GPUs). ``tensor_parallel``: how many processes share the weights of one replica,
    each with a GPU of its own or a part of the CPU. ``compile``: have torch.compile make a faster decode step in the background, or take
    the one in the archive.
    """

    name: Literal["auto", "continuous", "generate", "llamacpp"] = "auto"
    process: bool = True
    replicas: int = Field(default=1, ge=1, le=64)
    step_timeout_s: float = Field(default=120.0, gt=0)
    max_model_len: int | None = Field(default=None, ge=1)
    max_running: int = Field(default=64, ge=1)
    max_waiting: int = Field(default=192, ge=0)
    memory_fraction: float = Field(default=0.85, gt=0, le=1)
    memory_policy: Literal["warn", "shrink", "refuse"] = "warn"
    kv_memory_gib: float | None = Field(default=None, gt=0)
    num_threads: int | None = Field(default=None, ge=1)
    block_tokens: int = Field(default=16, ge=1)
    prefill_chunk_tokens: int = Field(default=512, ge=1)
    prefix_caching: bool = True
    native_kernels: bool = True
    cuda_graphs: bool = True
    kv_dtype: Literal["auto", "fp8"] = "auto"
    tensor_parallel: int = Field(default=1, ge=1)
    compile: bool = False
    speculation: SpeculationConfig = SpeculationConfig()

    @property
    def frontend_places(self) -> int:
        """The frontend's ``batchSize``: all that may run or wait, once it is scaled up too, and some more, to be refused at once.

        Beyond its ``batchSize`` the frontend keeps requests to itself: none of them gets a 429, and no model list or bad request gets past.
        """
        return max(self.replicas, _SCALABLE_TO) * (self.max_running + self.max_waiting) + _ROOM_FOR_REFUSALS


@dataclass(frozen=True, config=_STRICT)
class GenerationConfig:
    """``max_new_tokens``: the limit for a request that names none, or what its prompt leaves of the window if that is less."""

    max_new_tokens: int = Field(default=256, ge=1)


@dataclass(frozen=True, config=_STRICT)
class StreamConfig:
    """``flush_ms``: how long text may wait to be sent together with the text that follows it.

    ``hold_ms``: how long an answer that is not streamed may take to come as one complete response, which has a status that fits it however
    late it fails, and the header ``Server-Timing``. Only after so long is it noticed when its client leaves. 0: never.
    """

    flush_ms: int = Field(default=10, ge=0)
    hold_ms: int = Field(default=2000, ge=0)


@dataclass(frozen=True, config=_STRICT)
class LimitsConfig:
    """Limits beyond what the model itself can take.

    ``max_prompt_tokens`` of one request; ``max_queued_tokens`` of the prompts of all that wait (beyond it: 429); ``max_queue_s`` is how
    long a request may wait that does not say so itself.
    """

    max_prompt_tokens: int | None = Field(default=None, ge=1)
    max_queued_tokens: int | None = Field(default=None, ge=1)
    max_queue_s: float | None = Field(default=None, gt=0)


@dataclass(frozen=True, config=_STRICT)
class HandlerConfig:
    """The whole section. ``integrity``: ``verify`` hashes when the archive has them, ``required`` refuses one that has none, ``off``."""

    model: ModelConfig = ModelConfig()
    quantization: QuantizationConfig = QuantizationConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    engine: EngineConfig = EngineConfig()
    generation: GenerationConfig = GenerationConfig()
    stream: StreamConfig = StreamConfig()
    limits: LimitsConfig = LimitsConfig()
    integrity: Literal["verify", "required", "off"] = "verify"


def parse_handler_config(model_config: Mapping[str, Any] | None) -> HandlerConfig:
    """Read the ``handler`` section of a whole model-config mapping; a missing section means the defaults.

    Raises ConfigError that names the key, and for an unknown key the nearest valid one.
    """
    section = (model_config or {}).get("handler") or {}
    try:
        # As JSON, because strict validation takes a mapping for a dataclass only there: YAML's 3 and "3" stay different things.
        return TypeAdapter(HandlerConfig).validate_json(json.dumps(section, default=str))
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(dict(problem)) for problem in error.errors())) from None


def parse_engine_config(settings: Mapping[str, Any]) -> EngineConfig:
    """Read what stands under ``handler.engine`` alone; see ``parse_handler_config``."""
    return parse_handler_config({"handler": {"engine": dict(settings)}}).engine


def _explain(problem: dict[str, Any]) -> str:
    path = [str(part) for part in problem["loc"]]
    key = ".".join(["handler", *path])
    if problem["type"] not in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"{key}: {problem['msg']}, got {problem['input']!r}"
    known = _keys_beside(path)
    nearest = difflib.get_close_matches(path[-1], known, n=1)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"valid keys: {', '.join(known)}"
    return f"{key}: unknown key; {hint}"


def _keys_beside(path: list[str]) -> list[str]:
    owner: Any = HandlerConfig()
    for part in path[:-1]:
        owner = getattr(owner, part)
    return list(owner.__dataclass_fields__)


def check_seconds(timeout_s: float) -> float:
    """Return ``timeout_s``; raise ConfigError for what is no number of seconds (commands take any JSON value)."""
    if not isinstance(timeout_s, int | float) or not 0 <= timeout_s <= threading.TIMEOUT_MAX:
        raise ConfigError(f"timeout_s must be a number of seconds from 0 up, got {timeout_s!r}")
    return timeout_s
