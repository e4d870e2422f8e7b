"""A real model with a plan in its directory, on this machine's CPU: within the prediction, and above it by each policy."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import pytest

from handlers import CausalLMHandler
from handlers.config import EngineConfig, HandlerConfig
from handlers.engine.client import EngineClient
from handlers.engine.control import describe_memory
from handlers.errors import ConfigError
from handlers.memory_ledger import PLAN_FILE, Interval, LedgerLine, MemoryLedger, Part, read_memory_ledger

TINYCHAT = Path(__file__).parents[4] / "examples" / "tinychat" / "model"
MB = 1e6


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    (tmp_path / "model").symlink_to(TINYCHAT)
    return tmp_path


@contextmanager
def loaded(model_dir: Path, **engine: object) -> Iterator[EngineClient]:
    handler = CausalLMHandler()
    handler.model_dir, handler.model_name, handler.model_version = model_dir, "tinychat", "1.0"
    handler.config = HandlerConfig(engine=EngineConfig(num_threads=1, **engine))  # type: ignore[arg-type]
    client = handler.build_engine()
    try:
        yield client
    finally:
        client.close()


def plant(model_dir: Path, device: Literal["cuda", "cpu"] = "cpu", **changed: Interval) -> MemoryLedger:
    """Write a plan that this model keeps to, but for what is ``changed``, and return its ledger."""
    parts: dict[Part, Interval] = {
        # Two bytes a number or four: bfloat16 or float32, as the processor's instructions are.
        "weights": Interval(7 * MB, 8 * MB, 20 * MB),
        "kv_cache": Interval(150 * MB, 170 * MB, 350 * MB),
        "activations": Interval(0, 10 * MB, 50 * MB),
        "logits": Interval(0, 1 * MB, 10 * MB),
        "context": Interval(0, 500 * MB, 5000 * MB),
    }
    lines = tuple(LedgerLine(part, "as a test says", changed.get(part, interval)) for part, interval in parts.items())
    ledger = MemoryLedger(device, "the planner's", 8 << 30, lines)
    (model_dir / PLAN_FILE).write_text(json.dumps({"schema": 1, "ledger": asdict(ledger)}))
    return ledger


def test_what_was_measured_and_predicted_is_told(model_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    planted = plant(model_dir)
    assert read_memory_ledger(model_dir) == planted
    with caplog.at_level(logging.INFO), loaded(model_dir, memory_policy="refuse") as engine:
        told = describe_memory(engine, planted)["memory"]
        stats = engine.stats()
    assert "memory: weights" in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING and record.name.startswith("handlers.")]
    assert told["predicted"]["weights"] == {"low": 7 * MB, "expected": 8 * MB, "high": 20 * MB}
    assert (told["engines"], stats.max_running) == (1, 64)
    assert told["measured"]["weights"] == stats.weight_bytes > 7 * MB
    assert told["measured"]["kv_cache"] == stats.kv_bytes > 100 * MB
    assert 0 < told["measured"]["activations"] == stats.activation_bytes < 50 * MB
    assert told["measured"]["context"] == stats.context_bytes > 100 * MB


def test_warn_says_so_in_the_log(model_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    plant(model_dir, weights=Interval(1, 2, 3))
    with loaded(model_dir, max_running=4) as engine:
        assert engine.limits.max_running == 4
    assert "memory: weights" in caplog.text
    assert "above the predicted 0.0 to 0.0 MB" in caplog.text


def test_shrink_lets_fewer_sequences_run(model_dir: Path) -> None:
    with loaded(model_dir) as engine:
        whole = engine.stats()
    half = whole.kv_bytes // 2
    exact = {"weights": whole.weight_bytes, "activations": whole.activation_bytes, "logits": 0, "context": whole.context_bytes - half}
    plant(model_dir, **{part: Interval.exact(size) for part, size in exact.items()}, kv_cache=Interval.exact(whole.kv_bytes))
    with loaded(model_dir, memory_policy="shrink") as engine:
        shrunk, limits = engine.stats(), engine.limits
    # Half of the cache, and what the process itself grows by from load to load.
    excess = shrunk.weight_bytes + shrunk.activation_bytes + shrunk.context_bytes - sum(exact.values())
    assert excess == pytest.approx(half, rel=0.5)
    assert shrunk.max_running == limits.max_running == 64 * (whole.kv_bytes - excess) // whole.kv_bytes
    assert shrunk.kv_bytes == whole.kv_bytes * shrunk.max_running // 64


def test_refuse_is_one_line_with_the_numbers(model_dir: Path) -> None:
    plant(model_dir, weights=Interval(1, 2, 3 * MB))
    message = r"^more memory was taken than planned: weights \d+\.\d MB, above the predicted 0\.0 to 3\.0 MB\. Plan again .*$"
    with pytest.raises(ConfigError, match=message), loaded(model_dir, memory_policy="refuse"):
        pass


def test_a_plan_for_a_gpu_is_not_compared(model_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    plant(model_dir, device="cuda", weights=Interval(1, 2, 3))
    with caplog.at_level(logging.INFO), loaded(model_dir, memory_policy="refuse"):
        pass
    assert "the plan in the archive is for another device, the planner's" in caplog.text


def test_a_damaged_plan_is_said_so(model_dir: Path) -> None:
    (model_dir / PLAN_FILE).write_text("{")
    with pytest.raises(ConfigError, match=r"plan\.json"), loaded(model_dir):
        pass
