"""Split attention over blocks is plain attention to the same keys."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.engine.attention import Scoring
from handlers.engine.gpu.kernels.decode_attention import choose_num_splits, decode_attention
from tests.handlers.engine.gpu.kernels.paged_attention_oracle import TOLERANCES, make_contexts, scorings


@settings(max_examples=15)
@given(
    lengths=st.lists(st.integers(0, 150), min_size=1, max_size=3),
    num_kv_heads=st.integers(1, 2),
    num_repeats=st.integers(1, 8),
    head_dim=st.sampled_from([64, 80, 96, 128, 256]),
    block_tokens=st.sampled_from([16, 32, 64]),
    dtype=st.sampled_from(list(TOLERANCES)),
    is_fp8=st.booleans(),
    scoring=scorings,
    num_splits=st.sampled_from([1, 2, 3, 8]),
    seed=st.integers(0, 2**32),
)
def test_each_row_attends_to_its_context(
    lengths, num_kv_heads, num_repeats, head_dim, block_tokens, dtype, is_fp8, scoring, num_splits, seed
):
    torch.manual_seed(seed)
    contexts = make_contexts(lengths, num_kv_heads, head_dim, block_tokens, dtype, is_fp8=is_fp8)
    query = torch.randn(len(lengths), num_kv_heads * num_repeats, head_dim).to(dtype)
    got = decode_attention(
        *(query, contexts.keys, contexts.values, contexts.block_table, contexts.lengths, scoring),
        num_splits=num_splits,
        scales=contexts.scales,
    )
    expected = torch.cat([contexts.attend(query[[row]], row, contexts.lengths[[row]], scoring) for row in range(len(lengths))])
    torch.testing.assert_close(got, expected, rtol=TOLERANCES[dtype], atol=TOLERANCES[dtype])


def test_rows_may_share_a_sequence_and_lie_apart_in_memory():
    """As guesses that are verified do: the same blocks, and a key more for each."""
    contexts = make_contexts([37], 2, 64, 16, torch.float32)
    query = torch.randn(4, 3, 4, 64)[:, 1]
    lengths = torch.arange(34, 38, dtype=torch.int32)
    table = contexts.block_table.expand(4, -1)
    got = decode_attention(query, contexts.keys, contexts.values, table, lengths, Scoring(), num_splits=2)
    torch.testing.assert_close(got, contexts.attend(query, 0, lengths, Scoring()), rtol=1e-5, atol=1e-5)


@given(st.integers(0, 512), st.integers(1, 32), st.integers(0, 200_000), st.integers(1, 200))
def test_splits_fill_the_gpu_with_parts_that_are_worth_it(num_rows, num_kv_heads, max_context, num_multiprocessors):
    num_splits = choose_num_splits(num_rows, num_kv_heads, max_context, num_multiprocessors)
    assert 1 <= num_splits <= 64
    assert num_splits == 1 or max_context >= 256 * num_splits
    assert num_splits == 1 or (num_splits - 1) * num_rows * num_kv_heads < 2 * num_multiprocessors


@pytest.mark.parametrize(("num_rows", "max_context", "expected"), [(1, 32768, 33), (1, 1024, 4), (64, 32768, 1), (1, 100, 1)])
def test_splits_of_a_model_with_8_kv_heads_on_an_h200(num_rows, max_context, expected):
    assert choose_num_splits(num_rows, 8, max_context, 132) == expected
