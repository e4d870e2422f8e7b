"""Tile sizes, warps and pipeline stages: small tables, as an autotuner would let first requests and graph captures wait."""

from __future__ import annotations

from dataclasses import dataclass

SILU_WIDTH = 1024
"""Columns a program."""


@dataclass(frozen=True, slots=True)
class Tiling:
    """How an attention kernel walks: queries and keys a tile, warps a program, and tiles of keys and values on their way at once."""

    num_queries: int
    num_keys: int
    num_warps: int
    num_stages: int


def row_warps(width: int) -> int:
    """Return the warps for a program over ``width`` numbers in a row or a few short ones: 16 a thread, between one warp and 16."""
    return min(max(width // (32 * 16), 1), 16)


def combine_warps(dims: int) -> int:
    """Return the warps for a program that adds the parts of one head."""
    return 8 if dims > 128 else 4


def decode_tiling(dims: int, element_bytes: int) -> Tiling:
    """Return a tiling for the heads of one token; ``element_bytes`` are a query's."""
    if element_bytes > 2:
        return _EXACT
    return Tiling(1, 64 if dims <= 128 else 32, 4, 5)


def prefill_tiling(dims: int, element_bytes: int) -> Tiling:
    """Return a tiling for the tokens of a prompt; ``element_bytes`` are a query's."""
    if element_bytes > 2:
        return _EXACT
    return Tiling(128, 64, 8, 3) if dims <= 128 else Tiling(64, 32, 4, 3)


_EXACT = Tiling(32, 32, 8, 2)
"""Float32, which tensor cores would round: for tests of correctness, whose speed is no matter."""
