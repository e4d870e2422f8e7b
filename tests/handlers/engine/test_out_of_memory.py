"""When memory runs out in a step, less is done at once: nobody is lost, nobody gets anything else, and it recovers."""

from __future__ import annotations

import random

import pytest
import torch
from engine_fakes import FakeRunner, continuation
from engine_rig import EngineRig, greedy
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import CONFIGS, generate, make_model

from handlers.engine import pipeline as pipeline_module
from handlers.engine.allowance import Allowance
from handlers.engine.compatibility import adopt
from handlers.engine.engine import CRASHED, OUT_OF_MEMORY, Engine
from handlers.engine.generate_runner import GenerateRunner
from handlers.engine.memory.out_of_memory import is_out_of_memory
from handlers.engine.runner import Runner
from handlers.engine.scheduler import Chunk, StepPlan
from handlers.engine.transformers_runner import TransformersRunner
from handlers.requests import SamplingParams

ERRORS = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"),
]


class NarrowRunner(FakeRunner):
    """A FakeRunner whose memory suffices for ``most_tokens`` a step, and ``most_sequences``."""

    def __init__(self, most_tokens: int = 10**6, most_sequences: int = 10**6, **options) -> None:
        super().__init__(**options)
        self.most_tokens, self.most_sequences = most_tokens, most_sequences
        self.num_refusals = 0

    def run(self, plan: StepPlan) -> torch.Tensor:
        if len(plan.chunks) > self.most_sequences or sum(len(chunk.token_ids) for chunk in plan.chunks) > self.most_tokens:
            self.num_refusals += 1
            raise MemoryError
        return super().run(plan)


def step_of(*num_tokens: int) -> StepPlan:
    return StepPlan(tuple(Chunk(str(index), 0, (0,) * count, [index], True) for index, count in enumerate(num_tokens)))


@pytest.mark.parametrize("error", ERRORS, ids=str)
def test_every_allocators_error_is_known(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA error: device-side assert triggered"), ValueError("out of memory"), KeyError("memory")]
)
def test_other_errors_are_no_lack_of_memory(error):
    assert not is_out_of_memory(error)


def test_what_torch_really_raises_is_known():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 58)
    assert is_out_of_memory(raised.value)


class TestAllowance:
    def test_half_of_the_step_is_allowed(self):
        allowance = Allowance(max_running=64, prompt_tokens=512, smallest_chunk_tokens=16)
        assert allowance.cut(step_of(1, 1, 1, 1, 1, 300))
        assert (allowance.max_running, allowance.prompt_tokens) == (3, 150)
        assert allowance.cut(step_of(1, 1, 1))
        assert (allowance.max_running, allowance.prompt_tokens) == (1, 150)

    def test_one_sequence_with_the_smallest_chunk_is_the_end(self):
        allowance = Allowance(max_running=64, prompt_tokens=512, smallest_chunk_tokens=16)
        assert allowance.cut(step_of(17))
        assert (allowance.max_running, allowance.prompt_tokens) == (1, 16)
        assert not allowance.cut(step_of(16))
        assert not allowance.cut(step_of(1))

    def test_it_grows_slowly_back_to_what_was_configured_and_no_further(self):
        allowance = Allowance(max_running=4, prompt_tokens=40, smallest_chunk_tokens=16)
        allowance.cut(step_of(1, 1, 1, 40))
        seen = []
        while allowance.is_cut:
            num_steps = 1
            while not allowance.note_clean_step():
                num_steps += 1
            seen.append((num_steps, allowance.max_running, allowance.prompt_tokens))
        assert seen == [(32, 3, 36), (32, 4, 40)]
        assert not allowance.note_clean_step()

    @given(st.integers(1, 70), st.integers(1, 600), st.integers(1, 40), st.data())
    def test_every_cut_is_smaller_and_there_is_an_end(self, max_running, prompt_tokens, smallest, data):
        allowance = Allowance(max_running=max_running, prompt_tokens=prompt_tokens, smallest_chunk_tokens=smallest)
        for _ in range(20):
            before = (allowance.max_running, allowance.prompt_tokens)
            num_sequences = data.draw(st.integers(1, allowance.max_running))
            prompt = data.draw(st.integers(1, allowance.prompt_tokens))
            if not allowance.cut(step_of(prompt, *[1] * (num_sequences - 1))):
                assert num_sequences == 1 and prompt <= smallest
                return
            after = (allowance.max_running, allowance.prompt_tokens)
            assert all(1 <= now <= then for now, then in zip(after, before, strict=True)) and allowance.max_running <= max(
                num_sequences // 2, 1
            )


