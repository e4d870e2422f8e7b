"""A worker keeps to the GPUs that TorchServe has given it. There are none here: torch and the environment are asked what it would do."""

from __future__ import annotations

import os

import pytest
import torch

from handlers.config import ModelConfig
from handlers.engine.process.placement import divide
from handlers.weights.checkpoint import Checkpoint
from handlers.worker_gpus import show_engines_their_gpus, use_own_gpu


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The devices that torch was told to use."""
    devices: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", devices.append)
    return devices


@pytest.mark.parametrize(("gpu_id", "expected"), [(3, [3]), (0, [0]), (None, []), (-1, [])])
def test_each_worker_of_several_has_its_own(chosen: list[int], gpu_id: int | None, expected: list[int]) -> None:
    use_own_gpu(gpu_id)
    assert chosen == expected


@pytest.mark.parametrize(
    ("keys", "visible", "expected"),
    [
        ({}, None, None),
        ({}, "4,5", "4,5"),
        ({"deviceIds": [1, 3]}, None, "1,3"),
        ({"deviceIds": [1, 3]}, "GPU-a,GPU-b,GPU-c,GPU-d", "GPU-b,GPU-d"),
        ({"deviceIds": [0, 7]}, "4,5", "4"),
        ({"deviceType": "cpu", "deviceIds": [0]}, "4,5", ""),
    ],
)
def test_engines_see_what_the_configuration_leaves_them(monkeypatch: pytest.MonkeyPatch, keys, visible, expected) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    show_engines_their_gpus(keys)
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == expected


def test_replicas_divide_the_gpus_of_their_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    show_engines_their_gpus({"deviceIds": [2, 3]})
    assert [place.gpus for place in divide(2)] == [("2",), ("3",)]
    assert [place.gpus for place in divide(1, num_ranks=2)] == [("2", "3")]


@pytest.mark.parametrize(("free_bytes", "expected"), [(10_000, {"": 2}), (1_000, "auto")])
def test_a_model_that_fits_into_one_gpu_is_not_spread(monkeypatch: pytest.MonkeyPatch, tmp_path, free_bytes, expected) -> None:
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(bytes(4_000))
    (tmp_path / "model-00002-of-00002.safetensors").write_bytes(bytes(4_000))
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free_bytes, 80_000))
    assert Checkpoint.open(tmp_path, ModelConfig())._device_map() == expected
