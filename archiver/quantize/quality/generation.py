"""Let a model write with the engine that serves it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from archiver.errors import ArchiverError
from handlers.config import EngineConfig
from handlers.errors import ConfigError
from handlers.requests import SamplingParams

if TYPE_CHECKING:
    from handlers.engine.client import EngineClient

_POLL_S = 1.0


@contextmanager
def running_engine(model: Any) -> Iterator[EngineClient]:
    """Yield an engine in this process, to which ``model`` belongs from now on; raises ArchiverError if none can run it."""
    import torch

    from handlers.engine.build import build_engine_client
    from handlers.weights.checkpoint import eos_token_ids

    num_threads = torch.get_num_threads()  # which the engine sets to what suits it
    try:
        engine = build_engine_client(model, EngineConfig(), eos_token_ids=eos_token_ids(model))
    except ConfigError as error:
        raise ArchiverError(f"the engine cannot run this model: {error}") from error
    try:
        yield engine
    finally:
        engine.close()
        torch.set_num_threads(num_threads)


def generate(engine: EngineClient, prompts: Sequence[Sequence[int]], params: Sequence[SamplingParams]) -> list[list[int]]:
    """Return what follows each prompt, all of them in one batch; the token that ends a text belongs to it.

    A sequence that fails, as those of a model with broken logits do, ends where it fails.
    """
    for index, (prompt, sampling) in enumerate(zip(prompts, params, strict=True)):
        engine.add(str(index), prompt, sampling)
    texts: list[list[int]] = [[] for _ in prompts]
    num_live = len(prompts)
    while num_live:
        for event in engine.poll(_POLL_S):
            texts[int(event.sequence_id)] += event.token_ids
            num_live -= event.finish_reason is not None
    return texts
