"""Thousands of interleaved requests, each with a secret of its own: nobody ever gets a token that is not a function of its own prompt."""

import random

from engine_fakes import VOCAB_SIZE, FakeRunner, continuation
from engine_rig import EngineRig, greedy

NUM_REQUESTS = 3_000
MAX_LIVE = 48


def test_no_output_depends_on_a_neighbour():
    rng = random.Random(20)
    runner = FakeRunner(num_blocks=80, block_tokens=4, max_model_len=60)
    rig = EngineRig(runner, max_running=24, prefill_chunk_tokens=64)
    runner.plans = _Nothing()
    system_prompts = [_tokens(rng, 12) for _ in range(4)]
    prompts, cancelled, num_live = {}, set(), 0
    while len(rig.outcome.last) < NUM_REQUESTS:
        while num_live < MAX_LIVE and len(prompts) < NUM_REQUESTS:
            name = str(len(prompts))
            prompts[name] = [*rng.choice(system_prompts), *_tokens(rng, rng.randint(1, 12))]
            rig.add(name, prompts[name], greedy(rng.randint(1, 30)), priority=rng.randint(0, 1))
            num_live += 1
        if rng.random() < 0.2:
            name = str(rng.randrange(len(prompts)))
            cancelled.add(name)
            rig.outcome.take(filter(None, [rig.engine.cancel(name)]))
        rig.outcome.take(rig.engine.step())
        num_live = len(prompts) - len(rig.outcome.last)
    rig.engine.check_integrity()

    for name, prompt in prompts.items():
        got = rig.outcome.token_ids[name]
        assert got == continuation(prompt, len(prompt) + len(got), frozenset())
        assert got or name in cancelled
    stats = rig.engine.stats()
    assert rig.outcome.count("length", "cancelled") == NUM_REQUESTS
    assert stats.blocks_used == 0
    assert stats.preemptions > 100, "the pool was meant to be too small"
    assert stats.cached_tokens > stats.queried_tokens / 4, "the prompts were meant to share"


def _tokens(rng: random.Random, num_tokens: int) -> list[int]:
    return [rng.randrange(VOCAB_SIZE) for _ in range(num_tokens)]


class _Nothing(list):
    """Keeps no plan: there will be thousands."""

    def append(self, plan) -> None:
        pass
