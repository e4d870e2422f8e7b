"""Fixtures for archives: a tiny checkpoint, and a handler that imports in no time."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models

from archiver.package import ArchiveSpec, build_archive

PLAIN_HANDLER = """\
class Plain:
    def initialize(self, context): ...
    def handle(self, data, context): ...
"""


def write_checkpoint(directory: Path) -> Path:
    directory.mkdir()
    weights = np.random.default_rng(0).standard_normal((64, 16), dtype=np.float32)
    save_file({"model.embed_tokens.weight": weights}, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}))
    Tokenizer(models.BPE()).save(str(directory / "tokenizer.json"))
    (directory / "chat_template.jinja").write_text("{{ messages }}")
    (directory / "training_args.bin").write_bytes(b"pickled")
    (directory / "README.md").write_text("not served")
    return directory


def write_handler(directory: Path) -> Path:
    file = directory / "plain_bot.py"
    file.write_text(PLAIN_HANDLER)
    return file


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Return the directory of a checkpoint whose weights are random."""
    return write_checkpoint(tmp_path / "tiny-model")


@pytest.fixture
def plain_handler(tmp_path: Path) -> Path:
    """Return a handler file without imports."""
    return write_handler(tmp_path)


@pytest.fixture(scope="session")
def built_archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with one archive in both formats, ``tiny.mar`` and ``tiny``; copy what is to be changed."""
    root = tmp_path_factory.mktemp("built")
    spec = ArchiveSpec(write_checkpoint(root / "tiny-model"), "tiny", handler=write_handler(root), out=root / "store")
    build_archive(spec)
    build_archive(replace(spec, format="dir"))
    return root / "store"


@pytest.fixture
def make_spec(checkpoint: Path, plain_handler: Path, tmp_path: Path) -> Callable[..., ArchiveSpec]:
    """Return a maker of specs for the tiny checkpoint; keyword arguments replace its defaults."""

    def make(**changes: object) -> ArchiveSpec:
        defaults = {"source": checkpoint, "name": "tiny", "handler": plain_handler, "out": tmp_path / "store"}
        return ArchiveSpec(**{**defaults, **changes})  # type: ignore[arg-type]

    return make


@pytest.fixture
def sharded_checkpoint(checkpoint: Path) -> Path:
    """Return the directory of a checkpoint whose weights are two shards with an index."""
    (checkpoint / "model.safetensors").unlink()
    weight_map = {f"layer.{index}": f"model-0000{index + 1}-of-00002.safetensors" for index in range(2)}
    for layer, name in weight_map.items():
        save_file({layer: np.zeros(8, dtype=np.float16)}, checkpoint / name)
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return checkpoint
