"""What a plan makes of TorchServe's and the handler's configuration: their own readers must take it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from archiver.plan.choice import choose
from archiver.plan.configuration import engine_settings, frontend_keys, model_config, server_properties
from archiver.plan.engines import VLLM
from archiver.plan.hardware.catalogue import find_hardware
from archiver.plan.layout import Layout
from archiver.plan.plan import make_plan
from archiver.plan.request import PlanRequest
from archiver.plan.workload import Quantiles, Workload
from handlers.causal_lm import CausalLMHandler
from handlers.config import parse_handler_config
from tests.archiver.plan.shapes import LLAMA_8B, LLAMA_70B

H100 = find_hardware("h100-sxm")
CPU = replace(H100, device="cpu", memory_bytes=64 << 30, flops={"float32": 1e12, "bfloat16": 2e12})


def option(model=LLAMA_8B, hardware=H100, count=1, **others):
    return choose(PlanRequest(model, hardware, count, **others)).option


def test_the_handlers_section_is_one_that_handlers_take_and_has_what_was_planned():
    found = option(workload=Workload(concurrency=48), has_stated_load=True)
    engine = parse_handler_config(model_config(found, None)).engine
    assert (engine.max_running, engine.max_waiting) == (found.max_running, 144) == (48, 144)


def test_the_frontends_keys_are_those_that_the_handlers_class_wants():
    found = option(workload=Workload(concurrency=48), has_stated_load=True)
    content = model_config(found, None)
    wanted = CausalLMHandler.frontend_keys(parse_handler_config(content))
    assert {key: content[key] for key in wanted} == wanted


def test_on_a_cpu_of_which_nothing_was_said_the_defaults_stay():
    assert engine_settings(option(hardware=CPU)) == {}


def test_a_stated_load_on_a_cpu_gets_the_memory_that_it_takes():
    found = option(hardware=CPU, workload=Workload(Quantiles(100, 200), Quantiles(28, 56), concurrency=8), has_stated_load=True)
    assert engine_settings(found)["kv_memory_gib"] == pytest.approx(8 * 256 * 131_072 / 2**30, abs=0.001)
    assert engine_settings(found)["max_running"] == 8


def test_what_the_user_set_is_passed_on_as_it_is():
    assert engine_settings(option(settings={"block_tokens": 32, "max_running": 9}))["block_tokens"] == 32


def test_replicas_of_a_continuous_model_are_the_engines():
    settings = engine_settings(option(count=4))
    assert settings["replicas"] == 4
    assert frontend_keys(option(count=4), None)["deviceIds"] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("layout", "kind", "processes"),
    [
        (Layout(tensor=4), "tp", 4),
        (Layout(pipeline=4), "pp", 4),
        (Layout(tensor=2, pipeline=2), "pptp", 4),
        (Layout(tensor=2, data=2), "tp", 2),
    ],
)
def test_a_divided_replica_is_started_by_torchrun(layout, kind, processes):
    keys = frontend_keys(option(LLAMA_70B, count=4, layout=layout, engine=VLLM), None)
    assert (keys["parallelType"], keys["torchrun"]) == (kind, {"nproc-per-node": processes})


def test_our_engine_divides_a_replica_itself():
    found = option(LLAMA_70B, count=4, layout=Layout(tensor=2, data=2))
    assert {key: engine_settings(found)[key] for key in ("tensor_parallel", "replicas")} == {"tensor_parallel": 2, "replicas": 2}
    assert not {"parallelType", "torchrun"} & frontend_keys(found, None).keys()


def test_large_weights_get_time_to_load():
    small, large = (frontend_keys(option(model, count=4), None)["startupTimeout"] for model in (LLAMA_8B, LLAMA_70B))
    assert small >= 120 + 4 * 16e9 / 200e6
    assert large >= 120 + 141e9 / 200e6


def test_the_queue_holds_more_than_the_engine_and_a_body_the_longest_prompt():
    found = option(workload=Workload(concurrency=256), has_stated_load=True)
    properties = server_properties(found)
    assert int(properties["job_queue_size"]) > 2 * (found.max_running + 768)
    assert int(properties["max_request_size"]) >= 6_553_500
    heap = int(properties["vmargs"].split()[0].removeprefix("-Xmx").removesuffix("m"))
    assert 256 <= heap <= 8192
    long_prompts = server_properties(option(workload=Workload(Quantiles(50_000, 100_000)), has_stated_load=True))
    assert int(long_prompts["vmargs"].split()[0][4:-1]) > heap


def test_a_stated_rate_gets_a_batch_size_and_a_delay():
    plan = make_plan(PlanRequest(LLAMA_8B, H100, workload=Workload(rate=4), has_stated_load=True))
    assert plan.batching is not None
    keys = frontend_keys(plan.option, plan.batching)
    assert (keys["batchSize"], keys["maxBatchDelay"]) == (plan.batching.batch_size, plan.batching.max_batch_delay_ms)
    assert "continuousBatching" not in model_config(plan.option, plan.batching)
    assert keys["responseTimeout"] >= 3 * plan.batching.latency_s


def test_a_plan_for_another_engine_has_none_of_ours_keys():
    divided = option(LLAMA_70B, count=8, engine=VLLM)
    content = model_config(divided, None)
    assert content["minWorkers"] == content["maxWorkers"] == divided.layout.data
    assert not {"handler", "continuousBatching", "batchSize"} & content.keys()
