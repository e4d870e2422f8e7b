"""Which KV blocks are free, which are cached for those who come later, and which are owned by how many sequences."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable


class BlockPool:
    """Blocks ``0 .. num_blocks - 1``, each of which is free, cached or owned. Not thread-safe.

    An owned block has a reference count. Once what it holds is known by a key, it can be found and shared. When its last owner leaves it is
    cached until the room is needed, the least recently used first; with ``keeps_unused`` False it is free at once.
    """

    def __init__(self, num_blocks: int, *, keeps_unused: bool = True) -> None:
        self.num_blocks = num_blocks
        self._keeps_unused = keeps_unused
        self.clear()

    def clear(self) -> None:
        """Free all blocks."""
        self._free = list(reversed(range(self.num_blocks)))  # a stack: what was used last is likely still in the processor's cache
        self._cached: OrderedDict[int, None] = OrderedDict()  # the least recently used first
        self._num_owners = [0] * self.num_blocks
        self._keys: list[bytes | None] = [None] * self.num_blocks
        self._by_key: dict[bytes, int] = {}

    @property
    def num_available(self) -> int:
        """Blocks that can be allocated now: the free ones and the cached ones."""
        return len(self._free) + len(self._cached)

    @property
    def num_owned(self) -> int:
        """Blocks that somebody uses."""
        return self.num_blocks - self.num_available

    def allocate(self) -> int:
        """Return a block of one's own, with unknown content; raises IndexError when none is available."""
        if self._free:
            block = self._free.pop()
        elif self._cached:
            block, _ = self._cached.popitem(last=False)
            self.unregister(block)
        else:
            raise IndexError("no KV block is available")
        self._num_owners[block] = 1
        return block

    def share(self, block: int) -> None:
        """Become one more owner of a block that ``find`` returned."""
        self._cached.pop(block, None)
        self._num_owners[block] += 1

    def free(self, block: int) -> None:
        """Give up one's ownership."""
        self._num_owners[block] -= 1
        if self._num_owners[block]:
            return
        if self._keys[block] is not None and self._keeps_unused:
            self._cached[block] = None
            return
        self.unregister(block)
        self._free.append(block)

    def register(self, block: int, key: bytes) -> None:
        """Let an owned block be found by ``key``, unless another one is: then they are equal, and this one stays private."""
        if key not in self._by_key:
            self._by_key[key] = block
            self._keys[block] = key

    def unregister(self, block: int) -> None:
        """Let a block no longer be found: what it holds is not worth keeping, or about to be overwritten."""
        key, self._keys[block] = self._keys[block], None
        if key is not None:
            del self._by_key[key]

    def find(self, key: bytes) -> int | None:
        """Return the block that is known by ``key``."""
        return self._by_key.get(key)

    def key(self, block: int) -> bytes | None:
        """Return the key that the block is known by."""
        return self._keys[block]

    def is_cached(self, block: int) -> bool:
        """Whether nobody owns the block but its content is kept."""
        return block in self._cached

    def check_integrity(self, owned: Iterable[int]) -> None:
        """Raise RuntimeError unless every block is free, cached, or in ``owned`` once for each owner, and keys lead to their blocks."""
        owners = Counter(owned)
        if sorted([*self._free, *self._cached, *owners]) != list(range(self.num_blocks)):
            raise RuntimeError(f"free {self._free}, cached {list(self._cached)} and owned {dict(owners)} are no partition of the blocks")
        if self._num_owners != [owners[block] for block in range(self.num_blocks)]:
            raise RuntimeError(f"reference counts {self._num_owners} are not those of the owners {dict(owners)}")
        keys = {key: block for block, key in enumerate(self._keys) if key is not None}
        if keys != self._by_key or any(self._keys[block] is not None for block in self._free):
            raise RuntimeError("the keys of the blocks and the blocks of the keys differ, or a free block has a key")
        if any(self._keys[block] is None for block in self._cached):
            raise RuntimeError("a cached block has no key: nobody could ever find it")
