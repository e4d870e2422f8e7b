"""Compile the kernels for this very processor, once, and load them."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from handlers.native.private_cache import private_cache

logger = logging.getLogger(__name__)

_FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-shared", "-fPIC")
_COMPILERS = ("cc", "gcc", "clang")
_TIMEOUT_S = 120


@functools.cache
def load_kernels(name: str) -> ctypes.CDLL | None:
    """Return the library made of ``name``.c beside this file; None where the processor lacks AVX512-BF16, or there is no compiler."""
    cpuinfo = Path("/proc/cpuinfo")
    if sys.platform != "linux" or "avx512_bf16" not in cpuinfo.read_text():
        return None
    library = load_library(Path(__file__).with_name(f"{name}.c"))
    return library if library is not None and library.marquee_prepare() == 0 else None


def load_library(source: Path) -> ctypes.CDLL | None:
    """Return the compiled ``source``; None, with the reason in the log, where it cannot be compiled or loaded.

    The result is kept in a directory that only this user may write (``XDG_CACHE_HOME``), under a name made of the sources beside it, the
    compiler and the processor. Takes about a second the first time.
    """
    try:
        compiler = next(path for name in _COMPILERS if (path := shutil.which(name)))
        library = private_cache("native") / f"{source.stem}-{_fingerprint(source, compiler)}.so"
        if not library.exists():
            _compile(compiler, source, library)
        return ctypes.CDLL(str(library))
    except StopIteration:
        logger.info("no C compiler: %s is not used", source.stem)
    except subprocess.CalledProcessError as error:
        logger.info("%s cannot be compiled here and is not used: %s", source.name, error.stderr.strip()[-300:])
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.info("%s is not used: %s", source.name, error)
    return None


def _compile(compiler: str, source: Path, library: Path) -> None:
    """Write ``library`` whole or not at all, whoever else is compiling it."""
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        output = Path(scratch, library.name)
        command = [compiler, *_FLAGS, str(source), "-o", str(output), "-lm"]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_TIMEOUT_S)
        output.rename(library)


def _fingerprint(source: Path, compiler: str) -> str:
    version = subprocess.run([compiler, "--version"], check=True, capture_output=True, text=True, timeout=_TIMEOUT_S).stdout
    files = sorted(source.parent.glob("*.[ch]"))  # with the headers
    parts = (*(file.read_text() for file in files), version, _processor(), " ".join(_FLAGS))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _processor() -> str:
    """Return what this processor can do: "native" code of one may be illegal on another that shares the home directory."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith("flags")), platform.processor())
