"""The manifest is torch-model-archiver's, and its time stamp reproducible."""

from __future__ import annotations

import json

import pytest
from model_archiver.manifest_components.manifest import Manifest as TheirManifest
from model_archiver.manifest_components.model import Model as TheirModel

from archiver.errors import ArchiverError, UsageError
from archiver.package.manifest import create_manifest, parse_manifest


def test_has_the_keys_of_torch_model_archiver(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = TheirModel("bot", None, "bot.py", model_version="1.0", requirements_file="requirements.txt", config_file="model-config.yaml")
    ours = create_manifest("bot", "1.0", "bot.py", config_file="model-config.yaml", requirements_file="requirements.txt")
    expected = json.loads(str(TheirManifest("python", theirs)))
    content = json.loads(ours.to_json())
    assert content.keys() == expected.keys()
    assert content["model"] == expected["model"]
    assert (content["runtime"], content["archiverVersion"]) == (expected["runtime"], expected["archiverVersion"])


def test_time_is_constant_or_the_one_that_the_build_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def created_on() -> str | None:
        return create_manifest("bot", "1.0", "bot.py", config_file="c", requirements_file=None).created_on

    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    assert created_on() == "01/01/1980 00:00:00"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert created_on() == "14/11/2023 22:13:20"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH"):
        created_on()


def test_keeps_keys_that_it_does_not_know() -> None:
    manifest = parse_manifest(b'{"model": {"modelName": "m", "handler": "h.py", "extensions": {"a": 1}}, "new": 2}', "x.mar")
    content = json.loads(manifest.to_json())
    assert (content["new"], content["model"]["extensions"]) == (2, {"a": 1})


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"model": {"modelName": 3, "handler": "h"}}'])
def test_refuses_what_is_no_manifest(data: bytes) -> None:
    with pytest.raises(ArchiverError, match=r"x.mar: MAR-INF/MANIFEST.json is not a TorchServe manifest"):
        parse_manifest(data, "x.mar")
