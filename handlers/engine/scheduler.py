"""What the model computes next: running sequences advance at every step, and prompts fill what is left of the token budget."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter

from handlers.engine.prefix_cache import PrefixCache
from handlers.engine.sequence import Sequence

_rank = attrgetter("rank")


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive tokens of one sequence, from position ``start`` on; ``samples`` when they are its last.

    Position p lies in block ``block_ids[p // block_tokens]``; there may be more blocks than the chunk reaches. The list is the sequence's
    own and grows with it: it is valid during the step. The last ``num_drafts`` tokens are guesses at what comes next: the logits after each
    of them, and after the token before them, tell which are right. Only a chunk that samples has any. With a ``late_row`` its last token is
    UNKNOWN here: it is what the step before, which may still run, samples from that row of its logits.
    """

    sequence_id: str
    start: int
    token_ids: tuple[int, ...]
    block_ids: list[int]
    samples: bool
    num_drafts: int = 0
    late_row: int | None = None

    @property
    def end(self) -> int:
        """The position after the last token: what the sequence's context measures once the chunk is computed."""
        return self.start + len(self.token_ids)

    @property
    def num_logits(self) -> int:
        """How many of its tokens, counted from the last, logits are wanted after."""
        return self.num_drafts + 1 if self.samples else 0

    @property
    def is_prompt(self) -> bool:
        """Whether it is more than the one token that its sequence has sampled last, and guesses."""
        return len(self.token_ids) > self.num_drafts + 1


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One forward pass, as plain data: at most one chunk a sequence."""

    chunks: tuple[Chunk, ...]

    @property
    def decodes(self) -> StepPlan:
        """Return the step without its prompts: the sequences that advance by one token."""
        return StepPlan(tuple(chunk for chunk in self.chunks if not chunk.is_prompt))

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of the chunks that read prompts."""
        return sum(len(chunk.token_ids) for chunk in self.chunks if chunk.is_prompt)


