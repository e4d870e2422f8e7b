"""Static batching as TorchServe does it: its frontend forms batches, and each runs until its longest answer is written."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from archiver.errors import UsageError
from archiver.plan.simulation.outcome import Answer, Journal
from archiver.plan.simulation.timing import TimingModel
from archiver.plan.simulation.trace import TraceRequest


@dataclass(frozen=True)
class StaticSettings:
    """TorchServe's ``batchSize``, ``maxBatchDelay`` (here in seconds), workers and ``job_queue_size`` (as our config.properties has it).

    Workers do not slow each other down: each has a device of its own. ``max_model_len`` None takes requests of any length.
    """

    batch_size: int
    max_batch_delay_s: float
    num_workers: int = 1
    job_queue_size: int = 1000
    max_model_len: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("max_batch_delay_s", 0), ("num_workers", 1), ("job_queue_size", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} must be {least} or more, got {getattr(self, name)}")


class StaticReplay:
    """TorchServe 0.12's ``Model.pollBatch`` and a worker over ``generate``, on a clock of its own.

    One worker at a time waits for a batch: it takes the first request, and from then on the others that wait or come within the delay, up
    to the batch size. The delay begins when it takes the first, not when that came. After the first further one it looks whether the delay
    is over, so that with a delay of 0 no batch has more than two.
    """

    def __init__(self, trace: Iterable[TraceRequest], timing: TimingModel, settings: StaticSettings) -> None:
        self._coming = deque(trace)
        self._timing = timing
        self._settings = settings
        self._batch_size = settings.batch_size if settings.max_batch_delay_s else min(settings.batch_size, 2)
        self._queue: deque[TraceRequest] = deque()
        self._idle_from_s = [0.0] * settings.num_workers  # a heap
        self._now_s = 0.0  # when the last batch was handed over
        self._journal = Journal()

    def run(self) -> Journal:
        """Replay the whole trace, which is in order of arrival."""
        while self._queue or self._coming:
            self._now_s = max(self._now_s, heapq.heappop(self._idle_from_s))
            self._arrive(self._now_s)
            batch = self._form_batch()
            heapq.heappush(self._idle_from_s, self._run_batch(batch) if batch else self._now_s)
        return self._journal

    def _form_batch(self) -> list[TraceRequest]:
        """Take requests until the batch is full or the delay over; the clock stands then."""
        if not self._queue and not self._await_one():
            return []
        deadline_s = self._now_s + self._settings.max_batch_delay_s
        batch = [self._queue.popleft()]
        while len(batch) < self._batch_size:
            if not self._queue and not self._await_one(deadline_s):
                self._now_s = deadline_s
                break
            batch.append(self._queue.popleft())
        return batch

    def _await_one(self, until_s: float = float("inf")) -> bool:
        """Let time pass until a request has come; False if none does."""
        while not self._queue and self._coming and self._reach_s(self._coming[0]) <= until_s:
            self._now_s = max(self._now_s, self._reach_s(self._coming[0]))
            self._arrive(self._now_s)
        return bool(self._queue)

    def _arrive(self, until_s: float) -> None:
        """Queue those that come until then, or refuse them."""
        while self._coming and self._reach_s(self._coming[0]) <= until_s:
            request = self._coming.popleft()
            if self._settings.max_model_len is not None and request.num_tokens > self._settings.max_model_len:
                self._journal.num_too_long += 1
            elif len(self._queue) >= self._settings.job_queue_size:
                self._journal.num_refused += 1
            else:
                self._queue.append(request)

    def _reach_s(self, request: TraceRequest) -> float:
        return request.arrival_s + self._timing.request_overhead_s

    def _run_batch(self, batch: Sequence[TraceRequest]) -> float:
        """Return when it has ended. A batch of one is streamed; the answers of a larger one come whole, and all at its end."""
        num_rows, num_steps = len(batch), max(request.output_tokens for request in batch)
        longest_prompt = max(request.prompt_tokens for request in batch)
        # Prompts are padded to the longest, and rows that have ended stay in the batch.
        read_s = self._now_s + self._timing.step_s(0, num_rows * longest_prompt, num_rows * longest_prompt)
        step_s = self._timing.step_s(num_rows, 0, num_rows * (longest_prompt + num_steps / 2))
        end_s = read_s + (num_steps - 1) * step_s
        num_tokens = sum(request.output_tokens for request in batch)
        self._journal.note_steps(num_steps, num_tokens, num_rows * (longest_prompt + num_steps))
        if num_rows == 1:
            self._journal.gaps_s.extend([step_s] * (num_steps - 1))
        first_token_s = read_s if num_rows == 1 else end_s
        self._journal.answers += [Answer(request.arrival_s, first_token_s, end_s, request.output_tokens) for request in batch]
        return end_s
