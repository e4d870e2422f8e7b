"""Archives that must not be served: the start fails, and its message names what to change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from archiver.deploy.launch import TorchServe
from archiver.deploy.management import LoadFailed
from archiver.deploy.served_model import ServedModel

pytestmark = [pytest.mark.torchserve, pytest.mark.timeout(300)]

Build = Callable[..., Path]


def load_failure(archive: Path) -> str:
    with pytest.raises(LoadFailed) as failure:
        TorchServe.start([ServedModel.from_archive(archive)])
    return str(failure.value)


def test_a_flipped_bit_in_the_weights_is_found_and_named(build: Build) -> None:
    archive = build("flipped", format="dir")
    weights = archive / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)

    assert "altered model/model.safetensors" in load_failure(archive)


def test_a_wrong_frontend_mode_is_named(build: Build) -> None:
    archive = build("miskeyed", format="dir")
    config = archive / "model-config.yaml"
    line = "continuousBatching: true\n"
    assert line in config.read_text()
    config.write_text(config.read_text().replace(line, ""))

    assert line.strip() in load_failure(archive)
