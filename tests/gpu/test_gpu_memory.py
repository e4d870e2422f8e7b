"""What a plan says of a GPU's memory, against what torch and the driver say once the model is there and serves."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from archiver.plan.command import PlanOptions, plan_for
from archiver.plan.target import TargetOptions
from handlers.memory_ledger import PLAN_FILE, MemoryLedger, read_memory_ledger
from tests.checkpoints import make_checkpoint

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("engine_worker.py")
MIB = 1 << 20
FRACTION = 0.4
SHAPE = {
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "max_position_embeddings": 4096,
}


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of 90 million parameters, with the plan for one of this machine's GPUs."""
    directory = tmp_path_factory.mktemp("archive")
    make_checkpoint(directory / "model", dtype="bfloat16", **SHAPE)
    options = PlanOptions(
        model=str(directory / "model"),
        target=TargetOptions(auto=True, count=1),
        engine="marquee",
        settings={"memory_fraction": FRACTION},
    )
    plan, _ = plan_for(options)
    (directory / PLAN_FILE).write_bytes(plan.to_json())
    return directory


@pytest.fixture(scope="module")
def ledger(model_dir: Path) -> MemoryLedger:
    """What was predicted."""
    ledger = read_memory_ledger(model_dir)
    assert ledger is not None and ledger.device == "cuda"
    return ledger


def used_bytes() -> int:
    """What all processes have taken of the first GPU, as the driver says."""
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) * MIB


@contextmanager
def workers(model_dir: Path, count: int) -> Iterator[list[dict[str, Any]]]:
    """Start engines at once; give what they tell when all of them have served, while they keep their memory."""
    command = [sys.executable, str(WORKER), str(model_dir), str(FRACTION)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environment = {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "0"}
    processes = [
        subprocess.Popen(["env", *(f"{name}={value}" for name, value in environment.items()), *command], **pipes) for _ in range(count)
    ]
    try:
        yield [json.loads(_last_line(process)) for process in processes]
    finally:
        for process in processes:
            process.communicate()


def _last_line(process: subprocess.Popen[str]) -> str:
    """Return the JSON that a worker prints last; what it prints before is its log."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            return line
    raise AssertionError(f"the engine process has ended with {process.wait()}")


def test_every_part_is_within_the_prediction_and_torch_and_the_driver_say_the_same(model_dir: Path, ledger: MemoryLedger) -> None:
    before = used_bytes()
    with workers(model_dir, 1) as [told]:
        taken = used_bytes() - before
    stats = told["stats"]

    assert stats["weight_bytes"] in ledger.total("weights")
    assert stats["activation_bytes"] in ledger.total("activations", "logits")
    assert stats["context_bytes"] in ledger.total("context")
    assert stats["kv_bytes"] in ledger.total("kv_cache")

    held = stats["weight_bytes"] + stats["kv_bytes"]
    assert told["allocated"] == pytest.approx(held, rel=0.02, abs=16 * MIB)
    # The driver counts what torch keeps for the next step too, and the libraries' kernels, which are loaded as they are needed.
    all_parts = held + stats["activation_bytes"] + stats["context_bytes"]
    assert held < taken == pytest.approx(all_parts, rel=0.05, abs=256 * MIB)


def test_serving_stays_within_the_share_and_never_runs_out(model_dir: Path, ledger: MemoryLedger) -> None:
    with workers(model_dir, 1) as [told]:
        stats = told["stats"]
    assert stats["out_of_memory"] == 0
    assert told["peak_reserved"] + stats["context_bytes"] <= FRACTION * ledger.device_bytes + 64 * MIB


def test_two_engines_that_start_at_once_share_the_gpu(model_dir: Path, ledger: MemoryLedger) -> None:
    before = used_bytes()
    with workers(model_dir, 2) as both:
        taken = used_bytes() - before
    assert taken <= 2 * FRACTION * ledger.device_bytes + 128 * MIB
    for told in both:
        assert told["stats"]["out_of_memory"] == 0
        assert told["stats"]["context_bytes"] in ledger.total("context")
        assert told["stats"]["kv_bytes"] > 0
