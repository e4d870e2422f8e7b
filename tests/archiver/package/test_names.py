"""Names and member paths: what passes can be served and unpacked anywhere."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.errors import UsageError
from archiver.package.names import check_model_name, check_model_version, path_clashes, path_problem

PARTS = st.one_of(st.sampled_from(["..", ".", "", "a", "model", "C:", "x\\y", "a b", "é", "\n", "\0"]), st.text(max_size=6))
PATHS = st.lists(PARTS, max_size=5).map("/".join)


@given(PATHS)
def test_a_path_without_problem_stays_below_any_directory(path: str) -> None:
    if path_problem(path) is None:
        joined = Path("/archive") / path
        assert joined.is_relative_to("/archive")
        assert ".." not in joined.parts
        assert PurePosixPath(path).as_posix() == path
        assert "\\" not in path


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "./a", "a/", "C:/x", "c:x", "a\\b", "a\nb", "a\0b"])
def test_refuses_paths_that_lead_elsewhere(path: str) -> None:
    assert path_problem(path)


@pytest.mark.parametrize("path", ["handler.py", "model/model-00001-of-00002.safetensors", "a b/é.txt", "..."])
def test_accepts_ordinary_paths(path: str) -> None:
    assert path_problem(path) is None


@given(st.lists(st.lists(st.sampled_from(["a", "A", "b"]), min_size=1, max_size=3).map("/".join), max_size=6))
def test_paths_without_clash_can_all_be_created(paths: list[str]) -> None:
    """The oracle is a file system in a set: a file needs its parents to be directories, and its name to be free."""
    files, directories, fails = set[str](), set[str](), False
    for path in map(str.casefold, paths):
        parents = {parent.as_posix() for parent in PurePosixPath(path).parents} - {"."}
        fails |= path in files or path in directories or bool(parents & files)
        files.add(path)
        directories |= parents
    assert bool(path_clashes(paths)) == fails


@pytest.mark.parametrize("name", ["tinychat", "Llama-3.1_8B", "7b"])
def test_accepts_names_that_torchserve_accepts(name: str) -> None:
    assert check_model_name(name) == name


@pytest.mark.parametrize("name", ["", "my model", "-x", ".hidden", "a/b", "ü", "x" * 200, "name\n"])
def test_refuses_names_that_torchserve_refuses(name: str) -> None:
    with pytest.raises(UsageError, match="--name"):
        check_model_name(name)


def test_refuses_versions_that_cannot_stand_in_a_url() -> None:
    assert check_model_version("1.0") == "1.0"
    with pytest.raises(UsageError, match="--version"):
        check_model_version("1/0")
