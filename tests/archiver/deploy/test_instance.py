"""Runtime directories: private, short, and removed when their owner is gone."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from archiver.deploy.instance import create_instance, served_archives
from archiver.errors import ArchiverError


@pytest.fixture(autouse=True)
def base(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    temp = tmp_path_factory.mktemp("t")
    monkeypatch.setattr("tempfile.tempdir", str(temp))
    monkeypatch.setattr("archiver.deploy.instance._LONGEST_BASE", 1000)
    return temp / f"marquee-{os.getuid()}"


def test_nobody_else_may_look_inside(base):
    instance = create_instance(8080)
    assert instance.root.parent == base
    assert base.stat().st_mode & 0o777 == instance.root.stat().st_mode & 0o777 == 0o700
    instance.close(keep_logs=False)
    assert list(base.iterdir()) == []


def test_a_long_temp_directory_is_not_used_because_sockets_have_short_paths(monkeypatch):
    monkeypatch.setattr("archiver.deploy.instance._LONGEST_BASE", 5)
    instance = create_instance(8080)
    assert len(str(instance.tmp / ".ts.sock.9000")) < 60
    instance.close(keep_logs=False)


def test_two_on_one_port_share_nothing():
    one, other = create_instance(8080), create_instance(8080)
    assert one.root != other.root
    assert one.root.exists()
    one.close(keep_logs=False)
    other.close(keep_logs=False)


def test_kept_logs_last_until_the_next_start():
    failed = create_instance(8080)
    failed.close(keep_logs=True)
    failed.close(keep_logs=True)  # closing again changes nothing
    assert failed.logs.exists()
    create_instance(9090).close(keep_logs=False)
    assert not failed.root.exists()


OWNER = """
import sys
from archiver.deploy.instance import create_instance

owned = create_instance(1)
print(owned.root, flush=True)
sys.stdin.read()
"""


def test_the_directory_of_a_killed_owner_is_removed_and_a_living_ones_is_not():
    # A temp directory with a short path, as the owner has the real limit.
    with tempfile.TemporaryDirectory(dir="/tmp") as temp:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": temp}
        command = [sys.executable, "-c", OWNER]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as owner:
            assert owner.stdout is not None
            root = Path(owner.stdout.readline().strip())
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment, check=True)
            assert root.exists()
            owner.kill()
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment, check=True)
        assert not root.exists()


def test_a_base_that_others_can_write_is_refused(base):
    base.mkdir(mode=0o777)
    base.chmod(0o777)
    with pytest.raises(ArchiverError, match="not a private directory"):
        create_instance(8080)


def test_knows_what_is_served(tmp_path):
    archive = tmp_path / "bot"
    archive.mkdir()
    instance = create_instance(8080)
    (instance.model_store / "bot").symlink_to(archive)
    assert served_archives() == {archive}
    instance.close(keep_logs=False)
    assert served_archives() == set()
