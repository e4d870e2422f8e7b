"""The engine without a server: what is left of its speed behind TorchServe is the server's overhead."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from handlers.config import EngineConfig, ModelConfig
from handlers.engine.build import build_engine_client
from handlers.engine.client import EngineClient, Event
from handlers.requests import SamplingParams
from handlers.weights.checkpoint import Checkpoint, eos_token_ids
from tests.bench.load import Answer, Run
from tests.bench.workload import Job, Tokenizer


@dataclass
class _Live:
    started_s: float
    num_tokens: int = 0
    times_s: list[float] = field(default_factory=list)


class InProcessEngine:
    """Runs jobs through an engine client with as many sequences at once as there would be clients. Prompts are encoded beforehand."""

    def __init__(self, engine: EngineClient, tokenizer: Tokenizer) -> None:
        self._engine = engine
        self._tokenizer = tokenizer

    @classmethod
    def of_checkpoint(cls, checkpoint: Path, tokenizer: Tokenizer) -> InProcessEngine:
        """Start an engine over a checkpoint, with the default configuration."""
        model = Checkpoint.open(checkpoint, ModelConfig()).load()
        return cls(build_engine_client(model, EngineConfig(), eos_token_ids=eos_token_ids(model)), tokenizer)

    def run(self, jobs: Sequence[Job], streams: int) -> Run:
        """Work through ``jobs``; a sequence that ends makes room for the next one."""
        waiting = enumerate([(job, self._tokenizer.encode(job.prompt)) for job in jobs])
        live: dict[str, _Live] = {}
        answers: list[Answer] = []
        for _ in range(streams):
            self._add_next(waiting, live)
        while live:
            for event in self._engine.poll(1.0):
                if _take(event, live[event.sequence_id]):
                    answers.append(_answer(event, live.pop(event.sequence_id)))
                    self._add_next(waiting, live)
        return Run(streams, tuple(answers), client_cpu_s=0.0)

    def close(self) -> None:
        """Stop the engine."""
        self._engine.close()

    def _add_next(self, waiting: Iterator[tuple[int, tuple[Job, list[int]]]], live: dict[str, _Live]) -> None:
        for number, (job, token_ids) in waiting:
            params = SamplingParams(max_tokens=job.num_output_tokens, temperature=0.0, ignore_eos=True)
            live[str(number)] = _Live(time.perf_counter())
            self._engine.add(str(number), token_ids, params)
            return


def _take(event: Event, sequence: _Live) -> bool:
    """Note what is new; return whether that was the end."""
    if event.token_ids:
        sequence.times_s.append(time.perf_counter())
        sequence.num_tokens += len(event.token_ids)
    return event.finish_reason is not None


def _answer(event: Event, sequence: _Live) -> Answer:
    return Answer(sequence.started_s, time.perf_counter(), tuple(sequence.times_s), sequence.num_tokens, event.error)
