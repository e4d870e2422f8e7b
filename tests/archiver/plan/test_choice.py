"""The choice among layouts, the verdict, and what would make fit what does not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archiver.plan.choice import choose
from archiver.plan.engines import MARQUEE
from archiver.plan.hardware.catalogue import find_hardware
from archiver.plan.layout import Layout
from archiver.plan.model.facts import CacheLayer
from archiver.plan.option import evaluate
from archiver.plan.plan import make_plan
from archiver.plan.remedies import find_remedies
from archiver.plan.request import PlanRequest
from archiver.plan.verdict import judge
from archiver.plan.workload import Quantiles, Workload
from handlers.quant.formats import CT_FP8
from tests.archiver.plan.shapes import LLAMA_8B, LLAMA_70B

H100, L4 = find_hardware("h100-sxm"), find_hardware("l4")
LONG = Workload(Quantiles(7168, 7168), Quantiles(1024, 1024), concurrency=256)


def request(model=LLAMA_8B, hardware=H100, count=1, **others):
    return PlanRequest(model, hardware, count, **others)


def test_the_guides_example_does_not_fit_and_three_things_would_help():
    plan = make_plan(request(workload=LONG, has_stated_load=True))
    assert str(plan.verdict).startswith("won't fit: 256 sequences of 8,192 tokens take 256 GiB of KV cache, and ")
    assert len(plan.remedies) == 3
    for remedy in plan.remedies:
        assert judge(choose(remedy.request).option).fits != "no", remedy.change
    assert "at once instead of 256" in plan.remedies[0].change
    assert "instead of 8,192 (handler.engine.max_model_len)" in plan.remedies[1].change


def test_a_plain_load_fits_without_advice_to_make_it_fit():
    plan = make_plan(request())
    assert (plan.verdict.fits, plan.remedies) == ("yes", ())


def test_it_fits_if_not_all_are_long_at_once():
    load = Workload(Quantiles(1000, 12_000), Quantiles(200, 1000), concurrency=128)
    verdict = judge(choose(request(workload=load, has_stated_load=True)).option)
    assert verdict.fits == "if"
    assert "not all are long at once" in verdict.sentence


def test_a_sequence_longer_than_the_model_takes_is_no_question_of_memory():
    verdict = judge(choose(request(settings={"max_model_len": 4096}, workload=LONG)).option)
    assert verdict.sentence == "sequences of 8,192 tokens are asked for, and 4,096 is the longest"


def test_weights_that_do_not_fit_want_fewer_bits_or_more_devices():
    changes = [remedy.change for remedy in find_remedies(choose(request(LLAMA_70B)).option)]
    assert changes[0].startswith("AWQ weights of 4 bits")
    assert any(change.startswith("4 × NVIDIA H100") and "tensor 4" in change for change in changes)


def test_whole_replicas_are_preferred_for_throughput():
    choice = choose(request(count=4, workload=Workload(concurrency=256)))
    assert choice.option.layout == Layout(data=4)
    reasons = {str(each.option.layout): each.reason for each in choice.rejected}
    assert len(reasons) == 5
    assert "pipeline stages wait for each other" in reasons["tensor 1 × pipeline 4 × data 1"]
    assert "at full load against" in reasons["tensor 4 × pipeline 1 × data 1"]


def test_latency_that_one_device_cannot_give_is_bought_with_tensor_parallelism():
    choice = choose(request(count=4, workload=Workload(concurrency=256, itl_ms=5), has_stated_load=True))
    assert choice.option.layout.tensor == 2
    assert 1000 * choice.option.itl_s.expected <= 5
    assert choice.option.replica.engine.name == "vllm"  # ours takes longer between kernels


def test_a_model_too_large_for_one_device_is_divided():
    choice = choose(request(LLAMA_70B, count=4))
    assert choice.option.layout == Layout(tensor=4)
    assert "model alone takes" in {each.option.layout: each.reason for each in choice.rejected}[Layout(data=4)]


def test_heads_that_cannot_be_divided_rule_a_way_out():
    odd = replace(LLAMA_70B, num_heads=60, num_kv_heads=6)
    reasons = {each.option.layout: each.reason for each in choose(request(odd, count=8)).rejected}
    assert reasons[Layout(tensor=8)] == "8 does not divide 60 attention heads"


def test_a_rate_that_prompts_alone_exceed_is_said():
    load = Workload(Quantiles(8000, 8000), Quantiles(50, 50), rate=20)
    missed = make_plan(request(workload=load, has_stated_load=True)).missed_target
    assert missed is not None and missed.startswith("20 requests a second would keep 1 device(s) busy for ")
    assert make_plan(request(workload=replace(load, rate=0.5), has_stated_load=True)).missed_target is None


def test_a_rate_asks_for_room_for_those_in_progress():
    quick, slow = (choose(request(workload=Workload(rate=rate), has_stated_load=True)).option for rate in (1, 50))
    assert quick.wanted_sequences < slow.wanted_sequences
    assert quick.wanted_sequences <= quick.max_running
    swamped = choose(request(workload=Workload(Quantiles(8000, 8000), Quantiles(50, 50), rate=1000), has_stated_load=True)).option
    assert swamped.wanted_sequences == 1024 and judge(swamped).fits == "no"


def test_a_replica_stays_within_one_machine():
    huge = replace(LLAMA_70B, num_heads=128, num_kv_heads=16)
    reasons = {each.option.layout: each.reason for each in choose(request(huge, count=16)).rejected}
    assert reasons[Layout(tensor=16)] == "a replica on 16 GPUs crosses machines, whose network is not planned for"


def test_what_our_engine_cannot_run_on_a_gpu_is_vllms():
    states = replace(LLAMA_8B, cache=(CacheLayer("state", 32, state_elements=32 * 64 * 128),) * 32)
    assert choose(request(states)).option.replica.engine.name == "vllm"
    assert choose(request(replace(LLAMA_8B, format=CT_FP8), find_hardware("a100-80"))).option.replica.engine.name == "vllm"
    assert choose(request(replace(LLAMA_8B, format=CT_FP8))).option.replica.engine.name == "marquee"


def test_slow_links_are_named():
    choice = choose(request(hardware=L4, count=2))
    reasons = {each.option.layout: each.reason for each in choice.rejected}
    assert choice.option.layout == Layout(data=2)
    assert "over PCIe, which makes them 30–50 % slower" in reasons[Layout(tensor=2)]


def test_a_layout_that_the_user_names_is_kept():
    choice = choose(request(count=4, layout=Layout(tensor=2, data=2)))
    assert (choice.option.layout, choice.rejected) == (Layout(tensor=2, data=2), ())


def test_what_the_user_settled_is_kept():
    option = choose(request(settings={"max_running": 7, "memory_fraction": 0.6, "max_model_len": 2048})).option
    assert (option.max_running, option.replica.sizes.memory_fraction, option.replica.sizes.max_model_len) == (7, 0.6, 2048)


@settings(max_examples=25, deadline=None)
@given(
    gpu=st.sampled_from(["t4", "l4", "a10g", "a100-40", "h100-sxm", "h200", "mi300x"]),
    count=st.sampled_from([1, 2, 4, 8]),
    concurrency=st.none() | st.integers(1, 2000),
    prompt=st.integers(1, 20_000),
    output=st.integers(1, 4000),
    itl_ms=st.none() | st.floats(0.5, 200),
)
def test_whatever_is_asked_the_plan_is_whole_and_what_fits_holds_what_it_promises(gpu, count, concurrency, prompt, output, itl_ms):
    load = Workload(Quantiles(prompt, prompt), Quantiles(output, output), concurrency=concurrency, itl_ms=itl_ms)
    plan = make_plan(request(hardware=find_hardware(gpu), count=count, workload=load, has_stated_load=True))
    option = plan.option
    assert option.layout.num_gpus == count
    assert 1 <= option.max_running <= (256 if concurrency is None else min(concurrency, 1024))
    assert len(plan.rejected) + 1 == len({rejection.option.layout for rejection in plan.rejected} | {option.layout})
    if plan.verdict.fits == "yes":
        assert option.wanted_sequences * option.replica.sequence_bytes(prompt + output) <= option.capacity.kv_bytes.low
    assert plan.to_json() == make_plan(plan.request).to_json()


@pytest.mark.parametrize(
    ("model", "layout", "reason"),
    [
        (LLAMA_70B, Layout(tensor=4), None),
        (LLAMA_70B, Layout(pipeline=4), "the engine marquee has no pipeline stages"),
        (replace(LLAMA_70B, model_type="mixtral"), Layout(tensor=4), "the engine marquee runs models of type mixtral on one device"),
        (replace(LLAMA_70B, format=CT_FP8), Layout(tensor=4), f"the engine marquee divides plain weights only, not {CT_FP8.name}"),
    ],
)
def test_our_engine_divides_what_its_handlers_divide(model, layout, reason):
    assert evaluate(request(model, count=4), MARQUEE, layout).engine_lacks == reason
