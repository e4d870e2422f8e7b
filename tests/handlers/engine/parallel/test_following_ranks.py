"""Ranks that follow: an engine over two of them says what the whole model says, and what breaks one ends them all."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from queue import SimpleQueue
from types import SimpleNamespace

import pytest
from engine_fakes import FakeRunner
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import CONFIGS, EOS, generate, make_model

from handlers.config import EngineConfig, HandlerConfig, ModelConfig
from handlers.engine.capacity import Capacity
from handlers.engine.compatibility import adopt
from handlers.engine.engine import Engine
from handlers.engine.parallel.collective import Collective
from handlers.engine.parallel.follow import follow
from handlers.engine.parallel.linear import join
from handlers.engine.parallel.orders import Choose, Load, Order, Reset, Resize, Run, encode_order, order_reader
from handlers.engine.parallel.plans import PlanReceiver, PlanSender
from handlers.engine.parallel.runner import TensorParallelRunner, choose_parallel_runner
from handlers.engine.scheduler import Chunk, StepPlan
from handlers.requests import SamplingParams
from handlers.weights.checkpoint import Checkpoint
from handlers.weights.shards import load_shard

numbers = st.integers(0, 2**31 - 1)
texts = st.text(st.characters(), max_size=8)
heads = st.tuples(texts, numbers, numbers, numbers, numbers, st.booleans(), st.integers(0, 4)).map(list)
orders = (
    st.builds(Load, numbers, numbers, st.dictionaries(st.text(), numbers))
    | st.builds(Choose, numbers, numbers)
    | st.builds(Resize, numbers, numbers)
    | st.builds(Reset)
    | st.builds(Run, numbers, st.lists(heads, max_size=4), st.lists(numbers, max_size=9))
)


@given(st.lists(orders, max_size=5), st.integers(1, 50))
def test_orders_arrive_as_they_were_given(given_orders: list[Order], piece_bytes: int) -> None:
    stream = b"".join(map(encode_order, given_orders))
    reader = order_reader()
    pieces = [stream[start : start + piece_bytes] for start in range(0, len(stream), piece_bytes)]
    assert [order for piece in pieces for order in reader.feed(piece)] == given_orders


steps = st.lists(st.dictionaries(st.sampled_from("abc"), st.tuples(st.integers(1, 3), st.integers(0, 2), st.booleans())), max_size=8)


@given(steps)
def test_plans_arrive_whole_though_blocks_travel_once(steps: list[dict[str, tuple[int, int, bool]]]) -> None:
    sender, receiver = PlanSender(), PlanReceiver()
    lists: dict[str, list[int]] = {}
    before: dict[str, Chunk] = {}
    for number, step in enumerate(steps):
        chunks = []
        for name, (num_tokens, num_new, is_preempted) in step.items():
            if is_preempted:
                lists[name] = []
            blocks = lists.setdefault(name, [])
            blocks += range(100 * number, 100 * number + num_new)
            chunks.append(Chunk(name, number, tuple(range(num_tokens)), blocks, samples=num_new > 0, num_drafts=num_new))
        rows, ids = sender.pack(StepPlan(tuple(chunks)))
        found = receiver.unpack(rows, ids)
        assert found == StepPlan(tuple(chunks))
        after = {chunk.sequence_id: chunk for chunk in found.chunks}
        for name in after.keys() & before.keys():
            stays = not step[name][2] and before[name].block_ids
            assert not stays or after[name].block_ids is before[name].block_ids, "runners know a list again"
        before = after


@dataclass
class QueuedRanks:
    """One rank that is a thread, at the other end of a queue of frames."""

    collective: Collective
    frames: SimpleQueue[bytes | None] = field(default_factory=SimpleQueue)

    def send(self, order: Order) -> None:
        self.frames.put(encode_order(order))

    def end_process(self, error: Exception) -> None:
        raise SystemExit from error

    def received(self) -> Iterator[Order]:
        reader = order_reader()
        while (frame := self.frames.get()) is not None:
            yield from reader.feed(frame)


def test_an_engine_over_two_ranks_says_what_the_whole_model_says(tmp_path, in_ranks):
    oracle = make_model(CONFIGS["qwen3"])
    oracle.save_pretrained(tmp_path)
    checkpoint = Checkpoint.open(tmp_path, ModelConfig())
    models = [load_shard(checkpoint, rank, 2) for rank in range(2)]
    config = EngineConfig(max_running=4, block_tokens=8)
    prompts = [[(7 * index + 11 * step) % 250 for step in range(1 + 9 * index)] for index in range(8)]
    frames = SimpleQueue()

    def lead(collective: Collective) -> dict[str, list[int]]:
        ranks = QueuedRanks(collective, frames)
        join(models[0], collective)
        runner = choose_parallel_runner(ranks, models[0], adopt(models[0]), Capacity(8, 256), config)
        runner.resize(40, 120)  # too few for all: some are preempted
        engine = Engine(runner, max_running=4, max_waiting=8, prefill_chunk_tokens=16, eos_token_ids=frozenset([EOS]))
        tokens = {str(index): [] for index in range(len(prompts))}
        for index, prompt in enumerate(prompts):
            engine.add(engine.new_sequence(str(index), prompt, SamplingParams(max_tokens=20, temperature=0.0)))
        while engine.has_work:
            for event in engine.step():
                tokens[event.sequence_id] += event.token_ids
        runner.reset()
        frames.put(None)
        return tokens

    def rank(collective: Collective) -> dict[str, list[int]] | None:
        if collective.rank == 0:
            return lead(collective)
        handler = SimpleNamespace(load_model=lambda: models[1], config=HandlerConfig(engine=config))
        return follow(handler, collective, QueuedRanks(collective, frames).received())

    tokens, _ = in_ranks(2, rank)
    assert tokens == {str(index): generate(oracle, prompt, 20) for index, prompt in enumerate(prompts)}


def test_a_rank_that_is_out_of_step_goes_no_further(tmp_path, in_ranks):
    make_model(CONFIGS["llama"]).save_pretrained(tmp_path)
    model = load_shard(Checkpoint.open(tmp_path, ModelConfig()), 0, 1)
    handler = SimpleNamespace(load_model=lambda: model, config=HandlerConfig())
    orders = [Choose(8, 64), Run(num_exchanges=5, heads=[], ids=[])]
    with pytest.raises(RuntimeError, match=r"^out of step with rank 0: \d+ exchanges here, 5 there$"):
        in_ranks(1, lambda collective: follow(handler, collective, iter(orders)))


def test_a_failed_step_ends_the_process_as_the_ranks_are_no_longer_in_step():
    ranks = QueuedRanks(SimpleNamespace(num_exchanges=0))
    with pytest.raises(SystemExit):
        TensorParallelRunner(FakeRunner(failures={1: RuntimeError("a kernel")}), ranks).run(StepPlan(()))


def test_a_step_without_memory_says_so_once():
    runner = TensorParallelRunner(FakeRunner(failures={1: MemoryError()}), QueuedRanks(SimpleNamespace(num_exchanges=0)))
    with pytest.raises(MemoryError):
        runner.run(StepPlan(()))
    for ask in (lambda: runner.run(StepPlan(())), runner.reset, lambda: runner.resize(1, 1)):
        with pytest.raises(SystemExit):
            ask()


WATCHER = """
import logging, socket, sys, time
from handlers.engine.parallel.ranks import Ranks
logging.basicConfig(stream=sys.stdout)
def meet():
    print("ready", flush=True)
    time.sleep(60)
one, other = socket.socketpair()
Ranks({1: one, 2: socket.socket(fileno=int(sys.argv[1]))}, meet)
"""


def test_a_rank_that_ends_takes_rank_0_with_it_even_before_they_have_met():
    ours, theirs = socket.socketpair()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", WATCHER, str(theirs.fileno())]
    with theirs:
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    ours.close()
    rest = process.stdout.read()
    assert process.wait(60) == 1
    assert "rank 2 has ended" in rest
