"""The engine for models that our own runners cannot run: see what such a model can do, and build."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from transformers import GenerationConfig

from handlers.config import EngineConfig
from handlers.engine.capacity import model_len, wanted_len
from handlers.engine.engine import Engine
from handlers.engine.generate_runner import GenerateRunner, PaddingMeter
from handlers.engine.memory.device import memory_of
from handlers.engine.scheduler import Chunk, StepPlan
from handlers.engine.static_batch import StaticBatch, left_padded
from handlers.engine.threads import settle_num_threads
from handlers.errors import ConfigError
from handlers.gguf_file import GgufFile

logger = logging.getLogger(__name__)

_MAX_RUNNING = 8
"""Each may come to need a forward pass of its own in every step."""
_PROBE = {"short": (3, 4), "long": tuple(range(3, 15))}
_PROBE_STEPS = 3
_TOLERANCE_FLOAT32 = 1e-3
_TOLERANCE_HALF = 0.05
"""Relative error of the logits: what rounding may change."""


def build_generate_engine(
    model: Any,
    config: EngineConfig,
    *,
    eos_token_ids: frozenset[int] = frozenset(),
    max_running: int = _MAX_RUNNING,
    max_queued_tokens: int | None = None,
    meter: PaddingMeter | None = None,
) -> Engine:
    """Return an engine over ``model``, any that transformers' ``generate`` can run; ``max_running`` sequences run at once.

    It has no prefix cache, and takes as much KV memory as the sequences need. Raises ConfigError when the model cannot run even so.
    """
    if isinstance(model, GgufFile):
        raise ConfigError(f"{model.path.name} is left to llama.cpp, which needs continuous batching: set handler.engine.name: generate")
    max_model_len = wanted_len(config, model_len(model.config))
    max_running = min(config.max_running, max_running)
    runner = GenerateRunner(model, max_running=max_running, max_model_len=max_model_len, can_share=_adopt(model), meter=meter)
    if model.device.type == "cpu":
        settle_num_threads(partial(runner.run, _trial_step(max_running)), config.num_threads)
        runner.reset()
    return Engine(
        runner,
        max_running=max_running,
        max_waiting=config.max_waiting,
        max_queued_tokens=max_queued_tokens,
        prefill_chunk_tokens=max_running * max_model_len,
        smallest_chunk_tokens=max_running * max_model_len,  # prompts are read whole
        prefix_caching=False,
        can_preempt=not model.config.is_encoder_decoder,  # what it has generated is no prompt
        eos_token_ids=eos_token_ids,
        release_unused=memory_of(model.device).release_unused,
    )


def _trial_step(max_running: int) -> StepPlan:
    """Return a step that reads one token of each of a few sequences."""
    return StepPlan(tuple(Chunk(f"trial {row}", 0, (0,), [row], samples=True) for row in range(min(max_running, 8))))


@torch.inference_mode()
def _adopt(model: Any) -> bool:
    """Take the model's own defaults for sampling and stopping away, check that it runs, and return whether sequences can share a batch.

    Raises ConfigError unless it says, token by token, what ``generate`` makes it say: a batch relies on how transformers works inside, and
    some models keep the state of a batch in themselves.
    """
    own = model.generation_config
    model.generation_config = GenerationConfig(bos_token_id=own.bos_token_id, decoder_start_token_id=own.decoder_start_token_id)
    name = type(model).__name__
    try:
        said = _generated(model)
        together = _logits(model, _PROBE, said)
        alone = _logits(model, {"short": _PROBE["short"]}, said)["short"]
    except Exception as error:  # whatever a foreign model raises
        raise ConfigError(f"{name} cannot run on transformers' generate: {error}") from error
    if {row: logits.argmax(-1).tolist() for row, logits in together.items()} != said:
        raise ConfigError(
            f"{name} cannot be served: its batches disturb each other, or this version of transformers runs it in its own way"
        )
    difference = float((together["short"] - alone).norm() / alone.norm())
    can_share = difference <= (_TOLERANCE_FLOAT32 if model.dtype == torch.float32 else _TOLERANCE_HALF)
    if not can_share:
        logger.warning("%s says something else in company: every sequence has a forward pass of its own", name)
    return can_share


def _generated(model: Any) -> dict[str, list[int]]:
    token_ids, mask = (tensor.to(model.device) for tensor in left_padded(list(_PROBE.values())))
    output = model.generate(input_ids=token_ids, attention_mask=mask, max_new_tokens=_PROBE_STEPS, do_sample=False, pad_token_id=0)
    return dict(zip(_PROBE, output[:, -_PROBE_STEPS:].tolist(), strict=True))


def _logits(model: Any, prompts: Mapping[str, Sequence[int]], said: Mapping[str, list[int]]) -> dict[str, torch.Tensor]:
    """Return each prompt's logits ``(steps, vocab_size)`` on the way through what is ``said`` after it, with another batch in between."""
    batch, other = StaticBatch(model, prompts), StaticBatch(model, {"other": (5,)})
    steps = [batch.read_prompts()]
    other.read_prompts()
    for step in range(_PROBE_STEPS - 1):
        steps.append(batch.append({row: said[row][step] for row in prompts}))
        other.append({"other": 6})
    return {row: torch.stack([logits[row] for logits in steps]) for row in prompts}
