"""Guesses change how many steps an answer takes, and nothing else: greedy or sampled, whoever guesses, on every runner."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest
import torch
from engine_fakes import FakeDrafter, FakeRunner, continuation
from engine_rig import EngineRig, greedy
from test_out_of_memory import NarrowRunner
from test_runners import BLOCK, MAX_MODEL_LEN, make_engine, make_runner, random_prompts, run_staggered
from tiny_models import CONFIGS, generate, make_model

from handlers.engine.lean_runner import LeanRunner
from handlers.engine.prefix_cache import PrefixCache
from handlers.engine.scheduler import Chunk
from handlers.engine.sequence import Sequence
from handlers.engine.speculation.draft_model import DraftedRunner, ModelDrafter
from handlers.engine.speculation.drafter import Wish
from handlers.engine.speculation.ngram import NgramDrafter
from handlers.engine.speculation.speculation import Speculation
from handlers.engine.transformers_runner import TransformersRunner
from handlers.requests import SamplingParams


def speculation(drafter, max_draft_tokens: int = 6, max_rows: int = 64) -> Speculation:
    return Speculation(drafter, max_draft_tokens=max_draft_tokens, max_rows=max_rows)


class TestFakeModel:
    """Over the fake model, whose answers an oracle knows."""

    def test_right_guesses_save_steps(self):
        rig = EngineRig(speculation=speculation(FakeDrafter(one_wrong_in=1000)))
        rig.add("a", [1, 2], greedy(41))
        assert rig.finish().token_ids["a"] == continuation([1, 2], 43, frozenset())
        stats = rig.engine.stats()
        assert stats.steps < 12
        assert stats.accepted_tokens == stats.drafted_tokens >= 30

    def test_wrong_guesses_are_counted_and_given_up(self):
        rig = EngineRig(speculation=speculation(FakeDrafter(one_wrong_in=1)))
        rig.add("a", [1, 2], greedy(60))
        assert rig.finish().token_ids["a"] == continuation([1, 2], 62, frozenset())
        stats = rig.engine.stats()
        assert stats.accepted_tokens == 0
        assert stats.drafted_tokens < 60

    def test_an_answer_ends_where_it_would_have_ended(self):
        for one_wrong_in in (2, 1000):
            rig = EngineRig(speculation=speculation(FakeDrafter(one_wrong_in)))
            expected = continuation([5, 9], 60, frozenset([11]))
            assert expected[-1] == 11 and len(expected) > 4
            rig.add("a", [5, 9], greedy(58, stop_token_ids=(11,)))
            outcome = rig.finish()
            assert outcome.token_ids["a"] == expected
            assert (outcome.last["a"].finish_reason, outcome.last["a"].num_stop_tokens) == ("stop", 1)

    def test_every_token_comes_with_its_log_probability(self):
        rig = EngineRig(speculation=speculation(FakeDrafter(one_wrong_in=3)))
        rig.add("a", [1, 2], greedy(20, logprobs=2))
        events = []
        while rig.engine.has_work:
            events += rig.engine.step()
        assert max(len(event.token_ids) for event in events) > 1
        for event in events:
            assert [logprob.token_id for logprob in event.logprobs] == list(event.token_ids)

    def test_what_is_generated_in_a_guessed_step_can_be_shared(self):
        rig = EngineRig(speculation=speculation(FakeDrafter(one_wrong_in=1000)))
        rig.add("first", [1, 2], greedy(20))
        said = rig.finish().token_ids["first"]
        rig.add("second", [1, 2, *said], greedy(2))
        assert rig.finish().starts["second"].num_cached_tokens == 20

    def test_nothing_is_guessed_beyond_the_rows_that_a_step_may_have(self):
        runner = FakeRunner()
        rig = EngineRig(runner, max_running=8, speculation=speculation(FakeDrafter(one_wrong_in=1000), max_rows=8))
        for index in range(8):
            rig.add(str(index), [index, 1], greedy(10 if index else 30))
        rig.finish()
        for plan in runner.plans:
            assert sum(chunk.num_logits for chunk in plan.chunks) <= 8
        assert any(chunk.num_drafts for plan in runner.plans for chunk in plan.chunks)  # once only one is left

    def test_no_one_is_preempted_for_guesses(self):
        runner = FakeRunner(num_blocks=4, block_tokens=4)
        rig = EngineRig(runner, speculation=speculation(FakeDrafter(one_wrong_in=1000)))
        rig.add("a", [1, 2], greedy(6))
        rig.add("b", [2, 1], greedy(6))
        outcome = rig.finish()
        assert rig.engine.stats().preemptions == 0
        assert outcome.token_ids["b"] == continuation([2, 1], 8, frozenset())

    def test_nobody_pays_for_guesses_that_memory_does_not_suffice_for(self):
        rig = EngineRig(NarrowRunner(most_tokens=3), speculation=speculation(FakeDrafter(one_wrong_in=1000)))
        rig.add("a", [1, 2], greedy(40))
        assert rig.finish().token_ids["a"] == continuation([1, 2], 42, frozenset())
        stats = rig.engine.stats()
        assert 0 < stats.out_of_memory < 7
        assert stats.accepted_tokens > 10
        assert stats.max_running == 4

    def test_a_drafter_without_memory_makes_no_guesses(self):
        rig = EngineRig(speculation=speculation(FailingDrafter(MemoryError())))
        rig.add("a", [1, 2], greedy(9))
        assert rig.finish().token_ids["a"] == continuation([1, 2], 11, frozenset())

    def test_a_drafter_that_fails_leaves_alone_who_waits(self):
        drafter = FailingDrafter(RuntimeError("boom"))
        rig = EngineRig(max_running=1, speculation=speculation(drafter))
        rig.add("running", [1, 2], greedy(9))
        rig.add("waiting", [3, 4], greedy(9))
        rig.step()
        assert rig.outcome.last.keys() == {"running"}


@dataclass
class FailingDrafter:
    """Raises whenever guesses are wanted."""

    error: Exception

    def draft(self, wishes):
        raise self.error

    def forget(self, sequence):
        pass


REPETITIVE = [prompt[:6] * 4 + prompt[:9] for prompt in random_prompts(12, seed=3)]
KINDS = [TransformersRunner, LeanRunner]


@pytest.mark.parametrize("kind", KINDS)
def test_ngrams_change_no_greedy_token(kind):
    oracle = make_model(CONFIGS["llama"])
    expected = [generate(oracle, prompt, 40) for prompt in REPETITIVE]
    engine = make_engine(make_runner(kind, "llama"), speculation=speculation(NgramDrafter()))
    requests = [(prompt, SamplingParams(max_tokens=40, temperature=0.0)) for prompt in REPETITIVE]
    assert run_staggered(engine, requests, 3) == expected
    assert engine.stats().accepted_tokens > 10


@pytest.mark.parametrize(
    "params", [{}, {"top_p": 0.8}, {"repetition_penalty": 1.3, "presence_penalty": 0.5}, {"top_k": 5, "min_tokens": 9}]
)
def test_a_seed_gives_the_same_sample_with_and_without_guesses(params):
    requests = [
        (prompt, SamplingParams(max_tokens=30, temperature=0.8, seed=index, ignore_eos=True, **params))
        for index, prompt in enumerate(REPETITIVE)
    ]
    runner = make_runner(LeanRunner, "llama")
    plain = run_staggered(make_engine(runner), requests, 3)
    engine = make_engine(runner, speculation=speculation(NgramDrafter()))
    assert run_staggered(engine, requests, 3) == plain
    assert engine.stats().drafted_tokens > 0


class TestDraftModel:
    """A second model guesses: the same one is always right, another one sometimes."""

    @staticmethod
    def engine(draft: str, num_blocks: int = 256, prompt_tokens: int = 16) -> tuple:
        target = make_runner(LeanRunner, "llama", num_blocks=num_blocks)
        drafting = make_runner(LeanRunner, draft, num_blocks=num_blocks)
        drafter = ModelDrafter(drafting, vocab_size=target.vocab_size, prompt_tokens=prompt_tokens)
        return make_engine(DraftedRunner(target, drafting), speculation=speculation(drafter))

    @pytest.mark.parametrize("draft", ["llama", "qwen3"])
    def test_no_greedy_token_changes(self, draft):
        oracle = make_model(CONFIGS["llama"])
        prompts = random_prompts(10, seed=6)
        expected = [generate(oracle, prompt, 24) for prompt in prompts]
        requests = [(prompt, SamplingParams(max_tokens=24, temperature=0.0)) for prompt in prompts]
        engine = self.engine(draft)
        assert run_staggered(engine, requests, 3) == expected
        assert engine.stats().drafted_tokens > 0

    def test_a_model_that_says_the_same_is_right_when_sampling_too(self):
        engine = self.engine("llama")
        requests = [(prompt, SamplingParams(max_tokens=24, temperature=0.9, ignore_eos=True)) for prompt in random_prompts(4)]
        run_staggered(engine, requests, 40)
        stats = engine.stats()
        assert stats.accepted_tokens > 0.95 * stats.drafted_tokens > 0
        assert stats.steps < 70

    def test_preempted_sequences_and_shared_prefixes_change_nothing(self):
        oracle = make_model(CONFIGS["llama"])
        shared = random_prompts(1, seed=9)[0][:40]
        prompts = [shared[: 8 * (index % 5)] + prompt[:20] for index, prompt in enumerate(random_prompts(8, seed=4))]
        expected = [generate(oracle, prompt, 40) for prompt in prompts]
        engine = self.engine("llama", num_blocks=MAX_MODEL_LEN // BLOCK)
        assert run_staggered(engine, [(prompt, SamplingParams(max_tokens=40, temperature=0.0)) for prompt in prompts], 1) == expected
        stats = engine.stats()
        assert stats.preemptions > 0
        assert stats.accepted_tokens > 0.7 * stats.drafted_tokens


def test_the_draft_model_reads_anew_what_a_preempted_sequence_does_not_share():
    runner = FakeRunner()
    drafter = ModelDrafter(runner, vocab_size=runner.vocab_size, prompt_tokens=64)
    sequence = Sequence("a", [*range(10)], greedy(), seed=0, max_len=20, end_token_ids=frozenset())
    cache = PrefixCache(num_blocks=8, block_tokens=4)

    def start_of_guess() -> int:
        chunk = Chunk("a", 9, (9,), sequence.block_ids, samples=True)
        drafter.draft([Wish(sequence, chunk, num_tokens=1)])
        return runner.plans[-1].chunks[0].start

    cache.begin(sequence, reserve=0)
    sequence.num_cached_tokens = 8  # at its first start, before it was preempted
    assert start_of_guess() == 0
    cache.advance(sequence, 9)
    cache.release(sequence)
    cache.begin(sequence, reserve=0)
    assert start_of_guess() == 8
    cache.clear()
    sequence.rewind()
    cache.begin(sequence, reserve=0)
    assert start_of_guess() == 0


class ConstantDrafter:
    """Always guesses the same."""

    def __init__(self, guess: list[int]) -> None:
        self.guess = guess

    def draft(self, wishes):
        return {wish.sequence.id: self.guess[: wish.num_tokens] for wish in wishes}

    def forget(self, sequence):
        pass


@torch.inference_mode()
def test_sampled_tokens_have_the_models_distribution():
    """Many seeds, and a guess that is right as often as the model likes it: the chi-squared statistic of what follows stays small."""
    runner, token_id, num_seeds = make_runner(LeanRunner, "llama"), 65, 2000
    chances = (make_model(CONFIGS["llama"])(torch.tensor([[token_id]])).logits[0, -1] / 2.0).softmax(-1)
    *likely, guess = chances.topk(8).indices.tolist()
    engine = make_engine(runner, speculation=speculation(ConstantDrafter([guess, guess])))
    params = [SamplingParams(max_tokens=3, temperature=2.0, seed=seed, ignore_eos=True) for seed in range(num_seeds)]
    answers = run_staggered(engine, [([token_id], each) for each in params], 1)
    counts = Counter(answer[0] for answer in answers)
    assert 0 < engine.stats().accepted_tokens < engine.stats().drafted_tokens
    found = torch.tensor([float(counts[token]) for token in (*likely, guess)])
    expected = chances[[*likely, guess]] * num_seeds
    found, expected = (torch.cat([each, num_seeds - each.sum(0, keepdim=True)]) for each in (found, expected))
    assert expected.min() > 5
    assert ((found - expected) ** 2 / expected).sum() < 31.8  # 9 numbers with one sum: exceeded once in 10,000 times
