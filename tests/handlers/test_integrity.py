"""The worker's check of a model directory: what is altered, missing or added is named; what TorchServe itself adds is not."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import pytest

from handlers.errors import IntegrityError
from handlers.integrity import (
    BLOCK_BYTES,
    INTEGRITY_FILE,
    MANIFEST_FILE,
    IntegrityRecord,
    MemberHash,
    combine_blocks,
    hash_bytes,
    installed_versions,
    verify_directory,
)

MEMBERS = {
    "handler.py": b"class Bot: ...\n",
    "model/model.safetensors": bytes(range(256)) * 10,
    "model/empty.json": b"",
    MANIFEST_FILE: b'{"model": {"handler": "handler.py"}}',
}


def write_record(directory: Path, versions: dict[str, str] | None = None) -> None:
    files = [file for file in directory.rglob("*") if file.is_file()]
    members = {file.relative_to(directory).as_posix(): hash_bytes(file.read_bytes()) for file in files}
    (directory / INTEGRITY_FILE).write_bytes(IntegrityRecord(members, versions or {}).to_json())


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    directory = tmp_path / "unpacked"
    for path, data in MEMBERS.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(data)
    write_record(directory)
    return directory


def declare_requirements(directory: Path) -> None:
    (directory / INTEGRITY_FILE).unlink()
    (directory / MANIFEST_FILE).write_text(json.dumps({"model": {"handler": "handler.py", "requirementsFile": "requirements.txt"}}))
    (directory / "requirements.txt").write_text("six\n")
    write_record(directory)


def test_accepts_what_was_packaged_and_reports_progress(model_dir: Path) -> None:
    steps: list[tuple[int, int]] = []
    verify_directory(model_dir, required=True, progress=lambda done, total: steps.append((done, total)))
    total = sum(map(len, MEMBERS.values()))
    assert steps[-1] == (total, total)
    assert steps == sorted(steps)


def test_follows_the_symbolic_link_that_torchserve_makes(model_dir: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(model_dir)
    verify_directory(link)
    (model_dir / "extra.py").touch()
    with pytest.raises(IntegrityError, match="added extra.py"):
        verify_directory(link)


@pytest.mark.parametrize("path", sorted(MEMBERS.keys() - {"model/empty.json"}))
def test_names_the_member_with_a_flipped_bit(model_dir: Path, path: str) -> None:
    data = bytearray((model_dir / path).read_bytes())
    data[len(data) // 2] ^= 1
    (model_dir / path).write_bytes(data)
    with pytest.raises(IntegrityError, match=f"altered {path};"):
        verify_directory(model_dir)


def test_names_a_flipped_bit_behind_the_first_block(model_dir: Path) -> None:
    weights = model_dir / "model/model.safetensors"
    with weights.open("wb") as file:
        file.truncate(BLOCK_BYTES + 10)
    zeros = [hashlib.sha256(bytes(size)).digest() for size in (BLOCK_BYTES, 10)]
    record = IntegrityRecord.from_json((model_dir / INTEGRITY_FILE).read_bytes())
    members = {**record.members, "model/model.safetensors": MemberHash(combine_blocks(zeros), BLOCK_BYTES + 10)}
    (model_dir / INTEGRITY_FILE).write_bytes(IntegrityRecord(members).to_json())
    verify_directory(model_dir)
    with weights.open("r+b") as file:
        file.seek(BLOCK_BYTES + 5)
        file.write(b"\1")
    with pytest.raises(IntegrityError, match=r"altered model/model.safetensors"):
        verify_directory(model_dir)


def test_names_missing_and_shortened_members(model_dir: Path) -> None:
    (model_dir / "handler.py").unlink()
    (model_dir / "model/model.safetensors").write_bytes(b"short")
    with pytest.raises(IntegrityError, match=r"missing handler.py; altered model/model.safetensors \(5 bytes instead of 2560\)"):
        verify_directory(model_dir)


@pytest.mark.parametrize("path", ["torch.py", "handlers/x.so", "model/pytorch_model.bin", "model/config.json", "model/chat_template.jinja"])
def test_names_an_added_file_that_could_be_imported_or_loaded(model_dir: Path, path: str) -> None:
    (model_dir / path).parent.mkdir(exist_ok=True)
    (model_dir / path).write_bytes(b"x")
    with pytest.raises(IntegrityError, match=f"added {path}"):
        verify_directory(model_dir)


def test_sees_files_added_through_a_linked_directory(model_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/evil.py").touch()
    (model_dir / "package").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IntegrityError, match=r"added package/evil.py"):
        verify_directory(model_dir)


@pytest.mark.parametrize("path", ["__pycache__/handler.cpython-311.pyc", "model/__pycache__/x.pyc", "worker.log", "model/README.md"])
def test_ignores_caches_and_files_that_nobody_loads(model_dir: Path, path: str) -> None:
    (model_dir / path).parent.mkdir(exist_ok=True)
    (model_dir / path).write_bytes(b"x")
    verify_directory(model_dir)


def install_package(directory: Path) -> None:
    """Leave in the model directory what `pip install --target` does."""
    recorded = ["six.py", "bin/six.py", "six-1.0.dist-info/top_level.txt"]
    for path in recorded:
        (directory / path).parent.mkdir(exist_ok=True)
        (directory / path).write_text("x")
    (directory / "six-1.0.dist-info/RECORD").write_text("six.py,sha256=x,1\n../../bin/six.py,,\nsix-1.0.dist-info/top_level.txt,,\n")


def test_refuses_installed_packages_that_the_manifest_does_not_declare(model_dir: Path) -> None:
    install_package(model_dir)
    with pytest.raises(IntegrityError, match=r"added six.py"):
        verify_directory(model_dir)


def test_accepts_declared_requirements_and_nothing_beside_them(model_dir: Path) -> None:
    declare_requirements(model_dir)
    install_package(model_dir)
    (model_dir / "venv").mkdir()
    (model_dir / "venv/anything.py").touch()
    verify_directory(model_dir)
    (model_dir / "seven.py").touch()
    with pytest.raises(IntegrityError, match=r"added seven.py;"):
        verify_directory(model_dir)


def test_warns_once_of_an_archive_without_hashes(model_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    (model_dir / INTEGRITY_FILE).unlink()
    verify_directory(model_dir)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    with pytest.raises(IntegrityError, match="marquee archive"):
        verify_directory(model_dir, required=True)


def test_warns_of_other_versions_but_not_of_other_builds(model_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    (model_dir / INTEGRITY_FILE).unlink()
    python = installed_versions()["python"]
    write_record(model_dir, {"python": f"{python}+local", "torch": "0.0.1", "nonesuch": "2.0"})
    with caplog.at_level(logging.WARNING):
        verify_directory(model_dir)
    assert "python" not in caplog.text
    assert "tested with torch 0.0.1" in caplog.text
    assert "nonesuch 2.0; none is installed" in caplog.text


@pytest.mark.parametrize("data", [b"", b"[]", b'{"schema": 99}', b'{"schema": 1}', b'{"schema": 1, "members": {"a": {}}, "versions": {}}'])
def test_refuses_a_list_of_hashes_that_it_cannot_read(model_dir: Path, data: bytes) -> None:
    (model_dir / INTEGRITY_FILE).write_bytes(data)
    with pytest.raises(IntegrityError, match="build the archive again"):
        verify_directory(model_dir)


def test_record_survives_its_file() -> None:
    record = IntegrityRecord({"b": hash_bytes(b"1"), "a": hash_bytes(b"")}, {"torch": "2.13.0"})
    assert IntegrityRecord.from_json(record.to_json()) == record
