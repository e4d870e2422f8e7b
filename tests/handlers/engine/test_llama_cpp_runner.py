"""Whatever the schedule, llama.cpp computes every sequence over its own tokens, within the memory that the engine counts on."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from engine_fakes import START, VOCAB_SIZE, continuation, read
from engine_rig import EngineRig, greedy
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from handlers.config import EngineConfig
from handlers.engine.build import build_engine_client
from handlers.engine.generate_engine import build_generate_engine
from handlers.engine.llama_cpp.library import Row, load_library
from handlers.engine.llama_cpp.runner import LlamaCppRunner
from handlers.engine.scheduler import Chunk, StepPlan
from handlers.errors import ConfigError
from handlers.gguf_file import GgufFile
from tests.checkpoints import make_checkpoint
from tests.gguf_files import make_gguf

BLOCK_TOKENS = 4
MAX_MODEL_LEN = 24
BEGINNINGS = [[], [1] * 4, [1] * 8, [1, 2] * 5, [2, 1, 1, 1] * 4]


class FakeLlama:
    """llama.cpp's memory: cells of what the model has in mind, each at one position of any number of slots."""

    def __init__(self, num_cells: int, max_rows: int = 1000) -> None:
        self.max_rows = max_rows
        self.num_cells = num_cells
        self.num_computed = 0
        self.failures = 0
        self.slots: dict[int, list[object]] = {}
        self.states: dict[object, int] = {}  # of all cells that there ever were

    @property
    def cells(self) -> set[object]:
        return {cell for cells in self.slots.values() for cell in cells}

    def decode(self, rows: Sequence[Row], logits: torch.Tensor) -> bool:
        assert 0 < len(rows) <= self.max_rows
        if len(self.cells) + len(rows) > self.num_cells:
            return False
        if self.failures:
            self.failures -= 1
            self._compute(rows[:1])
            raise RuntimeError("no luck")
        wanted = [state for row, state in zip(rows, self._compute(rows), strict=True) if row.wants_logits]
        assert len(logits) == len(wanted)
        logits.zero_()
        for index, state in enumerate(wanted):
            logits[index, state % VOCAB_SIZE] = 1.0
        return True

    def copy(self, source: int, target: int, end: int) -> None:
        assert not self.slots.get(target)
        self.slots[target] = self.slots[source][:end]

    def remove(self, slot: int, start: int) -> None:
        self.slots[slot] = self.slots.get(slot, [])[:start]

    def clear(self) -> None:
        self.slots = {}

    def _compute(self, rows: Sequence[Row]) -> list[int]:
        return [self._read(row) for row in rows]

    def _read(self, row: Row) -> int:
        cells = self.slots.setdefault(row.slot, [])
        assert row.position == len(cells), "llama.cpp wants positions one after the other"
        cells.append(object())
        self.states[cells[-1]] = read(self.states[cells[-2]] if len(cells) > 1 else START, row.token_id)
        self.num_computed += 1
        return self.states[cells[-1]]


def make_runner(num_blocks: int = 16, num_slots: int = 8, max_rows: int = 1000) -> tuple[LlamaCppRunner, FakeLlama]:
    llama = FakeLlama(num_blocks * BLOCK_TOKENS, max_rows)
    sizes = {
        "num_blocks": num_blocks,
        "block_tokens": BLOCK_TOKENS,
        "max_model_len": MAX_MODEL_LEN,
        "vocab_size": VOCAB_SIZE,
        "weight_bytes": 0,
        "kv_bytes": 0,
    }
    return LlamaCppRunner(llama, num_slots=num_slots, **sizes), llama


