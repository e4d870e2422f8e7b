"""Give sequences their KV blocks: shared ones where their beginning is computed already, blocks of their own for the rest."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Collection
from itertools import zip_longest

from handlers.engine.blocks import BlockPool
from handlers.engine.sequence import Sequence

_DIGEST_BYTES = 16


class PrefixCache:
    """Blocks by what they hold. A block is known by the hash of its tokens and of all tokens before it, once it is full and computed.

    A full block is never written again, so that any number of sequences may own it; a sequence writes only behind what it shares. What
    sequences compute right now is known too, so that nobody computes the same block beside them. Not thread-safe.
    """

    def __init__(self, num_blocks: int, block_tokens: int, *, keeps_unused: bool = True) -> None:
        self._block_tokens = block_tokens
        self._pool = BlockPool(num_blocks, keeps_unused=keeps_unused)
        self._computing: dict[bytes, Sequence] = {}  # who will fill the block that has this hash

    @property
    def num_blocks(self) -> int:
        """Blocks in all."""
        return self._pool.num_blocks

    @property
    def num_owned(self) -> int:
        """Blocks that sequences own."""
        return self._pool.num_owned

    def is_coming(self, sequence: Sequence) -> bool:
        """Whether a sequence that goes before it is about to compute the first block that ``sequence`` misses: it can be shared soon."""
        if sequence.awaited_hash not in self._computing:  # else what it waited for last time is still on its way
            hashes = self._shareable_hashes(sequence)
            sequence.awaited_hash = next((block_hash for block_hash in hashes if self._pool.find(block_hash) is None), None)
        leader = self._computing.get(sequence.awaited_hash) if sequence.awaited_hash else None
        return leader is not None and leader.rank < sequence.rank

    def begin(self, sequence: Sequence, *, reserve: int) -> bool:
        """Give ``sequence`` blocks for all its tokens; it has then computed what it shares, and always has tokens left to compute.

        Returns False, and gives nothing, if fewer than ``reserve`` blocks would be left.
        """
        shared = self._find_computed(sequence)
        num_missing = self._blocks_for(len(sequence.token_ids)) - len(shared)
        if num_missing + sum(map(self._pool.is_cached, shared)) + reserve > self._pool.num_available:
            return False
        for block in shared:
            self._pool.share(block)
        sequence.block_ids = [*shared, *(self._pool.allocate() for _ in range(num_missing))]
        sequence.num_computed = sequence.num_launched = sequence.num_shared_tokens = len(shared) * self._block_tokens
        for block_hash in self._hashes(sequence, len(sequence.token_ids))[len(shared) :]:
            self._computing.setdefault(block_hash, sequence)
        return True

    def may_grow(self, sequence: Sequence) -> bool:
        """Whether ``sequence`` can come to need more blocks than it has; the last token of all is never computed."""
        return len(sequence.block_ids) * self._block_tokens < sequence.max_len - 1

    def grow(self, sequence: Sequence) -> bool:
        """Give ``sequence`` the blocks that its tokens need and it does not have; False if one is missing."""
        while len(sequence.block_ids) * self._block_tokens < len(sequence.token_ids):
            if not self._pool.num_available:
                return False
            sequence.block_ids.append(self._pool.allocate())
        return True

    def reach(self, sequence: Sequence, num_tokens: int) -> int:
        """Give ``sequence`` blocks for up to ``num_tokens`` more than it has, as far as nobody need give way; return how many fit."""
        wanted = self._blocks_for(len(sequence.token_ids) + num_tokens) - len(sequence.block_ids)
        sequence.block_ids += [self._pool.allocate() for _ in range(min(wanted, self._pool.num_available))]
        return min(len(sequence.block_ids) * self._block_tokens - len(sequence.token_ids), num_tokens)

    def advance(self, sequence: Sequence, num_computed: int) -> None:
        """Note how far ``sequence`` is computed; its blocks that are full now can be shared."""
        num_full, num_full_before = num_computed // self._block_tokens, sequence.num_computed // self._block_tokens
        sequence.num_computed = num_computed
        sequence.num_launched = max(sequence.num_launched, num_computed)
        if num_full == num_full_before:
            return
        hashes = self._hashes(sequence, num_computed)
        for index in range(num_full_before, num_full):
            self._pool.register(sequence.block_ids[index], hashes[index])
            self._is_no_longer_computing(sequence, hashes[index])

    def release(self, sequence: Sequence) -> None:
        """Take all blocks of ``sequence`` back: it has computed nothing any more, though others find what it left."""
        for block_hash in sequence.block_hashes[sequence.num_computed // self._block_tokens :]:
            self._is_no_longer_computing(sequence, block_hash)
        for block in reversed(sequence.block_ids):  # the deepest is evicted first: without those before it, it is worth nothing
            self._pool.free(block)
        sequence.rewind()

    def clear(self) -> None:
        """Forget what all blocks hold and who owns them."""
        self._pool.clear()
        self._computing.clear()

    def distrust(self, sequence: Sequence) -> None:
        """Let nobody find what ``sequence`` has computed or shared from now on: it may be the cause of invalid numbers."""
        for block in sequence.block_ids:
            self._pool.unregister(block)

    def check_integrity(self, owners: Collection[Sequence]) -> None:
        """Raise RuntimeError unless blocks belong to ``owners`` and to nobody else, enough of them, and hold what they are known for."""
        self._pool.check_integrity(block for sequence in owners for block in sequence.block_ids)
        for sequence in owners:
            if len(sequence.block_ids) < self._blocks_for(sequence.num_computed):
                raise RuntimeError(f"{sequence.id!r} has computed {sequence.num_computed} tokens in {len(sequence.block_ids)} blocks")
            hashes = self._hashes(sequence, sequence.num_computed)
            for block, block_hash in zip_longest(sequence.block_ids, hashes):
                if self._pool.key(block) not in (None, block_hash):
                    raise RuntimeError(f"block {block} of {sequence.id!r} is known by the hash of what it does not hold")
        if not set(self._computing.values()) <= set(owners):
            raise RuntimeError("a block is waited for that nobody computes")

    def _find_computed(self, sequence: Sequence) -> list[int]:
        blocks = []
        for block_hash in self._shareable_hashes(sequence):
            block = self._pool.find(block_hash)
            if block is None:
                break
            blocks.append(block)
        return blocks

    def _shareable_hashes(self, sequence: Sequence) -> list[bytes]:
        """Return the hashes of the full blocks before the last token, which must be computed in any case: its logits are needed."""
        return self._hashes(sequence, len(sequence.token_ids) - 1)

    def _hashes(self, sequence: Sequence, num_tokens: int) -> list[bytes]:
        """Return the hashes of the blocks that the first ``num_tokens`` fill, computed or not; each is made once."""
        hashes, size = sequence.block_hashes, self._block_tokens
        for index in range(len(hashes), num_tokens // size):
            hashes.append(_block_hash(hashes[-1] if hashes else b"", sequence.token_ids[index * size : (index + 1) * size]))
        return hashes[: num_tokens // size]

    def _is_no_longer_computing(self, sequence: Sequence, block_hash: bytes) -> None:
        if self._computing.get(block_hash) is sequence:
            del self._computing[block_hash]

    def _blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self._block_tokens)


def _block_hash(parent: bytes, token_ids: list[int]) -> bytes:
    """Hash a block's tokens and, through ``parent``, all before them: cryptographic, because a collision would show others' prompts."""
    return hashlib.blake2b(parent + array("i", token_ids).tobytes(), digest_size=_DIGEST_BYTES).digest()
