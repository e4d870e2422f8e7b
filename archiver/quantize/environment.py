"""Environments of their own for tools that want other packages than Marquee's, made when first needed and kept.

::

    <cache>/tools/<tool>-<hash of what is in it>/        a virtual environment; there whole, or not at all
    <cache>/tools/<tool>-<hash of what is in it>.log     what its creation printed

What is in it: the pins in ``config/tools/<tool>.txt``, and this environment's torch. Nothing is installed anywhere else.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from archiver.errors import ArchiverError

logger = logging.getLogger(__name__)

_CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def tool_python(pins: Path, announce: Callable[[str], None]) -> Path:
    """Return the interpreter of the environment with the packages that the file ``pins`` lists, which is created now if there is none.

    ``announce`` is then called with a line for the user, since that takes minutes. Processes that want the same one create it once. Raises
    ArchiverError if the packages cannot be installed.
    """
    torch = version("torch")
    tools = cache_home() / "tools"
    directory = tools / f"{pins.stem}-{_digest(pins.read_text(), torch, platform.python_version())}"
    tools.mkdir(parents=True, exist_ok=True)
    with _exclusive(directory.with_suffix(".lock")):
        if not directory.exists():
            announce(f"creating an environment for {pins.stem} in {directory}, once: it takes minutes, and 1.5 GB, with CUDA several")
            _create(directory, pins, torch)
    return directory / "bin" / "python"


def cache_home() -> Path:
    """Return Marquee's directory for what can be made again: ``~/.cache/marquee`` (``XDG_CACHE_HOME``)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "marquee"


def _create(directory: Path, pins: Path, torch: str) -> None:
    """Install beside the final place, and move there. Only the scripts in ``bin/`` know where they were; we call the interpreter alone."""
    staged = directory.with_suffix(".part")
    shutil.rmtree(staged, ignore_errors=True)  # of one that was killed: we have the lock
    log = directory.with_suffix(".log")
    try:
        venv.create(staged, with_pip=True, symlinks=True)
        if not _install_torch(staged, torch, log):
            logger.warning("no CPU build of torch %s within reach: taking the one on PyPI", torch)
        if not _pip(staged, log, "--requirement", pins, f"torch=={torch.partition('+')[0]}"):
            reasons = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("ERROR")]
            raise ArchiverError(f"cannot install what {pins.name} lists: {(reasons or ['pip failed'])[-1]} (its log: {log})")
        staged.rename(directory)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _install_torch(environment: Path, torch: str, log: Path) -> bool:
    """Where torch here is a CPU build, install one there: a wheel that pip finds locally, else PyTorch's own. PyPI's brings CUDA along."""
    public, _, local = torch.partition("+")
    if local != "cpu":
        return True
    wanted = ("--no-deps", f"torch=={public}")
    return _pip(environment, log, "--no-index", *wanted) or _pip(
        environment, log, "--timeout", "15", "--retries", "0", "--index-url", _CPU_INDEX, *wanted
    )


def _pip(environment: Path, log: Path, *arguments: str | Path) -> bool:
    python = environment / "bin" / "python"
    command = [python, "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet", *arguments]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    with log.open("ab") as output:
        return subprocess.run(command, env=clean, stdout=output, stderr=output, check=False).returncode == 0


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
