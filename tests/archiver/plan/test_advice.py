"""The guide's decision rules, each for the case that it is about."""

from __future__ import annotations

from dataclasses import replace

import pytest

from archiver.plan.choice import choose
from archiver.plan.hardware.catalogue import find_hardware
from archiver.plan.recommendation import advise
from archiver.plan.request import PlanRequest
from archiver.plan.workload import Quantiles, Workload
from handlers.quant.formats import AWQ, NF4
from tests.archiver.plan.shapes import LLAMA_8B, LLAMA_70B

H100, A100 = find_hardware("h100-sxm"), find_hardware("a100-80")
CPU = replace(H100, device="cpu", memory_bytes=64 << 30, flops={"float32": 1e12, "bfloat16": 2e12})


def advice(topic, model=LLAMA_8B, hardware=H100, count=1, **others):
    found = [each for each in advise(choose(PlanRequest(model, hardware, count, **others)).option) if each.topic == topic]
    assert len(found) == 1, topic
    return found[0]


@pytest.mark.parametrize(
    ("others", "host"),
    [
        ({}, "vLLM"),
        ({"has_own_code": True}, "TorchServe, Marquee's handlers"),
        ({"has_other_models": True}, "Triton"),
        ({"has_other_models": True, "has_own_code": True}, "Triton"),
        ({"hardware": CPU}, "TorchServe, engine continuous, GGUF or packed weights"),
        ({"hardware": CPU, "workload": Workload(concurrency=1)}, "TorchServe, engine llamacpp, GGUF or packed weights"),
    ],
)
def test_the_host_follows_the_guides_rule(others, host):
    assert advice("host", **others).choice == host


@pytest.mark.parametrize(
    ("others", "choice"),
    [
        ({}, "FP8 (marquee quantize --recipe fp8-dynamic)"),
        ({"hardware": A100}, "AWQ, 4 bits (marquee quantize --recipe awq-int4)"),
        ({"hardware": CPU}, "4 bits (marquee quantize --recipe gguf:Q4_K_M)"),
        ({"model": LLAMA_70B}, "AWQ, 4 bits (marquee quantize --recipe awq-int4)"),  # in FP8 it still would not fit
        ({"model": replace(LLAMA_8B, format=NF4)}, "another format"),
        ({"model": replace(LLAMA_8B, format=AWQ)}, "AWQ, as they are"),
    ],
)
def test_weights_follow_the_guides_rule(others, choice):
    assert advice("weights", **others).choice == choice


def test_nf4_on_a_gpu_is_named_slow():
    assert "slower than plain weights on GPUs" in advice("weights", replace(LLAMA_8B, format=NF4)).reason


def test_an_fp8_cache_is_for_loads_that_memory_limits():
    crowd = Workload(Quantiles(2000, 8000), Quantiles(500, 1000), concurrency=256)
    assert advice("KV cache", workload=crowd).choice == "FP8, on vLLM (--kv-dtype fp8)"
    assert advice("KV cache", workload=Workload(concurrency=4)).choice == "bfloat16"
    assert advice("KV cache", hardware=A100, workload=crowd).choice == "bfloat16"  # which has no FP8


def test_guesses_pay_where_latency_counts_and_the_device_waits_for_memory():
    assert advice("speculative decoding", workload=Workload(concurrency=1, itl_ms=20)).choice == "on, where the engine has it"
    assert advice("speculative decoding", workload=Workload(Quantiles(16, 32), Quantiles(16, 32), concurrency=256)).choice == "off"


def test_shared_prefixes_are_worth_their_time():
    reason = advice("prefix caching", workload=Workload(Quantiles(1100, 1200), shared_prefix_tokens=1000)).reason
    assert reason.startswith("1,000 shared tokens: a median prompt takes ")
    after, before = (float(word) for word in reason.removesuffix(" ms").split() if word.replace(".", "").isdigit())
    assert after < before / 2


def test_a_length_that_nobody_uses_is_cut():
    load = Workload(Quantiles(500, 1000), Quantiles(100, 200))
    assert advice("max_model_len", workload=load, has_stated_load=True).choice == "1,536"
    with pytest.raises(AssertionError):
        advice("max_model_len", workload=load)  # nobody said how long they are
