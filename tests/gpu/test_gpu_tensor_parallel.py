"""Two GPUs that share a model say what one says, and come back when one of their processes dies inside an exchange."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import psutil
import pytest

from handlers import CausalLMHandler
from handlers.config import EngineConfig, HandlerConfig, ModelConfig
from handlers.engine.client import EngineClient
from handlers.engine.process.client import ProcessClient, start_process_client
from handlers.engine.process.dispatcher import LOST
from handlers.engine.process.placement import visible_gpus
from handlers.requests import SamplingParams
from tests.checkpoints import make_checkpoint

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(300),
    pytest.mark.skipif(len(visible_gpus()) < 2, reason="needs two GPUs"),
]

PROMPTS = [[(31 * index + 7 * position) % 300 for position in range(1 + 17 * index)] for index in range(12)]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], ProcessClient]:
    """Return a function that starts engines over so many ranks."""
    model_dir = tmp_path_factory.mktemp("archive")
    make_checkpoint(model_dir / "model", hidden_size=256, intermediate_size=512, max_position_embeddings=4096)

    def start(num_ranks: int) -> ProcessClient:
        handler = CausalLMHandler()
        handler.model_dir, handler.model_name, handler.model_version = model_dir, "gpu", "1.0"
        engine = EngineConfig(memory_fraction=0.1, max_running=8, tensor_parallel=num_ranks)
        handler.config = HandlerConfig(model=ModelConfig(dtype="float32"), engine=engine)
        return start_process_client(handler)

    return start


@pytest.fixture(scope="module")
def two_ranks(start: Callable[[int], ProcessClient]) -> Iterator[ProcessClient]:
    client = start(2)
    yield client
    client.close()


def generate(engine: EngineClient) -> tuple[list[list[int]], set[str | None]]:
    """Return the tokens for each prompt, and the errors that there were."""
    for index, prompt in enumerate(PROMPTS):
        engine.add(str(index), prompt, SamplingParams(max_tokens=40, temperature=0.0, ignore_eos=True))
    tokens: list[list[int]] = [[] for _ in PROMPTS]
    errors, num_live = set(), len(PROMPTS)
    while num_live:
        for event in engine.poll(10.0):
            tokens[int(event.sequence_id)] += event.token_ids
            num_live -= event.finish_reason is not None
            errors |= {event.error} - {None}
    return tokens, errors


def test_two_gpus_say_what_one_says(start: Callable[[int], ProcessClient], two_ranks: ProcessClient) -> None:
    alone = start(1)
    expected, weight_bytes = generate(alone), alone.stats().weight_bytes
    alone.close()
    assert generate(two_ranks) == expected
    assert two_ranks.stats().weight_bytes < 0.7 * weight_bytes, "of one rank"


def test_a_rank_that_dies_in_an_exchange_takes_the_engine_with_it_which_comes_back(two_ranks: ProcessClient) -> None:
    before = generate(two_ranks)
    for index, prompt in enumerate(PROMPTS[:8]):
        two_ranks.add(f"long {index}", prompt, SamplingParams(max_tokens=3000, temperature=0.0, ignore_eos=True))
    events = two_ranks.poll(30.0)
    (rank,) = psutil.Process(two_ranks.replicas()[0].pid).children()
    os.kill(rank.pid, signal.SIGKILL)
    while sum(event.finish_reason is not None for event in events) < 8:
        events += two_ranks.poll(10.0)
    assert LOST in {event.error for event in events}
    assert generate(two_ranks) == before