class Scheduler:
    """Iteration-level scheduling in the order of rank (Orca, Yu et al. 2022; chunked prefill: Sarathi, Agrawal et al. 2023).

    Every running sequence with one pending token takes part in every step. Prompts share ``prefill_chunk_tokens`` a step, so that a long
    one never stalls the running streams. A sequence starts when there are blocks for all its tokens and one to spare for each running one
    that may grow; if another is just computing the block that it needs next, it waits for that and shares it. When a running sequence needs
    a block and there is none, the last in rank is preempted: it gives up its blocks, waits at its old place, and is computed again later.
    Not thread-safe; has no clock of its own.
    """

    def __init__(self, cache: PrefixCache, *, max_running: int, prefill_chunk_tokens: int) -> None:
        self._cache = cache
        self._max_running = max_running
        self._prefill_chunk_tokens = prefill_chunk_tokens
        self._num_arrivals = 0
        # Both in the order of rank.
        self._waiting: list[Sequence] = []
        self._running: list[Sequence] = []
        self.num_preemptions = 0
        self.queried_tokens = 0
        self.cached_tokens = 0

    @property
    def num_running(self) -> int:
        """Sequences that own blocks."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """Sequences that have not started, or were preempted."""
        return len(self._waiting)

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence behind those of its priority."""
        self._num_arrivals += 1
        sequence.rank = (sequence.priority, self._num_arrivals)
        insort(self._waiting, sequence, key=_rank)

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence, wherever it is; its blocks are released at once."""
        if sequence.block_ids:
            _remove(self._running, sequence)
            self._cache.release(sequence)
        else:
            _remove(self._waiting, sequence)

    def limit(self, *, max_running: int, prefill_chunk_tokens: int) -> None:
        """Take on no more than this from now on; where more run, the last in rank are preempted."""
        self._max_running, self._prefill_chunk_tokens = max_running, prefill_chunk_tokens
        while len(self._running) > max_running:
            self._preempt_last()

    def restart(self, sequences: Iterable[Sequence]) -> None:
        """Begin anew with ``sequences``: they wait at their old places, and nothing is computed any more."""
        self._cache.clear()
        self._running = []
        self._waiting = sorted(sequences, key=_rank)
        for sequence in self._waiting:
            sequence.rewind()

    def expired(self, now_s: float) -> list[Sequence]:
        """Return the sequences that have waited too long to be started; the caller removes them."""
        return [sequence for sequence in self._waiting if sequence.deadline_s <= now_s and sequence.started_s is None]

    def next_deadline_s(self) -> float:
        """Return when the next waiting sequence expires, unless it is started before; infinity when none does."""
        return min((sequence.deadline_s for sequence in self._waiting if sequence.started_s is None), default=math.inf)

    def schedule(self, now_s: float) -> StepPlan:
        """Plan the next step; no chunks when there is nothing to do. The caller tells the cache which chunks have been computed."""
        decodes = tuple(self._decodes())
        return StepPlan((*decodes, *self._prefills(now_s)))

    def check_integrity(self) -> None:
        """Raise RuntimeError unless every block is free, cached, or owned by running sequences, with the right reference counts."""
        self._cache.check_integrity(self._running)
        for sequences in (self._waiting, self._running):
            if sequences != sorted(sequences, key=_rank):
                raise RuntimeError("sequences are out of order")
        if any(sequence.num_computed or sequence.block_ids for sequence in self._waiting):
            raise RuntimeError("a waiting sequence has blocks, or claims to have computed something")

    def _decodes(self) -> Iterator[Chunk]:
        for sequence in self._running:  # may get shorter on the way, from its end
            if sequence.num_pending == 1 and not sequence.is_full and self._make_room(sequence):
                yield _chunk(sequence, 1)

    def _make_room(self, sequence: Sequence) -> bool:
        """Get ``sequence`` the block that it needs, from the last in rank if none is available; False if that is itself."""
        while not self._cache.grow(sequence):
            if self._preempt_last() is sequence:
                return False
        return True

    def _preempt_last(self) -> Sequence:
        victim = self._running.pop()
        self._cache.release(victim)
        insort(self._waiting, victim, key=_rank)
        self.num_preemptions += 1
        return victim

    def _prefills(self, now_s: float) -> Iterator[Chunk]:
        budget = self._prefill_chunk_tokens
        for sequence in self._prompts(now_s):
            num_tokens = min(sequence.num_pending, budget)
            yield _chunk(sequence, num_tokens)
            budget -= num_tokens
            if not budget:
                return

    def _prompts(self, now_s: float) -> Iterator[Sequence]:
        """Sequences that have more to read than one token, those first that have begun."""
        yield from [sequence for sequence in self._running if sequence.num_pending > 1]
        yield from self._starts(now_s)

    def _starts(self, now_s: float) -> Iterator[Sequence]:
        """Start waiting sequences while there is room; those that can soon share a block let others pass."""
        index = 0
        while index < len(self._waiting) and len(self._running) < self._max_running:
            sequence = self._waiting[index]
            if sequence.late_row is not None:
                return  # it was just preempted: what it gave up is not for those behind it
            if self._cache.is_coming(sequence):
                index += 1
                continue
            if not self._cache.begin(sequence, reserve=sum(map(self._cache.may_grow, self._running))):
                return
            del self._waiting[index]
            insort(self._running, sequence, key=_rank)
            self._note_start(sequence, now_s)
            yield sequence

    def _note_start(self, sequence: Sequence, now_s: float) -> None:
        if sequence.started_s is not None:
            return  # it was preempted
        sequence.started_s = now_s
        sequence.num_cached_tokens = sequence.num_shared_tokens
        self.queried_tokens += sequence.num_prompt_tokens
        self.cached_tokens += sequence.num_cached_tokens


def _chunk(sequence: Sequence, num_tokens: int) -> Chunk:
    start, end = sequence.num_launched, sequence.num_launched + num_tokens
    is_last = end == len(sequence.token_ids)
    return Chunk(sequence.id, start, tuple(sequence.token_ids[start:end]), sequence.block_ids, is_last, late_row=sequence.late_row)


def _remove(sequences: list[Sequence], sequence: Sequence) -> None:
    del sequences[bisect_left(sequences, sequence.rank, key=_rank)]
