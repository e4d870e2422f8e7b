"""Hash a range of a file, and copy it while hashing: blocks on all cores, each byte read once.

A block is read, hashed and written piece by piece, small enough that a piece is still in the processor's cache when the next step takes
it. Blocks need not be done in order: the SHA-256 of a member is defined over its blocks' (``handlers.integrity``), and CRC-32s of adjoining
ranges can be combined.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from isal import isal_zlib

from handlers.integrity import BLOCK_BYTES, Progress, combine_blocks

_PIECE_BYTES = 2**18

OnBytes = Callable[[int], None]
"""Called in the calling thread with the number of further bytes that are done."""


class ByteCounter:
    """An ``OnBytes`` that calls ``progress`` with the sum so far and the total."""

    def __init__(self, total_bytes: int, progress: Progress | None) -> None:
        self._total_bytes = total_bytes
        self._done_bytes = 0
        self._progress = progress

    def __call__(self, num_bytes: int) -> None:
        """Count further bytes; what is done beyond the total (the list of hashes) is not shown."""
        self._done_bytes = min(self._done_bytes + num_bytes, self._total_bytes)
        if self._progress:
            self._progress(self._done_bytes, self._total_bytes)


@dataclass(frozen=True)
class Span:
    """``size`` bytes of ``file`` from ``offset``."""

    file: Path
    offset: int
    size: int


@dataclass(frozen=True)
class Digest:
    """``sha256`` as in ``MAR-INF/integrity.json`` (hexadecimal), ``crc32`` as in ZIP (0 where it was not asked for)."""

    sha256: str
    crc32: int


def digest_span(
    span: Span, pool: ThreadPoolExecutor, on_bytes: OnBytes = lambda _: None, *, copy_to: Span | None = None, with_crc: bool = False
) -> Digest:
    """Hash ``span`` and, if ``copy_to`` is given, copy it there (an existing file, at its offset).

    Raises OSError; EOFError if the file ends before the span does.
    """
    digests, crc32 = list[bytes](), 0
    blocks = list(_blocks(span))
    targets = list(_blocks(copy_to)) if copy_to else [None] * len(blocks)
    for block, (digest, crc) in zip(blocks, pool.map(partial(_digest_block, with_crc), blocks, targets), strict=True):
        digests.append(digest)
        crc32 = isal_zlib.crc32_combine(crc32, crc, block.size)
        on_bytes(block.size)
    return Digest(combine_blocks(digests), crc32)


def _blocks(span: Span) -> Iterator[Span]:
    end = span.offset + span.size
    for offset in range(span.offset, max(end, span.offset + 1), BLOCK_BYTES):
        yield Span(span.file, offset, min(BLOCK_BYTES, end - offset))


def _digest_block(with_crc: bool, block: Span, target: Span | None) -> tuple[bytes, int]:
    sha256, crc32, remaining = hashlib.sha256(), 0, block.size
    buffer = memoryview(bytearray(min(_PIECE_BYTES, max(remaining, 1))))
    with ExitStack() as files:
        source = files.enter_context(block.file.open("rb", buffering=0))
        source.seek(block.offset)
        sink = files.enter_context(_open_at(target)) if target else None
        while remaining:
            count = source.readinto(buffer[:remaining])
            if not count:
                raise EOFError(f"{block.file} became shorter while it was read")
            piece = buffer[:count]
            remaining -= count
            sha256.update(piece)
            if with_crc:
                crc32 = isal_zlib.crc32(piece, crc32)
            if sink:
                sink.write(piece)
        if sink and target:
            sink.flush()
            _start_write_back(sink, target)
    return sha256.digest(), crc32


def _open_at(span: Span) -> BinaryIO:
    file = span.file.open("r+b")
    file.seek(span.offset)
    return file


def _start_write_back(file: BinaryIO, span: Span) -> None:
    """Let the disk begin with what was written, without waiting for it, so that the flush at the end is short.

    On Linux this advice starts the writing of dirty pages at once, and drops clean ones only (mm/fadvise.c); elsewhere nothing is done.
    """
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), span.offset, span.size, os.POSIX_FADV_DONTNEED)
