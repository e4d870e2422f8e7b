"""Hashing and copying by blocks agree with doing it in one go."""

from __future__ import annotations

import hashlib
import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from archiver.package.transfer import Digest, Span, digest_span
from handlers.integrity import BLOCK_BYTES, combine_blocks


def expected_digest(data: bytes) -> Digest:
    blocks = [data[offset : offset + BLOCK_BYTES] for offset in range(0, max(len(data), 1), BLOCK_BYTES)]
    return Digest(combine_blocks([hashlib.sha256(block).digest() for block in blocks]), zlib.crc32(data))


@pytest.mark.parametrize("size", [0, 1, 3_000_001, BLOCK_BYTES, BLOCK_BYTES + 1])
def test_copies_a_span_into_another_and_returns_its_digest(tmp_path: Path, size: int) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    data = os.urandom(min(size, 1000)).ljust(size, b"\1")
    source.write_bytes(b"before" + data + b"after")
    target.write_bytes(b"header")
    steps: list[int] = []
    with ThreadPoolExecutor(3) as pool:
        digest = digest_span(Span(source, 6, size), pool, steps.append, copy_to=Span(target, 6, size), with_crc=True)
        assert digest == digest_span(Span(target, 6, size), pool, with_crc=True)
    assert digest == expected_digest(data)
    assert sum(steps) == size
    assert target.read_bytes() == b"header" + data


def test_a_file_that_became_shorter_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"abc")
    with ThreadPoolExecutor(1) as pool, pytest.raises(EOFError, match="became shorter"):
        digest_span(Span(tmp_path / "short", 0, 4), pool)