class LlamaMachine(RuleBasedStateMachine):
    """The real engine, with few slots and hardly any memory."""

    @initialize(
        num_blocks=st.integers(6, 20),
        max_running=st.integers(1, 6),
        spare_slots=st.integers(0, 6),
        max_rows=st.sampled_from([3, 1000]),
        prefill_chunk_tokens=st.integers(1, 20),
        prefix_caching=st.booleans(),
    )
    def start(self, num_blocks, max_running, spare_slots, max_rows, prefill_chunk_tokens, prefix_caching):
        runner, self.llama = make_runner(num_blocks, max_running + spare_slots, max_rows)
        self.rig = EngineRig(
            runner, max_running=max_running, prefill_chunk_tokens=prefill_chunk_tokens, prefix_caching=prefix_caching
        )  # fmt: skip
        self.prompts: dict[str, list[int]] = {}
        self.has_failed = False

    @rule(
        beginning=st.sampled_from(BEGINNINGS),
        rest=st.lists(st.integers(0, VOCAB_SIZE - 1), min_size=1, max_size=6),
        num_forks=st.sampled_from([1, 1, 2, 4]),
        priority=st.integers(-1, 1),
    )
    def add(self, beginning, rest, num_forks, priority):
        for _ in range(num_forks):
            name = str(len(self.prompts))
            self.prompts[name] = [*beginning, *rest]
            self.rig.add(name, self.prompts[name], greedy(20), priority=priority)

    @rule(number=st.integers(0, 30))
    def cancel(self, number):
        self.rig.cancel(str(number))

    @rule(num_steps=st.integers(1, 8))
    def step(self, num_steps):
        for _ in range(num_steps):
            self.rig.step()

    @rule(num_failures=st.integers(1, 2))
    def fail(self, num_failures):
        self.llama.failures = num_failures
        self.has_failed = True
        self.rig.step()

    def teardown(self):
        if not hasattr(self, "rig"):
            return
        outcome = self.rig.finish()
        assert self.has_failed or not outcome.count("error"), "there is always room for what the engine plans"
        for name, prompt in self.prompts.items():
            expected, got = continuation(prompt, min(len(prompt) + 20, MAX_MODEL_LEN), frozenset()), outcome.token_ids[name]
            assert got == (expected if outcome.last[name].finish_reason == "length" else expected[: len(got)])


LlamaMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestLlamaMachine = LlamaMachine.TestCase


def test_a_beginning_in_common_is_computed_once():
    runner, llama = make_runner()
    rig = EngineRig(runner, prefill_chunk_tokens=32)
    for name in ("first", "second"):
        rig.add(name, [5] * 12 + [6], greedy(1))
        rig.finish()
    assert llama.num_computed == 13 + 1


def test_what_a_lost_slot_held_is_computed_again():
    runner, llama = make_runner(num_slots=1)
    blocks, others = [0, 1], [2, 3]
    runner.run(StepPlan((Chunk("a", 0, (1, 2, 3), blocks, samples=True),)))
    runner.run(StepPlan((Chunk("b", 0, (4, 5), others, samples=True),)))

    logits = runner.run(StepPlan((Chunk("a", 3, (6,), blocks, samples=True),)))

    assert logits.argmax().item() == continuation([1, 2, 3, 6], 5, frozenset())[0]
    assert llama.num_computed == 3 + 2 + 4


def test_without_room_for_a_step_it_fails_and_says_so():
    runner, llama = make_runner()
    llama.num_cells = 2
    with pytest.raises(RuntimeError, match="no room for 3 tokens"):
        runner.run(StepPlan((Chunk("a", 0, (1, 2, 3), [0], samples=True),)))


def test_without_llama_cpp_python_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    with pytest.raises(ConfigError, match=r"pip install 'marquee\[gguf\]'"):
        load_library.__wrapped__()


def test_an_engine_and_a_model_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="runs GGUF files only"):
        build_engine_client(object(), EngineConfig(name="llamacpp"), eos_token_ids=frozenset())
    with pytest.raises(ConfigError, match="model.gguf is left to llama.cpp"):
        build_generate_engine(GgufFile(Path("model.gguf"), {}, {}), EngineConfig())


@pytest.mark.peer
@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
def test_llama_cpp_says_what_transformers_says_of_the_same_file(tmp_path, kind):
    from transformers import AutoModelForCausalLM

    from handlers.engine.llama_cpp.build import build_llama_cpp_engine

    shape = {"hidden_size": 256, "intermediate_size": 512}  # wide enough for all of llama.cpp's kernels
    file = make_gguf(make_checkpoint(tmp_path / "source", **shape), tmp_path / "model.gguf", kind=kind)
    config = EngineConfig(kv_memory_gib=0.01, max_running=4, num_threads=1)
    runner = build_llama_cpp_engine(GgufFile.open(file), config, eos_token_ids=frozenset())._runner
    model = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=file.name, dtype=torch.float32)
    prompts = [tuple(range(first, first + 8)) for first in (7, 70, 170)]

    chunks = [Chunk(str(index), 0, prompt, [index], samples=True) for index, prompt in enumerate(prompts)]
    logits = runner.run(StepPlan(tuple(chunks)))

    with torch.inference_mode():
        expected = model(input_ids=torch.tensor(prompts)).logits[:, -1]
    assert ((logits - expected).norm() / expected.norm()).item() < 0.05
