"""Archives that must not be served: the start fails, and its message names what to change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from archiver.deploy.launch import TorchServe
from archiver.deploy.readiness import LoadFailed
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


@pytest.mark.parametrize(("given", "instead", "hint"), [
    ("continuousBatching: true\n", "", "continuousBatching: true"),
    ("maxWorkers: 1\n", "maxWorkers: 2\n", "maxWorkers: 1"),
])  # fmt: skip
def test_wrong_frontend_keys_are_named(build: Build, given: str, instead: str, hint: str) -> None:
    archive = build("miskeyed", format="dir")
    config = archive / "model-config.yaml"
    assert given in config.read_text()
    config.write_text(config.read_text().replace(given, instead))

    assert hint in load_failure(archive)
