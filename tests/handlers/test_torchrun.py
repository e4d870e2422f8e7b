"""What becomes of workers that TorchServe starts through torchrun: one serves, the others stand by."""

from __future__ import annotations

import os
from collections.abc import Callable

import psutil
import pytest

from handlers.causal_lm import CausalLMHandler
from handlers.config import EngineConfig, HandlerConfig
from handlers.errors import ConfigError
from handlers.idle_worker import IdleWorker
from handlers.torchrun import frontend_pid, is_idle_worker, with_ranks

KEYS = {"continuousBatching": True, "parallelType": "tp"}


@pytest.fixture
def as_rank(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return a function that makes this process one of four workers."""

    def become(rank: int) -> None:
        for name, value in (("TORCHELASTIC_RUN_ID", "none"), ("LOCAL_RANK", str(rank)), ("LOCAL_WORLD_SIZE", "4")):
            monkeypatch.setenv(name, value)

    return become


def test_without_torchrun_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setenv("LOCAL_RANK", "1")  # somebody else's
    assert not is_idle_worker()
    assert frontend_pid() == os.getppid()
    assert with_ranks(HandlerConfig(), KEYS) == HandlerConfig()
    assert isinstance(CausalLMHandler(), CausalLMHandler)


def test_the_first_worker_serves_with_a_rank_for_each(as_rank: Callable[[int], None]) -> None:
    as_rank(0)
    assert isinstance(CausalLMHandler(), CausalLMHandler)
    assert frontend_pid() == psutil.Process(os.getppid()).ppid()
    assert with_ranks(HandlerConfig(), KEYS).engine.tensor_parallel == 4
    assert with_ranks(HandlerConfig(engine=EngineConfig(tensor_parallel=8)), KEYS).engine.tensor_parallel == 8
    assert with_ranks(HandlerConfig(), {"parallelType": "tp"}) == HandlerConfig(), "not continuous"
    with pytest.raises(ConfigError, match="^parallelType: pptp is not supported: .* set handler.engine.tensor_parallel$"):
        with_ranks(HandlerConfig(), KEYS | {"parallelType": "pptp"})


def test_the_others_load_nothing_and_answer_nothing(as_rank: Callable[[int], None]) -> None:
    as_rank(3)
    worker = CausalLMHandler()
    assert isinstance(worker, IdleWorker)
    assert worker.handle([{}, {}], None) == [b"", b""]
