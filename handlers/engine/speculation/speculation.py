"""Add guesses to a step, and see which of them were right."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from handlers.engine.prefix_cache import PrefixCache
from handlers.engine.sampler import Sample
from handlers.engine.scheduler import Chunk, StepPlan
from handlers.engine.sequence import Sequence
from handlers.engine.speculation.drafter import Drafter, Wish
from handlers.engine.speculation.pace import DraftPace
from handlers.requests import SamplingParams


class Speculation:
    """Guesses for the running sequences of one engine. Not thread-safe.

    A guess is right when it is what would be sampled in its place. A guess is one token and no distribution, for which that is the
    rejection scheme of Leviathan et al. (2023): it is accepted with the probability that the model gives it, and what comes instead
    has the distribution of the others. As the noise depends on seed and position alone, not even a sampled answer changes.

    At most ``max_draft_tokens`` a sequence; a step with guesses has no more than ``max_rows`` tokens after which logits are wanted, half as
    many each time that memory runs out in one.
    """

    def __init__(self, drafter: Drafter, *, max_draft_tokens: int, max_rows: int) -> None:
        self.drafted_tokens = 0
        self.accepted_tokens = 0
        self._drafter = drafter
        self._max_draft_tokens = max_draft_tokens
        self._max_rows = max_rows
        self._has_guessed = False  # in the latest step
        self._paces: dict[str, DraftPace] = {}

    def extend(self, plan: StepPlan, sequences: Mapping[str, Sequence], cache: PrefixCache) -> StepPlan:
        """Return ``plan`` with guesses behind the last tokens of its sequences, wherever one would be sampled."""
        sampling = [chunk for chunk in plan.chunks if chunk.samples]
        share = self._max_rows // len(sampling) - 1 if sampling else 0
        wishes = [wish for chunk in sampling if (wish := self._wish(chunk, sequences[chunk.sequence_id], cache, share))]
        self._has_guessed = bool(wishes)  # while the drafter is asked, which may fail
        drafts = self._drafter.draft(wishes) if wishes else {}
        self._has_guessed = any(drafts.values())
        return StepPlan(tuple(_with_drafts(chunk, drafts.get(chunk.sequence_id, [])) for chunk in plan.chunks))

    def cut(self) -> bool:
        """Guess half as much in a step from now on, as memory did not suffice; False if the latest one was without guesses."""
        if self._has_guessed:
            self._max_rows //= 2
        return self._has_guessed

    def accept(self, chunk: Chunk, sequence: Sequence, rows: list[Sample | None]) -> list[Sample]:
        """Return the samples that stand: those that were guessed, and the one after them. The first of ``rows`` is no None."""
        accepted = _agreeing(chunk, rows)
        if chunk.num_drafts:
            self.drafted_tokens += chunk.num_drafts
            self.accepted_tokens += len(accepted) - 1
            self._pace(sequence).note(chunk.num_drafts, len(accepted) - 1, sequence.num_generated + len(accepted))
        return accepted

    def forget(self, sequence: Sequence) -> None:
        """Take note of the end of a sequence."""
        self._paces.pop(sequence.id, None)
        self._drafter.forget(sequence)

    def _wish(self, chunk: Chunk, sequence: Sequence, cache: PrefixCache, share: int) -> Wish | None:
        wanted = min(self._pace(sequence).num_tokens(sequence.num_generated), share, sequence.max_len - chunk.end - 1)
        num_tokens = cache.reach(sequence, wanted) if wanted > 0 else 0
        return Wish(sequence, chunk, num_tokens) if num_tokens > 0 else None

    def _pace(self, sequence: Sequence) -> DraftPace:
        return self._paces.setdefault(sequence.id, DraftPace(self._max_draft_tokens))


@dataclass(frozen=True, slots=True)
class Lookahead:
    """A SamplingState: a sequence as it will be if its guesses are right."""

    sequence: Sequence
    drafts: tuple[int, ...]

    @property
    def params(self) -> SamplingParams:
        """The sequence's."""
        return self.sequence.params

    @property
    def seed(self) -> int:
        """The sequence's."""
        return self.sequence.seed

    @property
    def token_ids(self) -> list[int]:
        """The sequence's, and the guesses."""
        return [*self.sequence.token_ids, *self.drafts]

    @property
    def num_prompt_tokens(self) -> int:
        """The sequence's."""
        return self.sequence.num_prompt_tokens

    @property
    def end_token_ids(self) -> Collection[int]:
        """The sequence's."""
        return self.sequence.end_token_ids


def _drafts(chunk: Chunk) -> tuple[int, ...]:
    return chunk.token_ids[len(chunk.token_ids) - chunk.num_drafts :]


def _with_drafts(chunk: Chunk, drafts: list[int]) -> Chunk:
    return replace(chunk, token_ids=(*chunk.token_ids, *drafts), num_drafts=len(drafts)) if drafts else chunk


def _agreeing(chunk: Chunk, rows: list[Sample | None]) -> list[Sample]:
    """Return the samples up to the first that was not guessed; one after an invalid one is none (it will turn out so without guesses)."""
    drafts = _drafts(chunk)
    agreeing = []
    for index, sample in enumerate(rows):
        if sample is None:
            break
        agreeing.append(sample)
        if index < len(drafts) and sample.token_id != drafts[index]:
            break
    return agreeing


def sampling_states(chunk: Chunk, sequence: Sequence) -> list[Lookahead] | list[Sequence]:
    """Return the SamplingStates of the rows of logits that ``chunk`` asks for: of the sequence, and of it with one guess more each."""
    if not chunk.num_drafts:
        return [sequence]
    drafts = _drafts(chunk)
    return [Lookahead(sequence, drafts[:index]) for index in range(len(drafts) + 1)]
