"""GGUF headers: what is read back is what was written, and nothing that a file contains does more than raise one line."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handlers.errors import ConfigError
from handlers.gguf_file import GgufFile, find_gguf
from tests.gguf_files import write_gguf

METADATA: dict[str, Any] = {
    "llama.block_count": 2,
    "llama.attention.layer_norm_rms_epsilon": 0.5,
    "tokenizer.ggml.tokens": ("a", "ä", "<|im_end|>", "<|x|>"),
    "tokenizer.ggml.token_type": (1, 1, 3, 3),
    "tokenizer.ggml.scores": (0.5, -1.0, 0.0, 0.0),
    "tokenizer.ggml.eos_token_id": 3,
    "tokenizer.ggml.add_bos_token": True,
}
TENSORS = {"token_embd.weight": np.arange(128, dtype=np.float32).reshape(4, 32), "output_norm.weight": np.ones(32, np.float32)}

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a writer of a small file; keyword arguments replace metadata, ``None`` leaves a value out."""

    def write(kind: str = "F32", **changes: Any) -> Path:
        metadata = METADATA | {name.replace("__", "."): value for name, value in changes.items()}
        return write_gguf(tmp_path / "model.gguf", "llama", metadata, TENSORS, kind)

    return write


def test_metadata_and_tensors_are_read_back(write: Write) -> None:
    file = GgufFile.open(write())
    assert file.architecture == "llama"
    assert {key: file.metadata[key] for key in METADATA} == METADATA
    assert (file.number("block_count"), file.number("rope.freq_base", 10000.0)) == (2, 10000.0)
    for name, array in TENSORS.items():
        tensor = file.tensors[name]
        data = file.path.read_bytes()[tensor.offset : tensor.offset + tensor.num_bytes]
        np.testing.assert_array_equal(np.frombuffer(data, np.float32).reshape(tensor.shape), array)


def test_blocks_are_counted_by_their_type(write: Write) -> None:
    tensor = GgufFile.open(write("Q8_0")).tensors["token_embd.weight"]
    assert (tensor.type, tensor.shape, tensor.num_bytes) == ("Q8_0", (4, 32), 4 * 34)


def test_declared_and_well_known_ends_end_a_sequence(write: Write) -> None:
    assert GgufFile.open(write()).eos_token_ids == {2, 3}


def test_a_number_that_is_none_is_named(write: Write) -> None:
    file = GgufFile.open(write(llama__context_length="long"))
    with pytest.raises(ConfigError, match=r"model.gguf: llama.context_length must be a number, got 'long'"):
        file.number("context_length")
    with pytest.raises(ConfigError, match="llama.embedding_length"):
        file.number("embedding_length")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split__count": 3}, "one of 3 parts; join them"),
        ({"llama__block_count": None, "general__type": "mmproj"}, "is no language model .mmproj."),
        ({"tokenizer__ggml__tokens": None}, "has no tokenizer"),
    ],
)
def test_what_is_no_whole_model_is_refused(write: Write, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GgufFile.open(write(**changes))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "only the beginning"),
        (b"PK\x03\x04 and more", "is no GGUF file"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"GGUF" + struct.pack("<I", 1), "GGUF version 1"),
        (b"GGUF" + struct.pack(">I", 3), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 1 << 60), "damaged"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 62), "damaged"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 12, 1 << 61), "damaged"),
    ],
)
def test_other_files_and_hostile_lengths(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        GgufFile.open(tmp_path / "x.gguf")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_read_but_nothing_else(write: Write, data: st.DataObject) -> None:
    whole = write().read_bytes()
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(ValueError):
        GgufFile.read(io.BytesIO(whole[:cut]), cut, Path("cut.gguf"))

    altered = bytearray(whole)
    for place, byte in data.draw(st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), max_size=4)):
        altered[place] = byte
    try:
        file = GgufFile.read(io.BytesIO(altered), len(altered), Path("altered.gguf"))
    except ValueError:
        return
    assert all(isinstance(token_id, int) for token_id in file.eos_token_ids)


def test_a_directory_is_a_checkpoint_if_it_has_one_file(write: Write, tmp_path: Path) -> None:
    assert find_gguf(tmp_path) is None
    file = write()
    assert find_gguf(tmp_path) == file
    (tmp_path / "other.gguf").touch()
    with pytest.raises(ConfigError, match="holds 2 GGUF files"):
        find_gguf(tmp_path)
    (tmp_path / "model.safetensors").touch()
    assert find_gguf(tmp_path) is None
