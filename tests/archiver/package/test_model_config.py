"""model-config.yaml: the class's keys, the user's over them, and only what was set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from archiver.errors import UsageError
from archiver.package.model_config import load_model_config, render_model_config

CONTINUOUS = {"continuousBatching": True, "batchSize": 256, "maxBatchDelay": 1, "minWorkers": 1, "maxWorkers": 1}
STATIC = {"batchSize": 8, "maxBatchDelay": 50, "minWorkers": 1, "maxWorkers": 1}


def render(user: dict[str, Any], keys: dict[str, Any]) -> dict[str, Any]:
    return dict(yaml.safe_load(render_model_config(user, keys, "Bot")) or {})


@pytest.fixture
def user_file(tmp_path: Path) -> Path:
    file = tmp_path / "mine.yaml"
    file.write_text("responseTimeout: 9\nhandler:\n  engine: {max_running: 4, max_waiting: 2}\n  integrity: required\n")
    return file


def test_settings_win_over_the_file_key_by_key(user_file: Path) -> None:
    merged = load_model_config(user_file, {"engine": {"max_running": 5}, "stream": {"flush_ms": 1}})
    assert merged["responseTimeout"] == 9
    assert merged["handler"] == {"engine": {"max_running": 5, "max_waiting": 2}, "integrity": "required", "stream": {"flush_ms": 1}}


def test_nothing_set_leaves_the_class_s_keys_alone() -> None:
    assert load_model_config(None, {}) == {}
    assert render({}, CONTINUOUS) == CONTINUOUS
    assert render({}, {}) == {}


def test_the_user_s_frontend_keys_win() -> None:
    content = render({"batchSize": 32, "maxWorkers": 4, "anything": 1, "handler": {"integrity": "off"}}, STATIC)
    assert content == {**STATIC, "batchSize": 32, "maxWorkers": 4, "anything": 1, "handler": {"integrity": "off"}}


@pytest.mark.parametrize(
    ("user", "keys"),
    [
        ({"continuousBatching": False}, CONTINUOUS),
        ({"batchSize": 8}, CONTINUOUS),
        ({"continuousBatching": True}, STATIC),
        ({"maxWorkers": 2}, CONTINUOUS),
    ],
)
def test_refuses_a_key_that_the_class_insists_on(user: dict[str, Any], keys: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(user))}: .* does not fit Bot"):
        render(user, keys)
    assert render({key: keys.get(key, False) for key in user}, keys)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is not YAML"),
        ("- a", "must hold a mapping"),
        ("handler: 3", "must hold a mapping"),
        ("handler: {engin: {}}", "handler.engin: unknown key; did you mean 'engine'"),
        ("handler: {engine: {max_running: many}}", "handler.engine.max_running"),
        ("a: \x00", "is not YAML"),
    ],
)
def test_says_what_is_wrong_with_a_file(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        load_model_config(tmp_path / "x.yaml", {})
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*x.yaml"):
        load_model_config(tmp_path / "x.yaml", {})
