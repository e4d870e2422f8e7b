"""Dividing a scripted device: every way in which memory can be other than expected."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_fakes import GIB, LAYERS, MIB, DeviceRunner, FakeDevice, ledger

from handlers.config import EngineConfig
from handlers.engine.memory.budget import TokenBytes
from handlers.engine.memory.settle import Settled, settle_memory
from handlers.errors import ConfigError
from handlers.memory_ledger import Interval, MemoryLedger

CONFIG = EngineConfig(max_running=16)
ANYTHING = Interval(0, GIB, 1 << 60)


def settle(runner: DeviceRunner, config: EngineConfig = CONFIG, plan: MemoryLedger | None = None) -> Settled:
    token = TokenBytes(runner.token_bytes, runner.token_bytes // LAYERS)
    return settle_memory(runner, runner.device, config, token, plan)


def changed(config: EngineConfig, **keys: Any) -> EngineConfig:
    return EngineConfig(**{name: getattr(config, name) for name in config.__dataclass_fields__} | keys)


def test_the_cache_gets_what_is_left_of_the_share_and_never_more():
    device = FakeDevice(10 * GIB)
    runner = DeviceRunner(device)
    settled = settle(runner)
    assert settled.footprint.weights == 2 * GIB
    assert settled.footprint.context == 500 * MIB
    assert settled.footprint.activations >= (512 + 15) * runner.row_bytes
    assert settled.footprint.kv_cache == runner.kv_bytes
    assert device.peak <= 0.85 * device.total_bytes
    assert runner.kv_bytes >= 0.85 * device.total_bytes * LAYERS / (LAYERS + 1) - 3 * GIB
    assert settled.max_running == 16


def test_the_warm_up_is_the_largest_step_that_the_configuration_allows():
    runner = DeviceRunner(FakeDevice())
    settle(runner)
    warm_up, proof = runner.plans
    prompt, *decodes = warm_up.chunks
    assert (len(prompt.token_ids), prompt.end, len(decodes)) == (512, 4096, 15)
    assert all(chunk.samples for chunk in warm_up.chunks)
    assert max(block for chunk in warm_up.chunks for block in chunk.block_ids) < 8
    tokens = sum(chunk.end for chunk in proof.chunks if len(chunk.token_ids) == 1)
    assert 0.9 < tokens / (runner.num_blocks * runner.block_tokens) <= 1
    assert proof.chunks[0].end == 4096


def test_no_more_blocks_are_taken_than_the_sequences_can_use():
    runner = DeviceRunner(FakeDevice(80 * GIB))
    settle(runner, changed(CONFIG, max_running=2))
    assert runner.num_blocks == 2 * 4096 // 16


def test_what_others_have_taken_is_not_counted_on():
    device = FakeDevice(10 * GIB, others=5 * GIB)
    runner = DeviceRunner(device)
    settle(runner)
    assert device.free_bytes() > 0
    assert runner.kv_bytes < 2.5 * GIB


def test_memory_that_vanishes_between_reading_and_allocating_costs_blocks_and_nothing_else(caplog):
    device = FakeDevice(10 * GIB)
    runner = DeviceRunner(device)

    def another_process_comes(size: int) -> None:
        if size > 2 * GIB:
            device.others, device.on_allocate = 6 * GIB, lambda size: None

    device.on_allocate = another_process_comes
    settle(runner)
    assert 0 < runner.kv_bytes < 1.5 * GIB
    assert "too large for what is really free" in caplog.text
    assert device.num_releases > 2


def test_memory_in_small_pieces_costs_blocks_and_nothing_else():
    device = FakeDevice(10 * GIB, largest_hole=2 * GIB + 700 * MIB)
    runner = DeviceRunner(device)
    settle(runner)
    assert 0.8 * device.largest_hole < runner.kv_bytes <= device.largest_hole


def test_a_step_that_takes_more_over_full_blocks_than_over_a_few_makes_the_cache_smaller():
    device = FakeDevice(10 * GIB)
    runner = DeviceRunner(device)
    own_run = runner.run

    def run(plan):
        if runner.num_blocks > 8:
            device.take(GIB)
            device.give(GIB)
        return own_run(plan)

    runner.run = run
    settle(runner, changed(CONFIG, memory_fraction=0.5))
    device.reset_peak()
    own_run(runner.plans[-1])
    assert device.peak <= 0.5 * device.total_bytes


def test_the_operators_length_must_fit_and_the_models_own_is_shortened():
    def make() -> DeviceRunner:
        return DeviceRunner(FakeDevice(6 * GIB), token_bytes=MIB)

    runner = make()
    settle(runner)
    assert 1000 < runner.max_model_len < 4096
    with pytest.raises(ConfigError, match="max_model_len is 4096, but .* memory_fraction"):
        settle(make(), changed(CONFIG, max_model_len=4096))


def test_a_largest_step_that_does_not_fit_is_said_in_one_line():
    runner = DeviceRunner(FakeDevice(3 * GIB), row_bytes=4 * MIB)
    with pytest.raises(
        ConfigError, match=r"largest step does not fit .*512 prompt tokens at the end of 4096, beside 15 sequences.*prefill_chunk_tokens"
    ) as error:
        settle(runner)
    assert "\n" not in str(error.value)


def test_an_error_that_is_no_lack_of_memory_passes_through():
    runner = DeviceRunner(FakeDevice())
    runner.resize = lambda num_blocks, max_model_len: 1 / 0
    with pytest.raises(ZeroDivisionError):
        settle(runner)


def test_what_the_operator_set_is_the_most_and_no_promise():
    runner = DeviceRunner(FakeDevice(10 * GIB))
    settle(runner, changed(CONFIG, kv_memory_gib=1.0))
    assert GIB - 3 * MIB < runner.kv_bytes <= GIB
    device = FakeDevice(10 * GIB)
    settle(DeviceRunner(device), changed(CONFIG, kv_memory_gib=100.0))
    assert device.peak <= 0.85 * device.total_bytes


def test_on_a_cpu_a_quarter_of_what_is_free_is_taken_and_nothing_is_tried_out():
    device = FakeDevice(8 * GIB, kind="cpu")
    runner = DeviceRunner(device)
    settle(runner, changed(CONFIG, max_running=1000))
    assert len(runner.plans) == 1
    assert runner.plans[0].chunks[0].end == 512
    assert runner.num_blocks * 16 * runner.token_bytes == pytest.approx(device.free_bytes() / 4, rel=0.01)


class TestPlan:
    def plan(self, device: FakeDevice, weights: Interval, **more: Interval) -> MemoryLedger:
        parts = {"activations": ANYTHING, "context": ANYTHING, "graphs": Interval.exact(0), "kv_cache": Interval(0, 4 * GIB, 8 * GIB)}
        return ledger(device, weights=weights, **parts | more)

    def test_what_is_as_predicted_is_said_and_changes_nothing(self, caplog):
        device = FakeDevice(10 * GIB)
        alone = DeviceRunner(FakeDevice(10 * GIB))
        settle(alone)
        runner = DeviceRunner(device)
        with caplog.at_level(logging.INFO):
            settled = settle(runner, changed(CONFIG, memory_policy="refuse"), self.plan(device, Interval(GIB, 2 * GIB, 3 * GIB)))
        assert (runner.num_blocks, settled.max_running) == (alone.num_blocks, 16)
        assert "memory: weights 2147.5 MB, within the predicted 1073.7 to 3221.2 MB" in caplog.text
        assert "memory: KV cache" in caplog.text
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]

    def test_warn_says_which_part_and_goes_on(self, caplog):
        device = FakeDevice(10 * GIB)
        runner = DeviceRunner(device)
        settled = settle(runner, CONFIG, self.plan(device, Interval(0, GIB, GIB)))
        assert settled.max_running == 16
        [record] = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert record.getMessage() == "memory: weights 2147.5 MB, above the predicted 0.0 to 1073.7 MB"

    def test_refuse_says_the_numbers_and_what_to_do_in_one_line(self):
        device = FakeDevice(10 * GIB)
        with pytest.raises(ConfigError, match=r"weights 2147\.5 MB, above .*marquee plan.*memory_policy: warn") as error:
            settle(DeviceRunner(device), changed(CONFIG, memory_policy="refuse"), self.plan(device, Interval(0, GIB, GIB)))
        assert "\n" not in str(error.value)

    def test_less_than_predicted_is_never_refused(self, caplog):
        device = FakeDevice(10 * GIB)
        with caplog.at_level(logging.INFO):
            settle(DeviceRunner(device), changed(CONFIG, memory_policy="refuse"), self.plan(device, Interval.exact(5 * GIB)))
        assert "weights 2147.5 MB, below" in caplog.text

    @pytest.mark.parametrize("kind", ["cuda", "cpu"])
    def test_shrink_takes_the_excess_from_the_cache_and_sequences_with_it(self, kind, caplog):
        device = FakeDevice(40 * GIB, kind=kind)
        runner = DeviceRunner(device)
        exact = {"activations": Interval.exact(0), "context": Interval.exact(500 * MIB), "kv_cache": Interval.exact(4 * GIB)}
        settled = settle(runner, changed(CONFIG, memory_policy="shrink"), self.plan(device, Interval.exact(GIB), **exact))
        excess = GIB + settled.footprint.activations
        assert runner.num_blocks * 16 * runner.token_bytes == pytest.approx(4 * GIB - excess, rel=0.01)
        assert settled.max_running == int(16 * (4 * GIB - excess) / (4 * GIB))
        assert "the engine is smaller than configured" in caplog.text

    def test_one_sequence_remains_however_much_was_exceeded(self):
        device = FakeDevice(10 * GIB)
        runner = DeviceRunner(device)
        kv_cache = Interval.exact(GIB // 2)
        plan = ledger(device, weights=Interval.exact(2 * GIB - 500 * MIB), context=Interval.exact(500 * MIB), kv_cache=kv_cache)
        settled = settle(runner, changed(CONFIG, memory_policy="shrink"), plan)
        assert settled.max_running == 1
        assert 0 < runner.num_blocks * 16 * runner.token_bytes <= 12 * MIB

    @pytest.mark.parametrize("other", [FakeDevice(10 * GIB, kind="cpu"), FakeDevice(24 * GIB)], ids=["kind", "size"])
    def test_a_plan_for_another_device_is_not_compared(self, other, caplog):
        with caplog.at_level(logging.INFO):
            settle(DeviceRunner(FakeDevice(10 * GIB)), changed(CONFIG, memory_policy="refuse"), self.plan(other, Interval.exact(1)))
        [said] = [record.getMessage() for record in caplog.records if "another device" in record.getMessage()]
        assert "what the planner calls it" in said
        assert "memory: weights" not in caplog.text


@given(
    total=st.integers(4, 80).map(lambda gib: gib * GIB),
    others=st.integers(0, 40).map(lambda gib: gib * GIB),
    fraction=st.floats(0.1, 1),
    max_running=st.integers(1, 64),
    hole=st.integers(1, 80).map(lambda gib: gib * GIB),
    vanishing=st.integers(0, 4).map(lambda gib: gib * GIB),
)
def test_whatever_happens_the_share_is_kept_and_the_fullest_step_has_run(total, others, fraction, max_running, hole, vanishing):
    device = FakeDevice(total, others=min(others, total - 3 * GIB))
    runner = DeviceRunner(device)
    device.largest_hole = hole
    is_gone = False

    def vanish(size: int) -> None:
        nonlocal is_gone
        if len(runner.plans) == 1 and not is_gone:
            is_gone = True
            device.others += min(vanishing, device.free_bytes())

    device.on_allocate = vanish
    config = EngineConfig(max_running=max_running, memory_fraction=fraction)
    try:
        settle(runner, config)
    except ConfigError:
        return
    assert runner.num_blocks * 16 >= runner.max_model_len
    device.reset_peak()
    runner.run(runner.plans[-1])  # again: this time in earnest
    assert device.peak <= fraction * total
