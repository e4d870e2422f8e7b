"""The ledger's arithmetic, against the guide's own and sums done by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.plan.engines import MARQUEE, MARQUEE_NATIVE, VLLM
from archiver.plan.hardware.catalogue import find_hardware
from archiver.plan.layout import Layout
from archiver.plan.ledger import kv_budget, predict_ledger
from archiver.plan.model.facts import CacheLayer, Role
from archiver.plan.sizes import EngineSizes, Replica
from handlers.memory_ledger import Interval
from tests.archiver.plan.shapes import LLAMA_8B, LLAMA_70B, decoder

H100 = find_hardware("h100-sxm")
SIZES = EngineSizes(max_model_len=8192, max_running=64)
GIB = 1 << 30


def replica(model=LLAMA_8B, engine=VLLM, layout=Layout(), **sizes):
    return Replica(model, engine, layout, replace(SIZES, **sizes))


def line(ledger, part):
    return next(line for line in ledger.lines if line.part == part)


def test_the_guides_figures_of_llama_8b():
    assert LLAMA_8B.num_elements == 8_030_261_248
    assert replica().sequence_bytes(16) == 16 * 131_072
    assert 256 * replica().sequence_bytes(8192) == 256 * GIB
    assert "32 layers × 8 KV heads × 256 numbers × 2 bytes = 131,072 a token" in line(predict_ledger(replica(), H100), "kv_cache").formula


def test_an_fp8_cache_takes_half():
    assert replica(kv_dtype="fp8").sequence_bytes(8192) == replica().sequence_bytes(8192) / 2


def test_weights_are_as_sure_as_what_they_come_from():
    headers, computed, unknown = (
        line(predict_ledger(replica(replace(LLAMA_8B, is_exact=exact, is_known=known)), H100), "weights").bytes
        for exact, known in ((True, True), (False, True), (False, False))
    )
    assert headers.expected == computed.expected == unknown.expected
    assert unknown.low < computed.low < headers.low < headers.expected < headers.high < computed.high < unknown.high


@pytest.mark.parametrize(("tensor", "heads"), [(1, 8), (2, 4), (8, 1), (16, 1)])
def test_ranks_beyond_the_kv_heads_hold_copies(tensor, heads):
    assert replica(layout=Layout(tensor=tensor)).sequence_bytes(16) == 16 * 32 * heads * 256 * 2


def test_every_byte_of_an_accelerator_is_on_a_line():
    ledger = predict_ledger(replica(max_running=256), H100)
    assert ledger.total().expected == pytest.approx(H100.memory_bytes, abs=replica().sequence_bytes(16) + 8)


def test_weights_are_divided_by_their_roles():
    embedding, key_values = LLAMA_70B.role_bytes(Role.EMBEDDING), LLAMA_70B.role_bytes(Role.KEY_VALUE)
    norms = LLAMA_70B.role_bytes(Role.NORM)
    on_16 = line(predict_ledger(replica(LLAMA_70B, layout=Layout(tensor=16)), H100), "weights").bytes.expected
    rest = LLAMA_70B.weight_bytes - key_values - norms
    assert on_16 == pytest.approx(rest / 16 + key_values / 8 + norms, abs=1)  # 8 KV heads: the ranks hold each twice
    own = line(predict_ledger(replica(LLAMA_70B, layout=Layout(tensor=16), engine=MARQUEE), H100), "weights").bytes.expected
    assert own == pytest.approx(on_16 + embedding * 15 / 16, abs=1)  # the embeddings are on each rank
    staged = line(predict_ledger(replica(LLAMA_70B, layout=Layout(pipeline=2)), H100), "weights").bytes.expected
    assert staged == pytest.approx((LLAMA_70B.weight_bytes - 2 * embedding) / 2 + embedding, abs=1)


def test_an_engine_that_gathers_keeps_room_for_one_layer_more():
    budget = kv_budget(replica(engine=MARQUEE), H100, Interval.exact(20 * GIB)).expected
    assert budget == pytest.approx((0.85 * H100.memory_bytes - 20 * GIB) * 32 / 33)
    assert budget + budget / 32 <= 0.85 * H100.memory_bytes - 20 * GIB + 1


def test_our_engine_keeps_whole_windows_and_expanded_latents():
    sliding = decoder(cache=(CacheLayer("sliding", 8, 256, window=1024),) * 32)
    assert replica(sliding).sequence_bytes(8192) == 32 * 1024 * 8 * 256 * 2
    assert replica(sliding, MARQUEE).sequence_bytes(8192) == 32 * 8192 * 8 * 256 * 2
    latent = decoder(cache=(CacheLayer("latent", 1, 576, expanded_elements=32 * 320),) * 32)
    assert replica(latent, layout=Layout(tensor=4)).sequence_bytes(8192) == 32 * 8192 * 576 * 2  # on every rank
    assert replica(latent, MARQUEE).sequence_bytes(8192) == 32 * 8192 * 32 * 320 * 2


def test_states_do_not_grow_with_the_sequence():
    hybrid = decoder(cache=(CacheLayer("state", 32, state_elements=32 * 64 * 128, state_bytes=4),) * 24 + (CacheLayer("full", 8, 256),) * 8)
    state = 24 * 32 * 64 * 128 * 4
    assert replica(hybrid).sequence_bytes(16) == state + 8 * 16 * 8 * 256 * 2
    assert replica(hybrid).sequence_bytes(16_000) == state + 8 * 16_000 * 8 * 256 * 2


def test_a_cpu_lends_a_quarter_of_what_is_free_and_no_more_than_4_gib():
    cpu = replace(H100, device="cpu", memory_bytes=8 * GIB)
    budget = kv_budget(replica(engine=MARQUEE_NATIVE), cpu, Interval.exact(2 * GIB))
    assert budget == Interval((8 - 4 - 2) * GIB / 4, 6 * GIB / 4, 6 * GIB / 4)
    assert kv_budget(replica(engine=MARQUEE_NATIVE), replace(cpu, memory_bytes=256 * GIB), Interval.exact(0)).expected == 4 * GIB
    assert kv_budget(replica(engine=MARQUEE_NATIVE, kv_memory_bytes=GIB), cpu, Interval.exact(2 * GIB)) == Interval.exact(GIB)


@given(
    max_running=st.integers(1, 512),
    max_model_len=st.integers(16, 131072),
    chunk=st.integers(1, 8192),
    fraction=st.floats(0.05, 1),
    tensor=st.sampled_from([1, 2, 4, 8]),
    gpu=st.sampled_from(["t4", "l4", "a100-80", "h200"]),
)
def test_whatever_the_sizes_no_line_is_negative_and_intervals_are_in_order(max_running, max_model_len, chunk, fraction, tensor, gpu):
    sizes = EngineSizes(max_model_len, max_running, chunk, memory_fraction=fraction)
    hardware = find_hardware(gpu)
    ledger = predict_ledger(Replica(LLAMA_8B, VLLM, Layout(tensor=tensor), sizes), hardware)
    for each in ledger.lines:
        assert 0 <= each.bytes.low <= each.bytes.expected <= each.bytes.high, each
    taken = ledger.total("weights", "activations", "logits", "context", "graphs")
    pool = line(ledger, "kv_cache").bytes
    assert pool.expected == 0 or pool.expected + taken.expected <= fraction * hardware.memory_bytes + 8  # lines are rounded up
