"""Tile sizes, warps and pipeline stages: small tables, as an autotuner would let first requests and graph captures wait."""

from __future__ import annotations

SILU_WIDTH = 1024
"""Columns a program."""


def row_warps(width: int) -> int:
    """Return the warps for a program that reduces one row: 16 numbers a thread, at least one warp and at most 16."""
    return min(max(width // (32 * 16), 1), 16)
