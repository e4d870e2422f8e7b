"""A GGUF file is a model: alone or in a directory it is packaged, and inspected; what is wrong with it is said before a server starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from archiver.deploy.archive_cache import cached_archive
from archiver.errors import UsageError
from archiver.package import ArchiveSpec, Source, build_archive, inspect_archive, resolve_model
from archiver.package.checkpoint import read_checkpoint
from archiver.package.hub import is_hub_gguf, is_hub_id
from tests.gguf_files import write_gguf

MakeSpec = Callable[..., ArchiveSpec]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a GGUF file of hardly any model, in a directory with other files."""
    directory = tmp_path / "downloads"
    directory.mkdir()
    (directory / "notes.txt").touch()
    (directory / "LICENSE").write_text("free")
    metadata = {"llama.block_count": 1, "tokenizer.ggml.tokens": ("a", "b")}
    return write_gguf(directory / "tiny-Q4_K_M.gguf", "llama", metadata, {"token_embd.weight": np.ones((2, 32), np.float32)})


def test_a_file_goes_by_its_name_and_a_directory_by_its_own(file: Path) -> None:
    assert resolve_model(file) == Source(file, "checkpoint", "tiny-Q4_K_M")
    assert resolve_model(file.parent) == Source(file.parent, "checkpoint", "downloads")


def test_a_link_keeps_its_name_as_in_the_hub_s_cache(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "snapshot.gguf"
    link.symlink_to(file.rename(tmp_path / "0123abcd"))
    assert resolve_model(str(link)).path == link
    assert read_checkpoint(link).files == (Path("snapshot.gguf"),)


def test_a_file_alone_or_with_what_is_served_of_its_directory(file: Path) -> None:
    assert read_checkpoint(file).files == (Path(file.name),)
    assert read_checkpoint(file.parent).files == (Path("LICENSE"), Path(file.name))
    assert read_checkpoint(file).architecture == "llama"


@pytest.mark.parametrize("format", ["mar", "dir"])
def test_the_archive_has_the_file_in_its_model_directory(make_spec: MakeSpec, file: Path, format: str) -> None:
    info = inspect_archive(build_archive(make_spec(source=file, format=format)))
    assert info.members[f"model/{file.name}"] == info.weight_bytes == file.stat().st_size
    assert info.architecture == "llama"


def test_a_cached_archive_is_found_again(make_spec: MakeSpec, file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MARQUEE_CACHE", str(tmp_path / "cache"))
    archive = cached_archive(make_spec(source=file))
    assert (archive / "model" / file.name).stat().st_ino == file.stat().st_ino
    assert cached_archive(make_spec(source=file)) == archive


@pytest.mark.parametrize(("keep", "message"), [(100, "only the beginning"), (-1, "where its header says"), (0, "only the beginning")])
def test_a_partial_file_is_refused(make_spec: MakeSpec, file: Path, keep: int, message: str) -> None:
    file.write_bytes(file.read_bytes()[:keep])
    for source in (file, file.parent):
        with pytest.raises(UsageError, match=rf"^tiny-Q4_K_M.gguf .*{message}"):
            resolve_model(source)
        with pytest.raises(UsageError, match=message):
            build_archive(make_spec(source=source))


def test_two_files_are_no_model(file: Path) -> None:
    file.with_name("other.gguf").touch()
    with pytest.raises(UsageError, match="holds 2 GGUF files"):
        resolve_model(file.parent)


def test_an_architecture_that_nothing_knows_is_refused(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b"llama", b"lhama"))
    with pytest.raises(UsageError, match="'lhama', which is unknown"):
        resolve_model(file)


@pytest.mark.parametrize("model", ["owner/name/model-Q4_K_M.gguf", "owner/name", "models/x.gguf", "a/b/c/x.gguf"])
def test_what_may_be_on_the_hub(model: str) -> None:
    assert is_hub_gguf(model) == (model == "owner/name/model-Q4_K_M.gguf")
    assert is_hub_id(model) == (model == "owner/name")