class TestEngine:
    @pytest.mark.parametrize("error", ERRORS, ids=str)
    def test_half_of_the_sequences_go_on_and_the_others_wait(self, error, caplog):
        rig = EngineRig(FakeRunner(failures={3: error}), max_running=4)
        for index in range(4):
            rig.add(str(index), [index, 1])
        rig.step()
        rig.step()
        rig.step()
        stats = rig.engine.stats()
        assert (stats.running, stats.waiting, stats.max_running, stats.out_of_memory) == (2, 2, 2, 1)
        assert [chunk.sequence_id for chunk in rig.runner.plans[-1].chunks] == ["0", "1"]
        assert "out of memory in a step of 4 sequences and 4 tokens" in caplog.text
        outcome = rig.finish()
        assert {name: outcome.token_ids[name] for name in "0123"} == {
            str(index): continuation([index, 1], 10, frozenset()) for index in range(4)
        }

    def test_what_was_left_over_is_released_once_the_error_is_gone(self):
        released: list[int] = []
        rig = EngineRig(FakeRunner(failures={1: MemoryError()}), release_unused=lambda: released.append(rig.runner.num_steps))
        rig.add("a", [1] * 8)
        rig.finish()
        assert released == [1]

    @pytest.mark.parametrize("most_tokens", [1, 2, 3, 5, 9])
    def test_prompts_are_read_in_chunks_as_small_as_memory_asks_for(self, most_tokens):
        rig = EngineRig(NarrowRunner(most_tokens, block_tokens=1), max_running=6, prefill_chunk_tokens=32)
        prompts = {str(index): [index] * (5 * index + 1) for index in range(6)}
        for name, prompt in prompts.items():
            rig.add(name, prompt, greedy(6))
        outcome = rig.finish()
        for name, prompt in prompts.items():
            assert outcome.token_ids[name] == continuation(prompt, len(prompt) + 6, frozenset())

    def test_a_sequence_for_which_memory_never_suffices_fails_alone(self):
        rig = EngineRig(NarrowRunner(most_tokens=3), prefill_chunk_tokens=8)
        rig.add("too large", [1] * 8)
        rig.add("small", [1, 2], greedy(3))
        outcome = rig.finish()
        assert outcome.last["too large"].error == OUT_OF_MEMORY
        assert outcome.token_ids["small"] == continuation([1, 2], 5, frozenset())

    def test_more_is_admitted_again_when_memory_is_back(self):
        rig = EngineRig(NarrowRunner(most_sequences=2), max_running=4)
        for index in range(4):
            rig.add(str(index), [index], greedy(200))
        for _ in range(10):
            rig.step()
        assert rig.engine.stats().max_running == 2
        rig.runner.most_sequences = 4
        for _ in range(64):
            rig.step()
        stats = rig.engine.stats()
        assert (stats.max_running, stats.running, stats.waiting) == (4, 4, 0)

    def test_memory_that_runs_out_while_sampling_is_no_different(self, monkeypatch):
        rig = EngineRig(max_running=4)
        for index in range(4):
            rig.add(str(index), [index, 1])
        rig.step()
        real, calls = pipeline_module.draw, []

        def draw(logits, sequences):
            calls.append(len(sequences))
            if len(sequences) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return real(logits, sequences)

        monkeypatch.setattr(pipeline_module, "draw", draw)
        outcome = rig.finish()
        assert calls[:2] == [4, 2]
        assert all(outcome.token_ids[str(index)] == continuation([index, 1], 10, frozenset()) for index in range(4))

    def test_what_cannot_be_taken_up_again_fails_as_before(self):
        rig = EngineRig(FakeRunner(failures={2: MemoryError()}), can_preempt=False)
        rig.add("a", [1])
        rig.step()
        with pytest.raises(MemoryError):
            rig.engine.step()
        rig.outcome.take(rig.engine.recover())
        assert rig.finish().last["a"].error == CRASHED

    def test_a_prompt_that_breaks_the_model_is_not_taken_for_one_that_is_too_large(self):
        rig = EngineRig(FakeRunner(failures={2: RuntimeError("boom"), 3: MemoryError()}))
        rig.add("running", [1, 2], greedy(6))
        rig.step()
        rig.add("prompt", [5] * 8, greedy(3))
        outcome = rig.finish()  # the step without the prompt runs out of memory, and with half of it all goes well
        assert outcome.token_ids["running"] == continuation([1, 2], 8, frozenset())
        assert outcome.token_ids["prompt"] == continuation([5] * 8, 11, frozenset())

    @given(
        sizes=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 12)), min_size=1, max_size=12),
        max_running=st.integers(1, 6),
        limits=st.lists(st.tuples(st.integers(4, 30), st.integers(1, 6)), min_size=1, max_size=8),
        num_blocks=st.integers(8, 40),
    )
    def test_whatever_memory_does_each_gets_what_it_would_have_got_alone(self, sizes, max_running, limits, num_blocks):
        runner = NarrowRunner(num_blocks=num_blocks, max_model_len=32)
        rig = EngineRig(runner, max_running=max_running, prefill_chunk_tokens=24)
        for index, (num_tokens, max_tokens) in enumerate(sizes):
            rig.add(str(index), [index] * num_tokens, greedy(max_tokens))
        while rig.engine.has_work:
            runner.most_tokens, runner.most_sequences = limits[rig.runner.num_steps % len(limits)]  # four tokens are the smallest chunk
            rig.step()
            stats = rig.engine.stats()
            assert stats.running <= stats.max_running <= max_running
        assert rig.engine.stats().out_of_memory == runner.num_refusals
        for index, (num_tokens, max_tokens) in enumerate(sizes):
            prompt = [index] * num_tokens
            assert rig.outcome.token_ids[str(index)] == continuation(prompt, min(num_tokens + max_tokens, 32), frozenset())


