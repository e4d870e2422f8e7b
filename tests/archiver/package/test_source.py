"""MODEL is a directory, an archive or a hub id; anything else is one line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from archiver.errors import ArchiverError, UsageError
from archiver.package import ArchiveSpec, Source, build_archive, resolve_model


def test_a_checkpoint_directory_goes_by_its_name(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Source(checkpoint, "checkpoint", "tiny-model")
    assert resolve_model(checkpoint) == expected
    monkeypatch.chdir(checkpoint)
    assert resolve_model(".") == expected


@pytest.mark.parametrize("format", ["mar", "dir"])
def test_an_archive_goes_by_the_name_in_its_manifest(make_spec: Callable[..., ArchiveSpec], format: str) -> None:
    archive = build_archive(make_spec(format=format, name="inner"))
    renamed = archive.rename(archive.with_stem("outer"))
    assert resolve_model(str(renamed)) == Source(renamed, "archive", "inner")


@pytest.mark.parametrize("model", ["nowhere", "./a/b", "/no/such/dir", "a/b/c", "nowhere.mar"])
def test_what_is_nowhere_is_a_usage_error(model: str) -> None:
    with pytest.raises(UsageError, match="no such directory"):
        resolve_model(model)


def test_a_directory_that_is_no_checkpoint_and_a_stray_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no checkpoint"):
        resolve_model(tmp_path)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UsageError, match="neither a checkpoint directory nor an archive"):
        resolve_model(tmp_path / "notes.txt")


def test_a_file_that_only_calls_itself_an_archive(tmp_path: Path) -> None:
    (tmp_path / "x.mar").write_bytes(b"not a zip")
    with pytest.raises(ArchiverError, match=r"damaged or no .mar file"):
        resolve_model(tmp_path / "x.mar")


def test_a_hub_out_of_reach_is_said_in_one_line() -> None:
    """Run in a subprocess, since the hub's client reads its environment when it is imported."""
    code = """
from archiver.errors import ArchiverError
from archiver.package import resolve_model
try:
    resolve_model("owner/model")
except ArchiverError as error:
    print(error.exit_code, error)
"""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": "/nonexistent"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.startswith("1 there is no directory owner/model, and the Hugging Face hub cannot be reached")
    assert result.stdout.count("\n") == 1
