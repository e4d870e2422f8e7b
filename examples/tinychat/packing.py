"""Pack conversations of different lengths into batches of one shape each, short ones and long ones apart."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from chat_tokenizer import CONTEXT_LENGTH, TokenizedConversation

IGNORE = -100
# Both shapes hold 2048 tokens. Most conversations are short, and attention over 256 positions is far cheaper than over 1024.
SHORT, LONG = (8, 256), (2, CONTEXT_LENGTH)


@dataclass(frozen=True)
class Batch:
    """Token ids and the labels of the next token, both (rows, length); labels that do not count are IGNORE."""

    input_ids: torch.Tensor
    labels: torch.Tensor


class _Packer:
    """First-fit packing into a fixed number of rows. Conversations in a row see each other: the <|bos|> tells them apart."""

    def __init__(self, shape: tuple[int, int], pad_id: int) -> None:
        self._shape = shape
        self._pad_id = pad_id
        self._reset()

    def add(self, conversation: TokenizedConversation) -> Batch | None:
        """Place the conversation; if it fits nowhere, return what is packed so far and start afresh with it."""
        ids, is_target = conversation.ids[: self._shape[1]], conversation.is_target[: self._shape[1]]
        finished = None
        row = self._row_with_room(len(ids))
        if row is None:
            finished = Batch(self._ids, self._labels)
            self._reset()
            row = 0
        start, end = self._used[row], self._used[row] + len(ids)
        self._ids[row, start:end] = torch.tensor(ids)
        # The label of a position is the token after it.
        labels = torch.tensor([token if target else IGNORE for token, target in zip(ids, is_target, strict=True)])
        first = max(start - 1, 0)
        self._labels[row, first : first + len(labels) - (start == 0)] = labels[1:] if start == 0 else labels
        self._used[row] = end
        return finished

    def _row_with_room(self, length: int) -> int | None:
        return next((row for row, used in enumerate(self._used) if used + length <= self._shape[1]), None)

    def _reset(self) -> None:
        self._ids = torch.full(self._shape, self._pad_id)
        self._labels = torch.full(self._shape, IGNORE)
        self._used = [0] * self._shape[0]


def batches(conversations: Iterable[TokenizedConversation], pad_id: int) -> Iterator[Batch]:
    """Full batches of either shape, in the order in which they fill up."""
    short, long = _Packer(SHORT, pad_id), _Packer(LONG, pad_id)
    for conversation in conversations:
        packer = short if len(conversation.ids) <= SHORT[1] else long
        if (batch := packer.add(conversation)) is not None:
            yield batch
