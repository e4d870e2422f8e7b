"""A second worker of a continuous model is refused, and nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from handlers.errors import ConfigError
from handlers.worker_directory import worker_directory
from handlers.worker_lock import claim_only_worker

ROOT = Path(__file__).parents[2]
# A worker is a child of the frontend; both of these are children of the test.
CLAIM = "from handlers.worker_lock import claim_only_worker; lock = claim_only_worker('tiny', '1.0'); print('claimed', flush=True); input()"


def start_worker(temp: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"TMPDIR": str(temp)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", CLAIM], text=True, cwd=ROOT, env=environment, **pipes)  # type: ignore[call-overload, no-any-return]


@pytest.fixture
def first(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    worker = start_worker(tmp_path)
    assert worker.stdout is not None and worker.stdout.readline() == "claimed\n"
    yield worker
    worker.kill()
    worker.communicate()


def test_a_second_process_is_refused_and_told_how_to_scale(first: subprocess.Popen[str], tmp_path: Path) -> None:
    _, error = start_worker(tmp_path).communicate(timeout=30)

    assert "ConfigError: tiny 1.0 already has a worker" in error
    assert "marquee models scale tiny N" in error


def test_the_lock_goes_with_its_process(first: subprocess.Popen[str], tmp_path: Path) -> None:
    first.kill()
    first.communicate()

    output, error = start_worker(tmp_path).communicate("\n", timeout=30)

    assert output == "claimed\n", error


def test_other_models_and_versions_are_free(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    claims = [claim_only_worker(model, version) for model, version in (("tiny", "1.0"), ("tiny", "2.0"), ("other", "1.0"))]
    with pytest.raises(ConfigError):
        claim_only_worker("tiny", "1.0")
    for claim in claims:
        claim.close()
    claim_only_worker("tiny", "1.0").close()


def test_the_directory_is_private(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    claim = claim_only_worker("tiny", "1.0")
    claim.close()

    (root,) = tmp_path.iterdir()
    assert Path(claim.name).parent == worker_directory(os.getppid(), "tiny", "1.0")
    assert root.name == f"marquee-{os.getuid()}"
    assert root.stat().st_mode & 0o777 == 0o700
    assert [path.relative_to(root).parts for path in root.rglob("worker.lock")] == [(str(os.getppid()), "tiny", "1.0", "worker.lock")]
