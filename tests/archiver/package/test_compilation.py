"""``--compile``: what cannot be compiled is refused in a line. (A package made, packed and used: tests/handlers/engine/compiled.)"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from archiver.errors import ArchiverError, UsageError
from archiver.package import ArchiveSpec
from archiver.package.compilation import with_compiled_step
from tests.checkpoints import make_checkpoint


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("compilation") / "tiny")


def test_quantized_weights_are_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="quantized weights, which have kernels of their own; leave --compile out"):
        with_compiled_step(ArchiveSpec(source, "tiny", settings={"quantization": {"recipe": "int8"}}))
    gguf = tmp_path / "tiny.gguf"
    gguf.write_bytes(b"GGUF")
    with pytest.raises(UsageError):
        with_compiled_step(ArchiveSpec(gguf, "tiny"))


def test_a_decoder_of_another_kind_is_refused(source: Path, tmp_path: Path) -> None:
    other = tmp_path / "gpt2"
    other.mkdir()
    sizes = {"n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 32, "vocab_size": 64}
    (other / "config.json").write_text(json.dumps({"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", **sizes}))
    (other / "model.safetensors").write_bytes((source / "model.safetensors").read_bytes())
    with pytest.raises(UsageError, match="GPT2LMHeadModel cannot be compiled: only decoders like Llama's are; leave --compile out"):
        with_compiled_step(ArchiveSpec(other, "tiny"))


def test_without_a_compiler_nothing_is_built(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    stages: list[str] = []
    with pytest.raises(ArchiverError, match=r"cannot be compiled: there is no C\+\+ compiler \(no-such-compiler\)"):
        with_compiled_step(ArchiveSpec(source, "tiny"), lambda stage, done, total: stages.append(stage))
    assert stages[0].startswith("compiling for torch")
