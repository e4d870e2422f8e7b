"""Plans on their way to other processes: a sequence's blocks, the longest part of a plan, travel once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from handlers.engine.scheduler import Chunk, StepPlan

Head = tuple[str, int, int, int, int, bool, int]
"""Of a chunk: id, start, tokens, blocks that the other side has, blocks that come, whether it samples, drafts."""


class PlanSender:
    """Takes plans apart. Like the runners it relies on a sequence's list of blocks being its own, and only growing. Not thread-safe."""

    def __init__(self) -> None:
        self._sent: dict[str, tuple[list[int], int]] = {}  # of the last plan: lists, and how long they were

    def pack(self, plan: StepPlan) -> tuple[list[Head], list[int]]:
        """Return the heads of the chunks, and their tokens and new blocks, chunk by chunk."""
        heads: list[Head] = []
        ids: list[int] = []
        sent = {}
        for chunk in plan.chunks:
            blocks = chunk.block_ids
            before, num_before = self._sent.get(chunk.sequence_id, (None, 0))
            num_kept = num_before if before is blocks else 0
            num_new = len(blocks) - num_kept
            heads.append((chunk.sequence_id, chunk.start, len(chunk.token_ids), num_kept, num_new, chunk.samples, chunk.num_drafts))
            ids += chunk.token_ids
            ids += blocks[num_kept:]
            sent[chunk.sequence_id] = blocks, len(blocks)
        self._sent = sent
        return heads, ids


class PlanReceiver:
    """Puts together all plans of one PlanSender, in their order; a sequence's list of blocks stays the same one. Not thread-safe."""

    def __init__(self) -> None:
        self._blocks: dict[str, list[int]] = {}  # of the last plan

    def unpack(self, heads: Sequence[Head], ids: Sequence[int]) -> StepPlan:
        """Return the plan of which ``pack`` gave these."""
        plan = StepPlan(tuple(self._chunks(heads, iter(ids))))
        self._blocks = {chunk.sequence_id: chunk.block_ids for chunk in plan.chunks}
        return plan

    def _chunks(self, heads: Sequence[Head], ids: Iterator[int]) -> Iterator[Chunk]:
        for sequence_id, start, num_tokens, num_kept, num_new, samples, num_drafts in heads:
            token_ids = tuple(islice(ids, num_tokens))
            blocks = self._blocks[sequence_id] if num_kept else []
            blocks += islice(ids, num_new)
            yield Chunk(sequence_id, start, token_ids, blocks, samples, num_drafts)
