"""A Runner that has llama.cpp compute the step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from handlers.engine.llama_cpp.library import Decoder, Row
from handlers.engine.llama_cpp.slots import Slot, SlotTable
from handlers.engine.scheduler import Chunk, StepPlan


class _NoRoom(RuntimeError):
    """llama.cpp's memory is full."""


class LlamaCppRunner:
    """Translate chunks in blocks to rows in slots.

    llama.cpp keeps sequences where the scheduler thinks in blocks. So this remembers which tokens each block holds: with them, whatever
    precedes a chunk is found in some slot, or computed again. At most ``num_slots`` chunks a step.
    """

    def __init__(
        self,
        decoder: Decoder,
        *,
        num_blocks: int,
        block_tokens: int,
        max_model_len: int,
        vocab_size: int,
        weight_bytes: int,
        kv_bytes: int,
        num_slots: int,
    ) -> None:
        self.num_blocks = num_blocks
        self.block_tokens = block_tokens
        self.max_model_len = max_model_len
        self.vocab_size = vocab_size
        self.weight_bytes = weight_bytes
        self.kv_bytes = kv_bytes
        self._decoder = decoder
        self._slots = SlotTable(decoder, num_slots)
        self._tokens = _BlockTokens(num_blocks, block_tokens)
        self._logits = torch.empty(0, vocab_size)

    def run(self, plan: StepPlan) -> Tensor:
        """Compute a step; see Runner. The next one writes its logits to the same memory."""
        for chunk in plan.chunks:
            self._tokens.write(chunk)
        try:
            return self._compute(plan.chunks)
        except _NoRoom:
            # Slots may hold the same tokens twice where the engine shares blocks: sequences that were preempted, for example. Computed
            # anew and one after the other, every sequence finds what it shares with those before it.
            self._slots.clear()
            return torch.cat([self._compute([chunk]).clone() for chunk in plan.chunks])

    def reset(self) -> None:
        """Forget all sequences."""
        self._slots.clear()

    def _compute(self, chunks: Sequence[Chunk]) -> Tensor:
        """Compute ``chunks``, whose tokens are noted; return the logits wanted."""
        claims = [self._claim(chunk) for chunk in chunks]
        slots, pending = [slot for slot, _ in claims], [token_ids for _, token_ids in claims]
        try:
            logits = self._decode(_rows(chunks, slots, pending), slots)
        except Exception:
            for slot in slots:  # some of their rows may have been computed
                self._decoder.remove(slot.index, len(slot.token_ids))
            raise
        for slot, token_ids in zip(slots, pending, strict=True):
            slot.token_ids += token_ids
        return logits

    def _claim(self, chunk: Chunk) -> tuple[Slot, list[int]]:
        """Return a chunk's slot, and the tokens that it has to compute: the chunk's, and those before it that are in no slot any more."""
        if slot := self._slots.resume(chunk):
            return slot, list(chunk.token_ids)
        before = self._tokens.read(chunk.block_ids, chunk.start)
        slot = self._slots.claim(chunk, before)
        return slot, [*before[len(slot.token_ids) :], *chunk.token_ids]

    def _decode(self, rows: list[Row], slots: list[Slot]) -> Tensor:
        """Compute ``rows`` in as many calls as they take and return the logits wanted; slots that are not of this step make room."""
        logits = self._room_for_logits(sum(row.wants_logits for row in rows))
        num_done = 0
        for start in range(0, len(rows), self._decoder.max_rows):
            part = rows[start : start + self._decoder.max_rows]
            wanted = logits[num_done : num_done + sum(row.wants_logits for row in part)]
            while not self._decoder.decode(part, wanted):
                if not self._slots.evict(keep=slots):
                    raise _NoRoom(f"llama.cpp finds no room for {len(rows)} tokens although only {len(slots)} sequences are kept")
            num_done += len(wanted)
        return logits

    def _room_for_logits(self, num_rows: int) -> Tensor:
        if num_rows > len(self._logits):
            self._logits = torch.empty(num_rows, self.vocab_size)
        return self._logits[:num_rows]


class _BlockTokens:
    """The tokens in every block."""

    def __init__(self, num_blocks: int, block_tokens: int) -> None:
        self._size = block_tokens
        self._blocks: list[list[int]] = [[] for _ in range(num_blocks)]

    def write(self, chunk: Chunk) -> None:
        """Note the tokens of a chunk in the blocks that it fills."""
        for position, token_id in enumerate(chunk.token_ids, chunk.start):
            block = self._blocks[chunk.block_ids[position // self._size]]
            block[position % self._size :] = [token_id]

    def read(self, block_ids: Sequence[int], end: int) -> list[int]:
        """Return the tokens at the positions before ``end``."""
        return [token_id for block in block_ids[: -(-end // self._size)] for token_id in self._blocks[block]][:end]


def _rows(chunks: Sequence[Chunk], slots: Sequence[Slot], pending: Sequence[list[int]]) -> list[Row]:
    rows: list[Row] = []
    for chunk, slot, token_ids in zip(chunks, slots, pending, strict=True):
        rows += [Row(token_id, position, slot.index, False) for position, token_id in enumerate(token_ids, len(slot.token_ids))]
        for row in range(len(rows) - chunk.num_logits, len(rows)):
            rows[row] = rows[row]._replace(wants_logits=True)
    return rows
