"""Time steps of a model from outside, engine or server: by how much longer a longer answer takes, or one to a longer prompt."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from archiver.plan.simulation.measurements import MeasuredStep, Measurements
from tests.bench.load import Run
from tests.bench.workload import Job, Lengths, Tokenizer, Workload

_REPEATS = 3
_SHORT_PROMPT, _LONG_PROMPT = 16, 256
# Between the first two the sequences are short, between the last two they are long.
_ANSWERS = (2, 50, 146)


@dataclass(frozen=True)
class StepTimer:
    """Asks for answers of known lengths. ``run`` puts jobs to whom is measured, so many at once; all fit into one step.

    ``wait_s``: how long a request that comes alone waits for others.
    """

    run: Callable[[Sequence[Job], int], Run]
    tokenizer: Tokenizer
    wait_s: float = 0.0

    def measure(self, streams: int, seed: str) -> Measurements:
        """Return four steps (one decode, as many as ``streams``, those with longer contexts, a prompt), and what a request takes besides.

        A prompt of n tokens is taken to last as long as a decode and n - 1 tokens of a prompt.
        """
        one, many, longer = self._decodes(1, 0, seed), self._decodes(streams, 0, seed), self._decodes(streams, 1, seed)
        least = _ANSWERS[0]
        short_s, long_s = (self._latency_s(1, tokens, least, seed) - self.wait_s for tokens in (_SHORT_PROMPT, _LONG_PROMPT))
        prompt_token_s = (long_s - short_s) / (_LONG_PROMPT - _SHORT_PROMPT)
        overhead_s = max(short_s - least * one.seconds - (_SHORT_PROMPT - 1) * prompt_token_s, 0.0)
        prompt = MeasuredStep(0, _LONG_PROMPT, _LONG_PROMPT, long_s - overhead_s - (least - 1) * one.seconds)
        return Measurements((one, many, longer, prompt), overhead_s)

    def _decodes(self, streams: int, part: int, seed: str) -> MeasuredStep:
        """Return the mean of the steps between two answers of different lengths."""
        shorter, longer = _ANSWERS[part : part + 2]
        shorter_s, longer_s = (self._latency_s(streams, _SHORT_PROMPT, tokens, seed) for tokens in (shorter, longer))
        context = _SHORT_PROMPT + (shorter + longer) // 2
        return MeasuredStep(streams, 0, streams * context, (longer_s - shorter_s) / (longer - shorter))

    def _latency_s(self, streams: int, prompt_tokens: int, output_tokens: int, seed: str) -> float:
        """Return the median over several turns, in each of which all start together."""
        workload = Workload(Lengths(prompt_tokens, prompt_tokens), Lengths(output_tokens, output_tokens))
        latencies_s = []
        for repeat in range(_REPEATS):
            jobs = workload.jobs(streams, f"{seed}/{streams}/{prompt_tokens}/{output_tokens}/{repeat}", self.tokenizer)
            answers = self.run(jobs, streams).answers
            if failed := next((answer.error for answer in answers if answer.error), None):
                raise RuntimeError(f"a request that was to be timed failed: {failed}")
            latencies_s += [answer.ended_s - answer.started_s for answer in answers]
        return statistics.median(latencies_s)