class ForgetfulAllocator:
    """A Runner that runs a step and then says at random that there was no memory for it: keys and values are half written."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._rng = random.Random(0)

    def __getattr__(self, name: str):
        return getattr(self._runner, name)

    def run(self, plan: StepPlan) -> torch.Tensor:
        logits = self._runner.run(plan)
        if self._rng.random() < 0.3 and len(plan.chunks) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return logits


def make_paged() -> Runner:
    model = make_model(CONFIGS["llama"])
    return TransformersRunner(model, adopt(model).kv_shapes, num_blocks=60, block_tokens=8, max_model_len=256)


def make_static() -> Runner:
    return GenerateRunner(make_model(CONFIGS["llama"]), max_running=8, max_model_len=256)


@pytest.mark.parametrize(("make_runner", "chunk_tokens", "smallest_chunk_tokens"), [(make_paged, 32, 8), (make_static, 2048, 2048)])
def test_a_real_model_says_the_same_however_often_memory_runs_out(make_runner, chunk_tokens, smallest_chunk_tokens):
    engine = Engine(
        ForgetfulAllocator(make_runner()),
        max_running=8,
        prefill_chunk_tokens=chunk_tokens,
        smallest_chunk_tokens=smallest_chunk_tokens,
        prefix_caching=smallest_chunk_tokens < chunk_tokens,
    )
    prompts = {str(index): [(7 * index + 3 * position) % 256 for position in range(9 * index + 1)] for index in range(10)}
    for name, prompt in prompts.items():
        engine.add(engine.new_sequence(name, prompt, SamplingParams(max_tokens=12, temperature=0.0, stop_token_ids=(7,))))
    said: dict[str, list[int]] = {name: [] for name in prompts}
    while engine.has_work:
        for event in engine.step():
            assert event.error is None
            said[event.sequence_id] += event.token_ids
        engine.check_integrity()
    assert engine.stats().out_of_memory > 3
    oracle = make_model(CONFIGS["llama"])
    assert said == {name: generate(oracle, prompt, 12) for name, prompt in prompts.items()}
