"""The arithmetic of the KV budget, for any device and any configuration."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from memory_fakes import GIB, MIB

from handlers.config import EngineConfig
from handlers.engine.memory.budget import TokenBytes, cpu_budget, gpu_budget
from handlers.engine.memory.footprint import Footprint

SIZES = st.integers(0, 200 * GIB)
TOKEN = TokenBytes(kept=131_072, copied=4_096)  # Llama 3.1 8B in bfloat16: 32 layers of 8 heads, keys and values of 128 numbers each


def test_of_an_h100_with_an_8b_model():
    footprint = Footprint(weights=16_060_522_496, activations=900 * MIB, context=560 * MIB)
    budget = gpu_budget(EngineConfig(), footprint, TOKEN, total_bytes=80 * GIB, free_bytes=64 * GIB)
    spare = int(0.85 * 80 * GIB) - 16_060_522_496 - 1460 * MIB
    assert budget == spare * 32 // 33
    assert 375_000 < budget // TOKEN.kept < 420_000  # tokens


@given(SIZES, SIZES, SIZES, SIZES, SIZES, st.floats(0.01, 1), st.integers(1, 10**6), st.integers(0, 10**6))
def test_cache_and_copy_and_all_else_stay_within_the_share_and_what_is_free(
    total, free, weights, activations, context, fraction, kept, copied
):
    footprint = Footprint(weights=weights, activations=activations, context=context)
    token = TokenBytes(kept, min(copied, kept))
    budget = gpu_budget(EngineConfig(memory_fraction=fraction), footprint, token, total_bytes=total, free_bytes=free)
    assert budget >= 0
    if budget:
        copy = budget * token.copied // token.kept
        assert budget + copy + footprint.fixed <= fraction * total
        assert budget + copy + activations < free


@given(SIZES, SIZES, st.floats(0.001, 500))
def test_what_the_operator_set_is_an_upper_bound_on_a_gpu(total, free, gib):
    def budget(config: EngineConfig) -> int:
        return gpu_budget(config, Footprint(weights=GIB), TOKEN, total_bytes=total, free_bytes=free)

    assert budget(EngineConfig(kv_memory_gib=gib)) == min(budget(EngineConfig()), int(gib * GIB))


def test_on_a_cpu_it_is_the_operators_or_a_part_of_what_is_free():
    assert cpu_budget(EngineConfig(kv_memory_gib=0.5), free_bytes=0) == 1 << 29
    assert cpu_budget(EngineConfig(), free_bytes=8 * GIB) == 2 * GIB
    assert cpu_budget(EngineConfig(), free_bytes=100 * GIB) == 4 * GIB
