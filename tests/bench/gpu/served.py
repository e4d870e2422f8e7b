"""The engine under clients that come and go, polled in this process."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from handlers.engine.client import EngineClient
from tests.bench.figures import Figures
from tests.bench.gpu.rows import Cell
from tests.bench.gpu.setup import Setup
from tests.bench.in_process import InProcessEngine
from tests.bench.load import Run
from tests.bench.workload import Job


class RequestsFailed(Exception):
    """Not all requests were answered."""


class Numbers:
    """A tokenizer whose text is its token ids."""

    def encode(self, text: str) -> list[int]:
        """Return the numbers."""
        return [int(word) for word in text.split()]

    def decode(self, token_ids: list[int]) -> str:
        """Return them with spaces between."""
        return " ".join(map(str, token_ids))


@dataclass(frozen=True)
class Served:
    """As many clients as streams, each with its next request as soon as the last is answered; what does not fit at once waits."""

    setup: Setup

    name = "served"

    @property
    def cells(self) -> Sequence[Cell]:
        """All."""
        return self.setup.cells

    def least_s(self, cell: Cell) -> float:
        """Return the time in which all prompts are read, and the answers generated with all streams in each step."""
        roofline, rounds, tokens = self.setup.roofline, self.setup.rounds, self.setup.answer_tokens
        prefill_s = roofline.prefill_s(rounds * cell.streams, cell.context)
        return prefill_s + rounds * tokens * roofline.decode_s(cell.streams, cell.context + tokens / 2)

    def num_requests(self, cell: Cell) -> int:
        """Return how many a cell takes."""
        return self.setup.rounds * cell.streams

    def figures(self, cell: Cell, run: Run) -> Mapping[str, float]:
        """Summarise a run; raise RequestsFailed unless all were answered."""
        errors = [answer.error for answer in run.answers if answer.error]
        if errors:
            raise RequestsFailed(f"{len(errors)} of {len(run.answers)} requests failed: {errors[0]}")
        came = Figures.of(self.name, run)
        bound = came.num_output_tokens / self.least_s(cell)
        return {
            "tokens_per_s": came.tokens_per_s,
            "first_text_p50_ms": came.first_text.p50_ms,
            "first_text_p99_ms": came.first_text.p99_ms,
            "gap_p50_ms": came.gap.p50_ms,
            "gap_p99_ms": came.gap.p99_ms,
            "bound_tokens_per_s": bound,
            "share_of_bound": came.tokens_per_s / bound,
        }


@dataclass(frozen=True)
class ServedInProcess(Served):
    """Clients of the engine in this process: its events are polled, nothing is tokenized."""

    client: EngineClient

    who = "in process"

    def measure(self, cell: Cell) -> Mapping[str, float]:
        """See Part."""
        jobs = [self._job(cell.context) for _ in range(self.num_requests(cell))]
        return self.figures(cell, InProcessEngine(self.client, Numbers()).run(jobs, cell.streams))

    def _job(self, num_tokens: int) -> Job:
        token_ids = random.choices(range(self.setup.shape.vocabulary), k=num_tokens)
        return Job(Numbers().decode(token_ids), self.setup.answer_tokens)
