"""Attention of prompt chunks is plain causal attention to their prefixes and themselves."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.engine.gpu.kernels.prefill_attention import prefill_attention
from tests.handlers.engine.gpu.kernels.paged_attention_oracle import TOLERANCES, make_contexts, scorings

chunks = st.tuples(st.integers(0, 70), st.integers(1, 140))  # cached before, new


@settings(max_examples=15)
@given(
    chunks=st.lists(chunks, min_size=1, max_size=2),
    num_kv_heads=st.integers(1, 2),
    num_repeats=st.integers(1, 3),
    head_dim=st.sampled_from([64, 80, 96, 128, 256]),
    block_tokens=st.sampled_from([16, 32, 64]),
    dtype=st.sampled_from(list(TOLERANCES)),
    is_fp8=st.booleans(),
    scoring=scorings,
    slack=st.integers(0, 200),
    seed=st.integers(0, 2**32),
)
def test_each_token_attends_up_to_itself(chunks, num_kv_heads, num_repeats, head_dim, block_tokens, dtype, is_fp8, scoring, slack, seed):
    torch.manual_seed(seed)
    sizes = [size for _, size in chunks]
    contexts = make_contexts([sum(chunk) for chunk in chunks], num_kv_heads, head_dim, block_tokens, dtype, is_fp8=is_fp8)
    starts = torch.tensor([0, *sizes]).cumsum(0).int()
    query = torch.randn(sum(sizes), num_kv_heads * num_repeats, head_dim).to(dtype)
    got = prefill_attention(
        *(query, contexts.keys, contexts.values, contexts.block_table, starts, contexts.lengths, max(sizes) + slack, scoring),
        scales=contexts.scales,
    )
    expected = [
        contexts.attend(query[starts[chunk] : starts[chunk + 1]], chunk, torch.arange(before + 1, before + size + 1), scoring)
        for chunk, (before, size) in enumerate(chunks)
    ]
    torch.testing.assert_close(got, torch.cat(expected), rtol=TOLERANCES[dtype], atol=TOLERANCES[dtype])
