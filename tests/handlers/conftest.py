"""A model small enough for every test, in the layout of an archive."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checkpoints import make_checkpoint


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
