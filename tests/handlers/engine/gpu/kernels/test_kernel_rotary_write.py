"""Heads are normalized and rotated, and keys and values kept in their places, as the plain operations would."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from handlers.engine.gpu.kernels.rotary_write import rotate_and_write

TOLERANCES = {torch.float32: 1e-5, torch.float16: 2**-9, torch.bfloat16: 2**-6}
NUM_SLOTS, BLOCK_TOKENS, MAX_LEN = 64, 16, 50


def rotate(heads: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    first, second = heads.chunk(2, dim=-1)
    return heads * cosines[:, None] + torch.cat((-second, first), dim=-1) * sines[:, None]


def tables(head_dim: int) -> tuple[Tensor, Tensor]:
    angles = torch.arange(MAX_LEN)[:, None] * 100.0 ** -torch.linspace(0, 1, head_dim // 2)
    return angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)


@settings(max_examples=20)
@given(
    num_tokens=st.integers(1, 4),
    num_kv_heads=st.integers(1, 3),
    num_repeats=st.integers(1, 8),
    head_dim=st.sampled_from([64, 80, 96, 128, 256]),
    dtype=st.sampled_from(list(TOLERANCES)),
    has_norms=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_heads_are_rotated_and_kept(num_tokens, num_kv_heads, num_repeats, head_dim, dtype, has_norms, seed):
    torch.manual_seed(seed)
    num_heads = num_kv_heads * num_repeats
    qkv = torch.randn(num_tokens, (num_heads + 2 * num_kv_heads) * head_dim).to(dtype)
    cosines, sines = tables(head_dim)
    positions = torch.randint(MAX_LEN, (num_tokens,), dtype=torch.int32)
    places = torch.randperm(NUM_SLOTS)[:num_tokens]
    places[torch.rand(num_tokens) < 0.3] = -1
    query_norm, key_norm = torch.rand(2, head_dim).to(dtype) if has_norms else (None, None)
    keys, values = torch.full((2, NUM_SLOTS // BLOCK_TOKENS, BLOCK_TOKENS, num_kv_heads, head_dim), 7.0, dtype=dtype)

    query = rotate_and_write(
        *(qkv, cosines, sines, positions, places, keys, values),
        num_heads=num_heads,
        query_norm=query_norm,
        key_norm=key_norm,
        eps=1e-6,
    )

    heads = qkv.float().view(num_tokens, -1, head_dim)
    expected_query, expected_key, expected_value = heads.split([num_heads, num_kv_heads, num_kv_heads], dim=1)
    if has_norms:
        expected_query = functional.rms_norm(expected_query, (head_dim,), query_norm.float(), 1e-6)
        expected_key = functional.rms_norm(expected_key, (head_dim,), key_norm.float(), 1e-6)
    rotation = cosines[positions], sines[positions]
    tolerance = {"rtol": TOLERANCES[dtype], "atol": TOLERANCES[dtype]}
    torch.testing.assert_close(query, rotate(expected_query, *rotation).to(dtype), **tolerance)
    for cache, expected in ((keys, rotate(expected_key, *rotation)), (values, expected_value)):
        expected_cache = torch.full((NUM_SLOTS, num_kv_heads, head_dim), 7.0)
        expected_cache[places[places >= 0]] = expected[places >= 0]
        torch.testing.assert_close(cache.flatten(0, 1), expected_cache.to(dtype), **tolerance)


def test_an_fp8_cache_keeps_what_its_scales_leave():
    """With numbers that FP8 holds exactly: Triton's interpreter rounds others wrongly (it drops the carry into the exponent)."""
    scales = torch.tensor([0.25, 4.0])
    exact = torch.randn(3, 2, 80).to(torch.float8_e4m3fn).float()
    exact[:, :, ::7] = 448.0
    beyond = torch.where(exact == 448.0, 1e4, exact)  # clamped to the largest
    query, key, value = torch.zeros(3, 80 * 2), (beyond * scales[0]).flatten(1), (-beyond * scales[1]).flatten(1)
    keys, values = torch.zeros(2, 1, BLOCK_TOKENS, 2, 80).to(torch.float8_e4m3fn)
    standing_still = torch.ones(1, 80), torch.zeros(1, 80), torch.zeros(3, dtype=torch.int32)
    places = torch.tensor([4, 9, 0])
    rotate_and_write(torch.cat((query, key, value), 1), *standing_still, places, keys, values, num_heads=2, scales=scales)
    torch.testing.assert_close(keys.float()[0, places], exact, rtol=0, atol=0)
    torch.testing.assert_close(values.float()[0, places], -exact, rtol=0, atol=0)
    assert keys.float().count_nonzero() == exact.count_nonzero()
