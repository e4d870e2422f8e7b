"""Texts as models predict them, and batches of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Text:
    """Token ids, of which the first ``num_given``, at least one, are given and the others predicted."""

    token_ids: tuple[int, ...]
    num_given: int = 1

    @property
    def predicted(self) -> tuple[int, ...]:
        """The tokens that are predicted."""
        return self.token_ids[self.num_given :]


def batches(texts: Iterable[Text], max_tokens: int) -> Iterator[list[Text]]:
    """Yield all texts in batches of similar length: filled up to its longest, a batch of several has ``max_tokens`` at most."""
    batch: list[Text] = []
    for text in sorted(texts, key=lambda text: len(text.token_ids)):
        if batch and len(text.token_ids) * (len(batch) + 1) > max_tokens:
            yield batch
            batch = []
        batch.append(text)
    if batch:
        yield batch
