"""What becomes of samples: tokens of their sequence, and an event that tells of them."""

from __future__ import annotations

from collections.abc import Sequence as Row

from handlers.engine.client import Event, Start
from handlers.engine.sampler import Sample
from handlers.engine.sequence import Sequence


def take_samples(sequence: Sequence, position: int, samples: Row[Sample]) -> Event:
    """Have ``sequence`` take what was sampled for ``position`` and those after it, as far as it goes on; return what to tell of it."""
    taken = []
    for place, sample in enumerate(samples, position):
        sequence.settle(place, sample.token_id)
        taken.append(sample)
        if sequence.finish_reason is not None:
            break
    return Event(
        sequence.id,
        tuple(sample.token_id for sample in taken),
        sequence.finish_reason,
        num_stop_tokens=int(sequence.finish_reason == "stop"),
        logprobs=tuple(sample.logprob for sample in taken if sample.logprob),
        start=_start(sequence) if position == sequence.num_prompt_tokens else None,
    )


def _start(sequence: Sequence) -> Start:
    assert sequence.started_s is not None
    return Start(sequence.started_s - sequence.arrived_s, sequence.num_cached_tokens)
