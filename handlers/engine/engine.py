"""The loop's body: schedule, run, draw, and tell what came of it."""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections.abc import Callable, Iterable

from handlers.engine.admission import EngineLimits
from handlers.engine.allowance import Allowance
from handlers.engine.client import EngineStats, Event
from handlers.engine.logits import looks_back
from handlers.engine.memory.footprint import Footprint
from handlers.engine.memory.out_of_memory import is_out_of_memory
from handlers.engine.outcome import take_samples
from handlers.engine.pipeline import Computed, Pipeline
from handlers.engine.prefix_cache import PrefixCache
from handlers.engine.runner import Runner
from handlers.engine.scheduler import Scheduler, StepPlan
from handlers.engine.sequence import Sequence
from handlers.engine.speculation.speculation import Speculation
from handlers.requests import FinishReason, SamplingParams

logger = logging.getLogger(__name__)

INVALID_LOGITS = "the model returned no valid probabilities for this request"
PROMPT_FAILED = "the engine failed while it read this prompt"
OUT_OF_MEMORY = "the engine has too little memory for this request, even alone; send a shorter one, or try again later"
CRASHED = "the engine failed while it worked on this request; it has been restarted, try again"


class Engine:
    """Continuous batching over one runner. Single-threaded, except for ``limits`` and ``new_sequence``, which any thread may use.

    Up to ``max_running`` sequences run at once. ``max_waiting`` and ``max_queued_tokens`` are for those who add: see EngineLimits.
    ``smallest_chunk_tokens`` (None: a block's) of a prompt are read at once even where memory is short. ``can_preempt``: whether the runner
    can take up again what has generated something. A PipelinedRunner computes one step while the next is prepared, unless that has to know
    the tokens, for ``speculation`` or a penalty. ``footprint`` is what was measured of it at load; ``release_unused`` gives memory that
    nobody uses back to the device.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        max_running: int,
        max_waiting: int = 192,
        max_queued_tokens: int | None = None,
        prefill_chunk_tokens: int = 512,
        smallest_chunk_tokens: int | None = None,
        prefix_caching: bool = True,
        can_preempt: bool = True,
        eos_token_ids: frozenset[int] = frozenset(),
        speculation: Speculation | None = None,
        footprint: Footprint | None = None,
        release_unused: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if runner.max_model_len > runner.num_blocks * runner.block_tokens:
            raise ValueError(f"{runner.num_blocks} blocks of {runner.block_tokens} tokens do not hold {runner.max_model_len}")
        self.limits = EngineLimits(runner.max_model_len, runner.vocab_size, max_running, max_waiting, max_queued_tokens)
        self._runner = runner
        self._pipeline = Pipeline(runner)
        self._speculation = speculation
        self._eos_token_ids = eos_token_ids
        self._clock = clock
        self._sequences: dict[str, Sequence] = {}  # every live one
        self._cache = PrefixCache(runner.num_blocks, runner.block_tokens, keeps_unused=prefix_caching)
        self._scheduler = Scheduler(self._cache, max_running=max_running, prefill_chunk_tokens=prefill_chunk_tokens)
        self._allowance = Allowance(
            max_running=max_running,
            prompt_tokens=prefill_chunk_tokens,
            smallest_chunk_tokens=smallest_chunk_tokens or runner.block_tokens,
        )
        self._can_preempt = can_preempt
        self._footprint = footprint or Footprint(weights=runner.weight_bytes, kv_cache=runner.kv_bytes)
        self._release_unused = release_unused
        self._plan = StepPlan(())  # of the step that is being launched
        self._events: list[Event] = []  # what step and recover have to tell
        self._num_out_of_memory = 0

    @property
    def has_work(self) -> bool:
        """Whether any sequence is live."""
        return bool(self._sequences)

    @property
    def next_deadline_s(self) -> float:
        """When the next waiting sequence expires, on the engine's clock; infinity when none does."""
        return self._scheduler.next_deadline_s()

    def new_sequence(
        self,
        sequence_id: str,
        prompt_token_ids: Iterable[int],
        params: SamplingParams,
        *,
        priority: int = 0,
        max_queue_s: float | None = None,
    ) -> Sequence:
        """Check a request and make a sequence of it, with a seed of its own unless one was given.

        ``max_tokens`` may reach past the window: the sequence then ends with "length" where the window ends. Raises InvalidRequest.
        """
        token_ids = list(prompt_token_ids)
        self.limits.check(token_ids, params)
        assert params.max_tokens is not None
        now_s = self._clock()
        return Sequence(
            id=sequence_id,
            token_ids=token_ids,
            params=params,
            seed=secrets.randbits(64) if params.seed is None else params.seed,
            max_len=min(len(token_ids) + params.max_tokens, self.limits.max_model_len),
            end_token_ids=frozenset(params.stop_token_ids) | (frozenset() if params.ignore_eos else self._eos_token_ids),
            priority=priority,
            arrived_s=now_s,
            deadline_s=math.inf if max_queue_s is None else now_s + max_queue_s,
        )

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence made by ``new_sequence``."""
        self._sequences[sequence.id] = sequence
        self._scheduler.add(sequence)

    def cancel(self, sequence_id: str) -> Event | None:
        """End a sequence now, and free its blocks; None if it is not live."""
        sequence = self._sequences.get(sequence_id)
        if sequence is None:
            return None
        self._forget(sequence)
        return Event(sequence_id, finish_reason="cancelled")

    def expire(self) -> list[Event]:
        """End the sequences that have waited too long. Call it before ``step``, so that none of them is run."""
        for sequence in self._scheduler.expired(self._clock()):
            self._end(sequence, "expired")
        return self._take_events()

    def step(self) -> list[Event]:
        """Advance every running sequence by a token or more, and prompts by a chunk; a pipelined runner's events are of the step before.

        Where memory does not suffice, the step is tried again without guesses, then with half as much in it, and those that are left out
        wait; nobody fails who is not alone. Where the runner fails over a prompt, the sequences that were reading theirs fail alone.
        Whatever else it raises passes through: ``recover`` then.
        """
        if not self._can_run_ahead():
            self._collect(num_left=0)
        is_busy = self._launch()
        self._collect(num_left=self._pipeline.depth if is_busy else 0)
        return self._take_events()

    def recover(self) -> list[Event]:
        """After ``step`` raised: fail the sequences that took part, and start afresh with the others."""
        live = list(self._sequences.values())
        took_part = {self._sequences.get(chunk.sequence_id) for chunk in self._plan.chunks}
        took_part.update(sequence for _, sequence in self._pipeline.chunks())
        victims = [sequence for sequence in live if sequence in took_part] or live  # or nobody knows who
        self._plan = StepPlan(())
        self._pipeline.clear()
        for sequence in victims:
            self._drop(sequence)
        self._scheduler.restart(self._sequences.values())
        try:
            self._runner.reset()
        except Exception:  # a lost device: every later step will fail its sequences with the same clear error
            logger.exception("the runner could not be reset")
        return [*self._take_events(), *(Event(sequence.id, finish_reason="error", error=CRASHED) for sequence in victims)]

    def stats(self) -> EngineStats:
        """Return what the engine itself can count: nothing that needs a clock."""
        return EngineStats(
            running=self._scheduler.num_running,
            waiting=self._scheduler.num_waiting,
            blocks_used=self._cache.num_owned,
            blocks_total=self._cache.num_blocks,
            queried_tokens=self._scheduler.queried_tokens,
            cached_tokens=self._scheduler.cached_tokens,
            preemptions=self._scheduler.num_preemptions,
            steps=self._pipeline.num_steps,
            sampled_sequences=self._pipeline.num_sampled,
            engines=1,
            max_running=self._allowance.max_running,
            out_of_memory=self._num_out_of_memory,
            weight_bytes=self._footprint.weights,
            kv_bytes=self._footprint.kv_cache,
            activation_bytes=self._footprint.activations,
            context_bytes=self._footprint.context,
            graph_bytes=self._footprint.graphs,
            drafted_tokens=self._speculation.drafted_tokens if self._speculation else 0,
            accepted_tokens=self._speculation.accepted_tokens if self._speculation else 0,
        )

    def check_integrity(self) -> None:
        """Raise RuntimeError unless every block is free, cached or owned by live sequences, and every live sequence is known."""
        self._scheduler.check_integrity()
        if self._scheduler.num_running + self._scheduler.num_waiting != len(self._sequences):
            raise RuntimeError("the scheduler has lost a sequence, or keeps one that has ended")

    def _can_run_ahead(self) -> bool:
        """Whether the next step can be planned before it is known what the one that runs samples."""
        if self._speculation is not None:
            return False
        return not any(chunk.samples and looks_back(sequence.params) for chunk, sequence in self._pipeline.chunks())

    def _launch(self) -> bool:
        """Have the device compute the next step; False if there is nothing to do."""
        speculation = self._speculation
        while True:
            self._plan = plan = self._scheduler.schedule(self._clock())
            if not plan.chunks:
                return False
            if self._try(plan, speculation):
                break
            # Not where the error was caught: while it was handled, its traceback held the tensors of the step.
            self._release_unused()
            if speculation and speculation.cut():
                speculation = None
            elif self._allowance.cut(plan):
                self._apply_allowance()
            else:
                self._plan = StepPlan(())
                self._end(self._sequences[plan.chunks[0].sequence_id], "error", OUT_OF_MEMORY)
                return False
        if self._allowance.note_clean_step():
            self._apply_allowance()
        self._plan = StepPlan(())
        return True

    def _try(self, plan: StepPlan, speculation: Speculation | None) -> bool:
        """Guess, run and draw; False, with nothing changed, if memory did not suffice for it."""
        try:
            self._run(speculation.extend(plan, self._sequences, self._cache) if speculation else plan)
        except Exception as error:
            if not self._can_retry(error):
                raise
            self._num_out_of_memory += 1
            num_tokens = sum(len(chunk.token_ids) for chunk in plan.chunks)
            logger.warning("out of memory in a step of %d sequences and %d tokens: %s", len(plan.chunks), num_tokens, _first_line(error))
            return False
        return True

    def _run(self, plan: StepPlan) -> None:
        """Launch ``plan``, or what is in it beside prompts if it fails with them. Decodes may be repeated: they write the same again."""
        try:
            self._pipeline.launch(plan, self._sequences)
            return
        except Exception as error:
            decodes = plan.decodes
            if self._can_retry(error) or len(decodes.chunks) in (0, len(plan.chunks)):
                raise
            logger.exception("the runner failed; running the step again without the prompts in it")
        self._pipeline.launch(decodes, self._sequences)
        for chunk in plan.chunks:
            if chunk.is_prompt:
                self._end(self._sequences[chunk.sequence_id], "error", PROMPT_FAILED)

    def _can_retry(self, error: Exception) -> bool:
        return self._can_preempt and is_out_of_memory(error)

    def _apply_allowance(self) -> None:
        self._scheduler.limit(max_running=self._allowance.max_running, prefill_chunk_tokens=self._allowance.prompt_tokens)

    def _collect(self, num_left: int) -> None:
        """Take in what has been drawn, until no more than ``num_left`` steps run; what ended meanwhile has no use for it."""
        while len(self._pipeline) > num_left:
            live = [each for each in self._pipeline.wait() if self._sequences.get(each.sequence.id) is each.sequence]
            for each in live:
                if each.sequence.block_ids is each.chunk.block_ids:  # it was not preempted
                    self._cache.advance(each.sequence, each.chunk.end - each.chunk.num_drafts)
            for each in live:
                if each.chunk.samples:
                    self._take(each)
            self._pipeline.pop()  # last: until then ``recover`` has to know of it

    def _take(self, computed: Computed) -> None:
        chunk, sequence, samples = computed.chunk, computed.sequence, computed.samples
        if samples[0] is None:
            self._cache.distrust(sequence)
            self._end(sequence, "error", INVALID_LOGITS)
            return
        accepted = self._speculation.accept(chunk, sequence, samples) if self._speculation else [samples[0]]
        first = chunk.end - chunk.num_drafts
        event = take_samples(sequence, first, accepted)
        if len(event.token_ids) > 1:
            self._cache.advance(sequence, first + len(event.token_ids) - 1)
        if sequence.finish_reason is not None:
            self._forget(sequence)
        self._events.append(event)

    def _end(self, sequence: Sequence, reason: FinishReason, error: str | None = None) -> None:
        self._forget(sequence)
        self._events.append(Event(sequence.id, finish_reason=reason, error=error))

    def _forget(self, sequence: Sequence) -> None:
        self._drop(sequence)
        self._scheduler.remove(sequence)

    def _drop(self, sequence: Sequence) -> None:
        del self._sequences[sequence.id]
        if self._speculation:
            self._speculation.forget(sequence)

    def _take_events(self) -> list[Event]:
        events, self._events = self._events, []
        return events


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
