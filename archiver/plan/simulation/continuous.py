"""Continuous batching as our engine does it: the real scheduler and prefix cache, with a timing model for the model."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from archiver.errors import UsageError
from archiver.plan.simulation.outcome import Answer, Journal
from archiver.plan.simulation.timing import TimingModel
from archiver.plan.simulation.trace import TraceRequest
from handlers.config import EngineConfig
from handlers.engine.prefix_cache import PrefixCache
from handlers.engine.scheduler import Scheduler, StepPlan
from handlers.engine.sequence import Sequence
from handlers.requests import SamplingParams

_DEFAULTS = EngineConfig()
_PARAMS = SamplingParams()


@dataclass(frozen=True)
class ContinuousSettings:
    """Keys of ``handler.engine`` by their names, and what the memory left for them to be: ``num_blocks`` and ``max_model_len``."""

    num_blocks: int
    max_model_len: int
    max_running: int = _DEFAULTS.max_running
    max_waiting: int = _DEFAULTS.max_waiting
    block_tokens: int = _DEFAULTS.block_tokens
    prefill_chunk_tokens: int = _DEFAULTS.prefill_chunk_tokens
    prefix_caching: bool = _DEFAULTS.prefix_caching

    def __post_init__(self) -> None:
        if self.num_blocks * self.block_tokens < self.max_model_len:
            raise UsageError(
                f"{self.num_blocks} KV blocks of {self.block_tokens} tokens do not hold one sequence of {self.max_model_len}: "
                "take more memory, or a lower max_model_len"
            )


@dataclass(slots=True)
class _Live:
    """A request in the engine."""

    request: TraceRequest
    sequence: Sequence
    token_id: int
    first_token_s: float = 0.0
    last_token_s: float = 0.0


class ContinuousReplay:
    """The loop of ``handlers.engine.engine`` on a clock of its own. ``on_step`` is told each plan before it is carried out.

    A request reaches the engine ``request_overhead_s`` after its arrival, and is refused if all places are taken then. What its tokens are
    does not matter to the engine, only which prompts begin alike: each request has one token id, over and over, and each prefix another.
    """

    def __init__(
        self,
        trace: Iterable[TraceRequest],
        timing: TimingModel,
        settings: ContinuousSettings,
        on_step: Callable[[StepPlan], None] = lambda plan: None,
    ) -> None:
        self._coming = deque(enumerate(trace, 1))
        self._timing = timing
        self._settings = settings
        self._on_step = on_step
        self._cache = PrefixCache(settings.num_blocks, settings.block_tokens, keeps_unused=settings.prefix_caching)
        self._scheduler = Scheduler(self._cache, max_running=settings.max_running, prefill_chunk_tokens=settings.prefill_chunk_tokens)
        self._live: dict[str, _Live] = {}
        self._prefix_ids: dict[str, int] = {}
        self._now_s = 0.0
        self._journal = Journal()

    def run(self) -> Journal:
        """Replay the whole trace, which is in order of arrival."""
        while self._coming or self._live:
            plan = self._scheduler.schedule(self._now_s)
            if plan.chunks:
                self._step(plan)
            else:
                self._wait()
        self._journal.num_preemptions = self._scheduler.num_preemptions
        return self._journal

    def _wait(self) -> None:
        _, request = self._coming[0]
        self._now_s = request.arrival_s + self._timing.request_overhead_s
        self._admit()

    def _step(self, plan: StepPlan) -> None:
        self._on_step(plan)
        self._journal.note_steps(1, len(plan.chunks), self._cache.num_owned * self._settings.block_tokens)
        self._now_s += self._timing.step_s(*_load(plan))
        self._admit()  # before the step's ends: while it ran, their places were taken
        self._finish(plan)

    def _admit(self) -> None:
        """Take in those that have come by now."""
        while self._coming and self._coming[0][1].arrival_s + self._timing.request_overhead_s <= self._now_s:
            number, request = self._coming.popleft()
            if request.num_tokens > self._settings.max_model_len:
                self._journal.num_too_long += 1
            elif len(self._live) >= self._settings.max_running + self._settings.max_waiting:
                self._journal.num_refused += 1
            else:
                self._add(number, request)

    def _add(self, number: int, request: TraceRequest) -> None:
        sequence = Sequence(
            id=str(number),
            token_ids=self._prompt(number, request),
            params=_PARAMS,
            seed=0,
            max_len=request.num_tokens,
            end_token_ids=frozenset(),
        )
        self._live[sequence.id] = _Live(request, sequence, token_id=number)
        self._scheduler.add(sequence)

    def _prompt(self, number: int, request: TraceRequest) -> list[int]:
        own = [number] * (request.prompt_tokens - request.prefix_tokens)
        if request.prefix is None:
            return own
        prefix_id = self._prefix_ids.setdefault(request.prefix, -1 - len(self._prefix_ids))
        return [prefix_id] * request.prefix_tokens + own

    def _finish(self, plan: StepPlan) -> None:
        """Do what the engine does with a step's logits: all sequences have advanced before the first one takes its token."""
        sampling = []
        for chunk in plan.chunks:
            live = self._live[chunk.sequence_id]
            self._cache.advance(live.sequence, chunk.end)
            if chunk.samples:
                sampling.append(live)
        for live in sampling:
            self._take_token(live)

    def _take_token(self, live: _Live) -> None:
        sequence = live.sequence
        sequence.append(live.token_id)
        if sequence.num_generated == 1:
            live.first_token_s = self._now_s
        else:
            self._journal.gaps_s.append(self._now_s - live.last_token_s)
        live.last_token_s = self._now_s
        if sequence.finish_reason is not None:
            del self._live[sequence.id]
            self._scheduler.remove(sequence)
            request = live.request
            self._journal.answers.append(Answer(request.arrival_s, live.first_token_s, self._now_s, request.output_tokens))


def _load(plan: StepPlan) -> tuple[int, int, int]:
    """Return a step's decodes, tokens of prompts, and tokens of context."""
    num_decodes = num_prompt_tokens = num_context_tokens = 0
    for chunk in plan.chunks:
        num_tokens = len(chunk.token_ids)
        if num_tokens == 1:
            num_decodes += 1
        else:
            num_prompt_tokens += num_tokens
        num_context_tokens += chunk.start + num_tokens
    return num_decodes, num_prompt_tokens, num_context_tokens
