"""Which replica gets a prompt: one that has seen its beginning, unless another has much less to do."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence

_BLOCK_TOKENS = 16
_MAX_BLOCKS = 128
_MAX_REMEMBERED = 1 << 15


class Router:
    """Remember where prompts went, block by block; the blocks need not be those of the engines. Not thread-safe.

    A replica with a cached prefix may have up to ``slack`` sequences more than the one with the fewest before a prompt goes elsewhere: then
    what is saved in prefill is lost in waiting.
    """

    def __init__(self, slack: int = 4) -> None:
        self._slack = slack
        self._owners: OrderedDict[int, int] = OrderedDict()  # replica by block of a prompt, the latest used last

    def choose(self, prompt_token_ids: Sequence[int], loads: Mapping[int, int]) -> int:
        """Return one of the replicas in ``loads`` (their number of sequences; not empty), and remember the choice."""
        if len(loads) == 1:
            return next(iter(loads))
        blocks = list(_block_hashes(prompt_token_ids))
        lightest = min(loads, key=lambda replica: (loads[replica], replica))
        chosen = lightest
        for block in reversed(blocks):  # the longest beginning counts
            owner = self._owners.get(block)
            if owner is not None and owner in loads and loads[owner] <= loads[lightest] + self._slack:
                chosen = owner
                break
        self._remember(blocks, chosen)
        return chosen

    def forget(self, replica: int) -> None:
        """Drop what a replica had cached, because it started afresh."""
        self._owners = OrderedDict((block, owner) for block, owner in self._owners.items() if owner != replica)

    def _remember(self, blocks: Sequence[int], replica: int) -> None:
        for block in blocks:
            self._owners[block] = replica
            self._owners.move_to_end(block)
        while len(self._owners) > _MAX_REMEMBERED:
            self._owners.popitem(last=False)


def _block_hashes(token_ids: Sequence[int]) -> Iterator[int]:
    """Yield a hash of each beginning of a prompt, whole blocks long; the last block may be a part of one. A collision costs only time."""
    before = 0
    for start in range(0, min(len(token_ids), _BLOCK_TOKENS * _MAX_BLOCKS), _BLOCK_TOKENS):
        before = hash((before, *token_ids[start : start + _BLOCK_TOKENS]))
        yield before
