"""Verifying an archive from elsewhere: every way to add, remove, change or hide something is found."""

from __future__ import annotations

import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import pytest

from archiver.errors import ArchiverError, UsageError
from archiver.package import verify_archive
from handlers.integrity import INTEGRITY_FILE


@pytest.fixture
def mar(built_archives: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(built_archives / "tiny.mar", tmp_path))


@pytest.fixture
def directory(built_archives: Path, tmp_path: Path) -> Path:
    return shutil.copytree(built_archives / "tiny", tmp_path / "tiny")


def problems(archive: Path) -> list[str]:
    return list(verify_archive(archive).problems)


def pack_again(mar: Path, change: Callable[[dict[str, bytes]], None], compression: int = ZIP_STORED) -> None:
    """Unpack, change the members, and pack as any ZIP tool would."""
    with ZipFile(mar) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with ZipFile(mar, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


@pytest.mark.parametrize("name", ["tiny.mar", "tiny"])
def test_a_fresh_archive_has_no_problem(built_archives: Path, name: str) -> None:
    steps: list[tuple[int, int]] = []
    report = verify_archive(built_archives / name, progress=lambda *step: steps.append(step))
    assert report.ok
    assert report.is_hashed
    assert report.to_dict()["ok"] is True
    assert steps[-1] == (report.total_bytes, report.total_bytes)


# Offsets in a local header (APPNOTE 4.3.7), and a byte of the data that follows.
FIELDS = {"signature": 0, "flags": 6, "method": 8, "crc": 14, "packed size": 18, "size": 22, "name length": 26, "name": 30, "data": None}


@pytest.mark.parametrize("path", ["MAR-INF/MANIFEST.json", "model/model.safetensors", "plain_bot.py", INTEGRITY_FILE])
def test_a_flipped_bit_is_found_wherever_it_is(mar: Path, path: str) -> None:
    original = mar.read_bytes()
    with ZipFile(mar) as archive:
        info = archive.getinfo(path)
    for field, offset in FIELDS.items():
        damaged = bytearray(original)
        damaged[info.header_offset + (30 + len(path) + info.file_size // 2 if offset is None else offset)] ^= 8
        mar.write_bytes(damaged)
        try:
            found = problems(mar)
        except ArchiverError as error:
            found = [str(error)]
        assert found, field


@pytest.mark.parametrize("path", ["model/model.safetensors", "handlers/integrity.py", "plain_bot.py", "MAR-INF/MANIFEST.json"])
def test_an_altered_member_is_named_even_if_its_crc_is_right(mar: Path, path: str) -> None:
    def alter(members: dict[str, bytes]) -> None:
        members[path] = members[path][:-1] + b" "

    pack_again(mar, alter)
    assert problems(mar) == [f"altered {path}"]


def test_a_flipped_byte_in_a_directory_is_named(directory: Path) -> None:
    weights = directory / "model/model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert problems(directory) == ["altered model/model.safetensors"]


def test_missing_and_added_members_are_named(mar: Path, directory: Path) -> None:
    def exchange(members: dict[str, bytes]) -> None:
        del members["handlers/errors.py"]
        members["notes.md"] = b""

    pack_again(mar, exchange)
    (directory / "handlers/errors.py").unlink()
    (directory / "notes.md").touch()
    assert problems(mar) == problems(directory) == ["missing handlers/errors.py", "added notes.md"]


def test_an_archive_packed_again_with_compression_is_altered(mar: Path) -> None:
    pack_again(mar, lambda members: None, ZIP_DEFLATED)
    assert "altered model/model.safetensors" in problems(mar)


@pytest.mark.parametrize("path", ["../evil.py", "/etc/cron.d/evil", "model/../../evil", "C:/evil"])
def test_paths_that_lead_elsewhere_are_named(mar: Path, path: str) -> None:
    with ZipFile(mar, "a") as archive:
        archive.writestr(path, "")
    assert any(repr(path) in problem for problem in problems(mar))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_in_one_place_are_named(mar: Path) -> None:
    with ZipFile(mar, "a") as archive:
        archive.writestr("plain_bot.py", "evil")
        archive.writestr("PLAIN_BOT.py", "evil")
    assert {"two members at plain_bot.py", "two members at PLAIN_BOT.py"} <= set(problems(mar))


def test_symbolic_links_are_named(mar: Path, directory: Path) -> None:
    link = ZipInfo("link.py")
    link.external_attr = 0o120777 << 16
    with ZipFile(mar, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    (directory / "link.py").symlink_to("/etc/passwd")
    assert "symbolic link link.py" in problems(mar)
    assert "symbolic link link.py" in problems(directory)


def local_entry(name: str, data: bytes) -> bytes:
    header = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 0, 0, 33, zlib.crc32(data), len(data), len(data), len(name), 0)
    return header + name.encode() + data


def test_a_member_that_only_java_sees_is_found(mar: Path) -> None:
    """Python reads the directory at the end, TorchServe the local headers; one that is in no directory is unpacked all the same."""
    data = mar.read_bytes()
    with ZipFile(mar) as archive:
        start = archive.start_dir
    hidden = local_entry("sitecustomize.py", b"evil")
    end = bytearray(data[start:])
    (offset,) = struct.unpack_from("<I", end, len(end) - 6)
    struct.pack_into("<I", end, len(end) - 6, offset + len(hidden))
    mar.write_bytes(data[:start] + hidden + end)
    assert problems(mar) == ["hidden bytes before the directory at the file's end"]


def test_a_file_in_front_of_the_archive_is_found(mar: Path) -> None:
    mar.write_bytes(local_entry("sitecustomize.py", b"evil") + mar.read_bytes())
    assert problems(mar)[0].startswith("hidden bytes before")


def test_headers_that_contradict_each_other_are_found(mar: Path) -> None:
    data = bytearray(mar.read_bytes())
    with ZipFile(mar) as archive:
        info = archive.getinfo("plain_bot.py")
    data[info.header_offset + 30 : info.header_offset + 30 + len("plain_bot.py")] = b"other_bot.py"
    mar.write_bytes(data)
    assert problems(mar) == ["contradictory headers of plain_bot.py"]


def unhashed(mar: Path, compression: int) -> None:
    pack_again(mar, lambda members: members.pop(INTEGRITY_FILE) and None, compression)


def test_compressed_data_that_goes_on_behind_its_declared_size_is_damaged(mar: Path) -> None:
    """A bomb: it declares 5 bytes with a right CRC, and Java would write a million."""
    unhashed(mar, ZIP_DEFLATED)
    with ZipFile(mar, "a", ZIP_DEFLATED) as archive:
        archive.writestr("zeros.txt", bytes(10**6))
        info = archive.getinfo("zeros.txt")
    data, crc = mar.read_bytes(), zlib.crc32(bytes(5))
    sizes = struct.pack("<3I", info.CRC, info.compress_size, info.file_size)
    assert data.count(sizes) == 2
    mar.write_bytes(data.replace(sizes, struct.pack("<3I", crc, info.compress_size, 5)))
    assert problems(mar) == ["damaged zeros.txt"]


@pytest.mark.parametrize("compression", [ZIP_STORED, ZIP_DEFLATED])
def test_without_hashes_the_crc_still_finds_damage(mar: Path, compression: int) -> None:
    unhashed(mar, compression)
    with ZipFile(mar) as archive:
        info = archive.getinfo("model/model.safetensors")
    data = bytearray(mar.read_bytes())
    data[info.header_offset + 30 + len(info.filename) + 1000] ^= 1
    mar.write_bytes(data)
    report = verify_archive(mar)
    assert report.problems == ("damaged model/model.safetensors",)
    assert not report.is_hashed


def test_a_truncated_file_is_one_line(mar: Path) -> None:
    mar.write_bytes(mar.read_bytes()[:-1000])
    with pytest.raises(ArchiverError, match=r"damaged or no .mar file"):
        verify_archive(mar)


def test_a_handler_that_the_manifest_names_must_be_there(directory: Path) -> None:
    (directory / INTEGRITY_FILE).unlink()
    (directory / "plain_bot.py").unlink()
    assert problems(directory) == ["missing plain_bot.py, the manifest's handler"]


def test_what_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such archive"):
        verify_archive(tmp_path / "nowhere.mar")


def test_caches_in_a_directory_do_not_count(directory: Path) -> None:
    (directory / "__pycache__").mkdir()
    (directory / "__pycache__/plain_bot.cpython-311.pyc").touch()
    assert problems(directory) == []
