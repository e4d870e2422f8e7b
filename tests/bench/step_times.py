"""Time steps of a model from outside, engine or server: by how much longer a longer answer takes, or one to a longer prompt."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from archiver.plan.simulation.measurements import MeasuredStep, Measurements
from tests.bench.load import Run
from tests.bench.workload import Job, Lengths, Tokenizer, Workload

_REPEATS = 3
# As in a load that is mixed: sequences of equal lengths are computed together, and cheaper.
_PROMPTS = Lengths(16, 256)
_SHORT_PROMPT, _LONG_PROMPT = 16, 256
_SHORT_ANSWER, _LONG_ANSWER = 2, 66


@dataclass(frozen=True)
class StepTimer:
    """Asks for answers of known lengths. ``run`` puts jobs to whom is measured, so many at once.

    ``wait_s``: how long a request that comes alone waits for others.
    """

    run: Callable[[Sequence[Job], int], Run]
    tokenizer: Tokenizer
    wait_s: float = 0.0

    def measure(self, streams: Sequence[int], seed: str) -> Measurements:
        """Return a step of one decode, one of each number in ``streams``, and a prompt's; and what a request takes besides.

        A prompt of n tokens is taken to last as long as a decode and n - 1 tokens of a prompt.
        """
        one, *many = (self._time_decodes(rows, f"{seed}/{rows}") for rows in (1, *streams))
        short_s, long_s = (self._alone_s(num_tokens, seed) - self.wait_s for num_tokens in (_SHORT_PROMPT, _LONG_PROMPT))
        prompt_token_s = (long_s - short_s) / (_LONG_PROMPT - _SHORT_PROMPT)
        overhead_s = max(short_s - _SHORT_ANSWER * one.seconds - (_SHORT_PROMPT - 1) * prompt_token_s, 0.0)
        prompt_s = long_s - overhead_s - (_SHORT_ANSWER - 1) * one.seconds
        return Measurements((one, *many, MeasuredStep(0, _LONG_PROMPT, _LONG_PROMPT, prompt_s)), overhead_s)

    def _time_decodes(self, rows: int, seed: str) -> MeasuredStep:
        """Return the mean of the steps between two answers to the same prompts; where there is a prefix cache, these lie in it."""
        short, long = (
            Workload(_PROMPTS, Lengths(tokens, tokens)).jobs(rows, seed, self.tokenizer) for tokens in (_SHORT_ANSWER, _LONG_ANSWER)
        )
        self.run(short, rows)
        short_s, long_s = (statistics.median(each for _ in range(_REPEATS) for each in self._latencies_s(jobs)) for jobs in (short, long))
        num_context_tokens = sum(len(self.tokenizer.encode(job.prompt)) for job in short) + rows * (_SHORT_ANSWER + _LONG_ANSWER) // 2
        return MeasuredStep(rows, 0, num_context_tokens, (long_s - short_s) / (_LONG_ANSWER - _SHORT_ANSWER))

    def _alone_s(self, prompt_tokens: int, seed: str) -> float:
        """Return how long a short answer to one fresh prompt takes."""
        workload = Workload(Lengths(prompt_tokens, prompt_tokens), Lengths(_SHORT_ANSWER, _SHORT_ANSWER))
        jobs = workload.jobs(2 * _REPEATS, f"{seed}/{prompt_tokens}", self.tokenizer)
        return statistics.median(each for job in jobs for each in self._latencies_s([job]))

    def _latencies_s(self, jobs: Sequence[Job]) -> Iterator[float]:
        """Yield how long each job takes when all start together."""
        for answer in self.run(jobs, len(jobs)).answers:
            if answer.error:
                raise RuntimeError(f"a request that was to be timed failed: {answer.error}")
            yield answer.ended_s - answer.started_s
