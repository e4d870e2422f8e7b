"""Batches of texts."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from archiver.quantize.quality.text import Text, batches


@given(lengths=st.lists(st.integers(2, 40), max_size=30), max_tokens=st.integers(1, 100))
def test_every_text_is_in_one_batch_of_bounded_size(lengths, max_tokens):
    texts = [Text(tuple(range(length))) for length in lengths]
    made = list(batches(texts, max_tokens))
    assert Counter(text for batch in made for text in batch) == Counter(texts)
    for batch in made:
        assert len(batch) == 1 or len(batch) * max(len(text.token_ids) for text in batch) <= max_tokens


def test_what_is_given_is_not_predicted():
    assert Text((5, 6, 7)).predicted == (6, 7)
    assert Text((5, 6, 7), num_given=2).predicted == (7,)
