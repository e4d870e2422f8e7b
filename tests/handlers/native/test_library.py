"""Compiling the kernels: once, privately, and never a reason not to start."""

import shutil
from pathlib import Path

import pytest

from handlers.native.library import load_library

HAS_COMPILER = any(map(shutil.which, ("cc", "gcc", "clang")))


def test_a_library_is_compiled_once_and_kept_private(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = tmp_path / "answer.c"
    source.write_text("int answer(void) { return 42; }")
    if not HAS_COMPILER:
        pytest.skip("no C compiler")
    assert load_library(source).answer() == 42
    [compiled] = (tmp_path / "marquee" / "native").iterdir()
    assert compiled.parent.stat().st_mode & 0o077 == 0
    before = compiled.stat().st_mtime_ns
    assert load_library(source).answer() == 42
    assert compiled.stat().st_mtime_ns == before


@pytest.mark.parametrize("code", ["this is not C", "#error no"])
def test_code_that_does_not_compile_is_not_used(tmp_path, monkeypatch, code):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = tmp_path / "broken.c"
    source.write_text(code)
    assert load_library(source) is None
    assert not list((tmp_path / "marquee" / "native").iterdir())


def test_a_cache_that_others_may_write_to_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    directory = tmp_path / "marquee" / "native"
    directory.mkdir(parents=True)
    directory.chmod(0o777)
    source = Path(tmp_path, "answer.c")
    source.write_text("int answer(void) { return 42; }")
    assert load_library(source) is None


def test_a_user_without_a_home_has_no_kernels_and_no_error(tmp_path, monkeypatch):
    def homeless(cls: type[Path]) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", classmethod(homeless))
    source = tmp_path / "answer.c"
    source.write_text("int answer(void) { return 42; }")
    assert load_library(source) is None
