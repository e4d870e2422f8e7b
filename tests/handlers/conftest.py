"""A model small enough for every test, in the layout of an archive."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.checkpoints import make_checkpoint


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of an unpacked archive: a random float32 checkpoint in ``model/``."""
    directory = tmp_path_factory.mktemp("archive")
    make_checkpoint(directory / "model")
    return directory
