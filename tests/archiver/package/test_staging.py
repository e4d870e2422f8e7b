"""A file or a directory appears whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from archiver.package.staging import staged_directory, staged_file


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_file_appears_at_the_end_and_is_readable_by_others(tmp_path: Path) -> None:
    with staged_file(tmp_path / "x.mar") as staged:
        staged.write_text("new")
        assert all(name.startswith(".") for name in names(tmp_path))
    assert names(tmp_path) == ["x.mar"]
    assert (tmp_path / "x.mar").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_interrupted_file_leaves_the_earlier_one(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "x.mar").write_text("old")
    with pytest.raises(error), staged_file(tmp_path / "x.mar") as staged:
        staged.write_text("partial")
        raise error
    assert names(tmp_path) == ["x.mar"]
    assert (tmp_path / "x.mar").read_text() == "old"


def test_a_directory_replaces_the_earlier_one_whole(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x/old").touch()
    with staged_directory(tmp_path / "x") as staged:
        (staged / "new").touch()
        assert names(tmp_path / "x") == ["old"]
    assert names(tmp_path) == ["x"]
    assert names(tmp_path / "x") == ["new"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_directory_leaves_the_earlier_one(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x/old").touch()
    with pytest.raises(error), staged_directory(tmp_path / "x") as staged:
        (staged / "new").touch()
        raise error
    assert names(tmp_path) == ["x"]
    assert names(tmp_path / "x") == ["old"]


def test_a_directory_that_cannot_be_put_in_place_leaves_the_earlier_one(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x/old").touch()
    with pytest.raises(FileNotFoundError), staged_directory(tmp_path / "x") as staged:
        staged.rmdir()
    assert names(tmp_path) == ["x"]
    assert names(tmp_path / "x") == ["old"]
