"""Looking into archives: ours in both formats, torch-model-archiver's, and damaged ones."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import pytest

from archiver.errors import ArchiverError, UsageError
from archiver.package import ArchiveSpec, build_archive, inspect_archive, verify_archive


@pytest.mark.parametrize("format", ["mar", "dir"])
def test_tells_what_is_in_ours(make_spec: Callable[..., ArchiveSpec], format: str) -> None:
    archive = build_archive(make_spec(format=format, version="2.1", settings={"integrity": "required"}))
    info = inspect_archive(archive)
    assert (info.format, info.name, info.version, info.handler) == (format, "tiny", "2.1", "plain_bot.py")
    assert (info.architecture, info.num_parameters, info.dtypes) == ("LlamaForCausalLM", 64 * 16, {"F32": 64 * 16})
    assert info.weight_bytes == info.members["model/model.safetensors"] > 64 * 16 * 4
    assert info.total_bytes == sum(info.members.values())
    assert info.handler_section == {"integrity": "required"}
    assert info.is_hashed
    assert "python" in info.versions
    assert json.loads(json.dumps(info.to_dict()))["members"] == info.members


@pytest.fixture(params=["default", "zip-store", "no-archive"])
def their_archive(request: pytest.FixtureRequest, checkpoint: Path, plain_handler: Path, tmp_path: Path) -> Path:
    """Return an archive built by torch-model-archiver itself."""
    config = tmp_path / "their-config.yaml"
    config.write_text("batchSize: 4\nhandler:\n  integrity: verify\n")
    (tmp_path / "staging").mkdir()
    command = [sys.executable, "-m", "model_archiver.model_packaging", "--model-name", "theirs", "--version", "3.0"]
    command += ["--handler", str(plain_handler), "--extra-files", str(checkpoint), "--config-file", str(config)]
    command += ["--export-path", str(tmp_path), "--archive-format", request.param]
    subprocess.run(command, check=True, capture_output=True, timeout=60, env={"TMPDIR": str(tmp_path / "staging")})
    return tmp_path / ("theirs" if request.param == "no-archive" else "theirs.mar")


def test_tells_what_is_in_theirs(their_archive: Path) -> None:
    info = inspect_archive(their_archive)
    assert (info.name, info.version, info.handler) == ("theirs", "3.0", "plain_bot.py")
    assert (info.frontend_keys, info.handler_section) == ({"batchSize": 4}, {"integrity": "verify"})
    assert (info.architecture, info.num_parameters) == ("LlamaForCausalLM", 64 * 16)
    assert not info.is_hashed
    report = verify_archive(their_archive)
    assert report.ok
    assert not report.is_hashed


def test_what_is_no_archive_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such archive"):
        inspect_archive(tmp_path / "nowhere.mar")
    (tmp_path / "noise.mar").write_bytes(b"noise" * 100)
    with pytest.raises(ArchiverError, match=r"damaged or no .mar file"):
        inspect_archive(tmp_path / "noise.mar")
    with ZipFile(tmp_path / "plain.mar", "w") as archive:
        archive.writestr("a.txt", "")
    with pytest.raises(ArchiverError, match=r"has no MAR-INF/MANIFEST.json"):
        inspect_archive(tmp_path / "plain.mar")
    with pytest.raises(ArchiverError, match=r"has no MAR-INF/MANIFEST.json"):
        inspect_archive(tmp_path)


def test_broken_weights_are_named(make_spec: Callable[..., ArchiveSpec]) -> None:
    archive = build_archive(make_spec(format="dir"))
    with (archive / "model/model.safetensors").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(ArchiverError, match=r"^model/model.safetensors "):
        inspect_archive(archive)
