"""The cache of archives: found again without reading weights, rebuilt when anything changed, cleaned when useless."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from archiver.deploy.archive_cache import cache_directory, cached_archive
from archiver.package import ArchiveSpec, verify_archive
from tests.checkpoints import make_checkpoint


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "bot")


@pytest.fixture
def spec(pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArchiveSpec:
    monkeypatch.setenv("MARQUEE_CACHE", str(tmp_path / "cache"))
    return ArchiveSpec(shutil.copytree(pristine, tmp_path / "bot"), "bot")


def test_builds_a_whole_archive_of_links_once(spec):
    calls: list[int] = []
    archive = cached_archive(spec, lambda done, total: calls.append(done))
    assert calls
    assert verify_archive(archive).ok
    assert (archive / "model" / "model.safetensors").samefile(spec.source / "model.safetensors")
    calls.clear()
    assert cached_archive(spec, lambda done, total: calls.append(done)) == archive
    assert not calls


def test_a_changed_checkpoint_is_packaged_again_and_the_old_archive_removed_unless_in_use(spec, monkeypatch):
    old = cached_archive(spec)
    monkeypatch.setattr("archiver.deploy.archive_cache.served_archives", lambda: {old})
    weights = spec.source / "model.safetensors"
    os.utime(weights, ns=(0, weights.stat().st_mtime_ns + 1))
    new = cached_archive(spec)
    assert new != old
    assert old.exists()

    monkeypatch.setattr("archiver.deploy.archive_cache.served_archives", set)
    assert cached_archive(spec) == new
    assert not old.exists()


def test_version_and_handler_make_another_archive(spec, tmp_path):
    handler = tmp_path / "my_handler.py"
    handler.write_text("from handlers import CausalLMHandler\n\n\nclass Mine(CausalLMHandler):\n    pass\n")
    archives = {cached_archive(each) for each in (spec, replace(spec, version="2.0"), replace(spec, handler=handler))}
    assert len(archives) == 3


def test_archives_of_a_deleted_checkpoint_are_removed(spec, pristine):
    archive = cached_archive(spec)
    shutil.rmtree(spec.source)
    cached_archive(replace(spec, source=pristine, name="other"))
    assert not archive.parent.parent.exists()


def test_two_starts_at_once_build_one_archive(spec):
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(cached_archive, [spec, spec])
    assert first == second
    assert verify_archive(first).ok


def test_lies_beside_a_checkpoint_on_another_file_system(tmp_path, monkeypatch):
    monkeypatch.delenv("MARQUEE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    checkpoint = tmp_path / "models" / "bot"
    checkpoint.mkdir(parents=True)
    assert cache_directory(checkpoint) == tmp_path / "home" / "marquee"
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/shm")
    if Path("/dev/shm").stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("this machine has one file system only")
    assert cache_directory(checkpoint) == tmp_path / "models" / ".marquee"
    Path("/dev/shm/marquee").rmdir()
