"""Speed bounds, against the roofline worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.plan.engines import MARQUEE, VLLM
from archiver.plan.hardware.catalogue import find_hardware
from archiver.plan.hardware.profile import Efficiency
from archiver.plan.layout import Layout
from archiver.plan.model.facts import Role, WeightGroup
from archiver.plan.sizes import EngineSizes, Replica
from archiver.plan.speed import SpeedModel
from handlers.memory_ledger import Interval
from handlers.quant.formats import CT_FP8
from tests.archiver.plan.shapes import LLAMA_8B

PERFECT = Efficiency(Interval.exact(1), True, "none", "2026-01-01")
H200 = replace(find_hardware("h200"), bandwidth=4.8e12, decode_efficiency=PERFECT, prefill_efficiency=PERFECT)
NOTHING = Interval.exact(0)
IDEAL = replace(VLLM, step_overhead_s=NOTHING)


def speed(model=LLAMA_8B, engine=IDEAL, hardware=H200, layout=Layout(), **sizes):
    return SpeedModel(Replica(model, engine, layout, EngineSizes(8192, 64, **sizes)), hardware)


@pytest.mark.parametrize(("batch", "context", "tokens_per_s"), [(1, 0, 298), (32, 1024, 7546), (64, 1024, 12463), (256, 1024, 24371)])
def test_decoding_is_bound_by_bytes_over_bandwidth(batch, context, tokens_per_s):
    """The figures are those of 16.06 GB of weights; the input embedding is not read, which makes 6.5 % at a batch of one."""
    whole = replace(LLAMA_8B, weights=tuple(group for group in LLAMA_8B.weights if group.role is not Role.EMBEDDING))
    whole = replace(whole, weights=(*whole.weights, WeightGroup(Role.MLP, 0, LLAMA_8B.role_bytes(Role.EMBEDDING))))
    assert speed(whole).tokens_per_s(batch, context).expected == pytest.approx(tokens_per_s, rel=0.01)


def test_a_prompt_is_bound_by_multiplications():
    flops = 2 * LLAMA_8B.num_active_elements + 32 * 1024 * 4 * 32 * 128
    assert speed().prefill(2048).expected == pytest.approx(2048 * flops / H200.flops["bfloat16"])


def test_reading_and_multiplying_meet_at_the_balanced_batch():
    balanced = speed().balanced_batch()
    read_s = LLAMA_8B.weight_bytes / H200.bandwidth
    assert speed().decode_step(balanced // 2, 0).expected == pytest.approx(read_s, rel=0.1)
    assert speed().decode_step(4 * balanced, 0).expected == pytest.approx(4 * read_s, rel=0.1)


def test_fp8_weights_are_multiplied_as_such():
    quantized = replace(LLAMA_8B, format=CT_FP8)
    assert speed(quantized).prefill(8192).expected == pytest.approx(speed().prefill(8192).expected / 2, rel=0.01)


def test_experts_that_no_token_goes_to_are_not_read():
    experts = replace(
        LLAMA_8B, num_experts=64, num_active_experts=4, weights=(*LLAMA_8B.weights, WeightGroup(Role.EXPERT, 10**11, 2 * 10**11))
    )
    one, many = (speed(experts).decode_step(batch, 0).expected for batch in (1, 1000))
    base = speed().decode_step(1, 0).expected
    assert one - base == pytest.approx(2e11 * 4 / 64 / 4.8e12)
    assert many - base == pytest.approx(2e11 / 4.8e12, rel=0.05)


def test_tensor_parallelism_divides_the_work_and_adds_exchanges():
    one, two = speed().decode_step(1, 0), speed(layout=Layout(tensor=2)).decode_step(1, 0)
    exchanges = two.expected - one.expected / 2
    assert exchanges == pytest.approx(64 * H200.link.all_reduce_s(4096 * 2, 2).expected)
    over_pcie = speed(layout=Layout(tensor=2), hardware=replace(find_hardware("l4"), decode_efficiency=PERFECT))
    assert over_pcie.hardware.link.kind == "pcie"


def test_pipeline_stages_make_no_token_faster_and_each_works_on_its_part_of_the_batch():
    staged, whole = speed(layout=Layout(pipeline=4)), speed()
    assert staged.decode_step(1, 512).expected == pytest.approx(whole.decode_step(1, 512).expected)
    assert staged.decode_step(4, 512).expected == pytest.approx(whole.decode_step(1, 512).expected)
    crowd = 8192  # bound by multiplications, which all stages make at once
    assert staged.tokens_per_s(crowd, 0).expected == pytest.approx(4 * whole.tokens_per_s(crowd, 0).expected, rel=0.01)


def test_gathered_contexts_pass_through_memory_three_times():
    ours = replace(MARQUEE, step_overhead_s=NOTHING, layer_overhead_s=NOTHING)
    kv = 16 * 1024 * 131_072 / 4.8e12
    assert speed(engine=ours).decode_step(16, 1024).expected - speed().decode_step(16, 1024).expected == pytest.approx(2 * kv)


def test_verifying_drafts_reads_each_context_once():
    guesses = speed().verify_step(4, 4096, num_drafted=4).expected
    assert guesses == pytest.approx(speed().decode_step(4, 4096).expected, rel=0.01)  # still bound by reading
    assert speed().verify_step(4, 4096, 0) == speed().decode_step(4, 4096)


@given(st.integers(1, 300), st.integers(0, 8000), st.floats(0.001, 0.2))
def test_the_largest_batch_is_the_last_that_is_fast_enough(limit, context, step_s):
    model = speed()
    found = model.largest_batch(step_s, context, limit)
    assert 0 <= found <= limit
    assert found == 0 or model.decode_step(found, context).expected <= step_s
    assert found == limit or model.decode_step(found + 1, context).expected > step_s


@given(st.integers(1, 256), st.integers(0, 8000), st.integers(1, 8192))
def test_the_simulators_sum_is_never_faster_than_the_bound(batch, context, prompt):
    model = speed()
    timing = model.timing()
    assert timing.step_s(batch, 0, batch * context) >= 0.99 * model.decode_step(batch, context).expected - 16 * batch * 131_072 / 4.8e12
    assert timing.step_s(0, prompt, 0) >= 0.7 * speed().prefill(prompt).expected  # it leaves out what prompts do with their own contexts
