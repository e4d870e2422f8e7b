"""Which of the machine's GPUs a worker computes on: those that TorchServe has given it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

_VISIBLE = "CUDA_VISIBLE_DEVICES"


def use_own_gpu(gpu_id: int | None) -> None:
    """Have torch use the GPU that TorchServe has given this worker: of several workers each has its own (data parallelism)."""
    if gpu_id is None or gpu_id < 0:
        return
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(gpu_id)


def show_engines_their_gpus(keys: Mapping[str, Any]) -> None:
    """Let the engine processes of this worker see the GPUs that ``deviceIds`` and ``deviceType`` in model-config.yaml leave them.

    A continuous model has one worker, for which TorchServe picks one of them; its engines take all.
    """
    if keys.get("deviceType") == "cpu":
        os.environ[_VISIBLE] = ""
    elif device_ids := keys.get("deviceIds"):
        # TorchServe counts those that it sees itself.
        visible = os.environ.get(_VISIBLE)
        names = dict(enumerate(visible.split(","))) if visible is not None else {index: str(index) for index in device_ids}
        os.environ[_VISIBLE] = ",".join(names[index] for index in device_ids if index in names)
