"""A model small enough for every test, in the layout of an archive."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from handlers.native import library
from tests.checkpoints import make_checkpoint

_CPUINFO = Path("/proc/cpuinfo")
_CAN_RUN_KERNELS = any(map(shutil.which, ("cc", "gcc", "clang"))) and _CPUINFO.exists() and "avx512_bf16" in _CPUINFO.read_text()
_WITHOUT_TILES = ("-mno-amx-tile", "-mno-amx-bf16", "-mno-amx-int8")


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """The directory of an unpacked archive: a random float32 checkpoint in ``model/``."""
    directory = tmp_path_factory.mktemp("archive")
    make_checkpoint(directory / "model")
    return directory


@pytest.fixture(scope="session")
def one_thread() -> Iterator[None]:
    """Torch's threads wait for each other by spinning, which on a busy machine takes longer than all the work of a tiny model."""
    import torch

    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture(params=["tiles", "vectors"])
def instructions(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Compile the kernels for processors with AMX (if this is one) and for those without; once for all tests."""
    if not _CAN_RUN_KERNELS:
        pytest.skip("needs a C compiler and a processor with AVX512-BF16")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "native"))
    if request.param == "vectors":
        monkeypatch.setattr(library, "_FLAGS", (*library._FLAGS, *_WITHOUT_TILES))
    library.load_kernels.cache_clear()
    yield
    library.load_kernels.cache_clear()
