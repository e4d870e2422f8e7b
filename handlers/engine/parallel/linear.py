"""Linear layers of which each rank has a part: put into a rank's share of a model, they make it compute what the whole model computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from handlers.engine.parallel.collective import Collective
from handlers.tensor_parallel import vocabulary_rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def join(model: PreTrainedModel, collective: Collective) -> None:
    """Have each layer of a share that gives a part of a sum, or of the logits, exchange it with the other ranks."""
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and name.endswith((".o_proj", ".down_proj")):
            model.set_submodule(name, RowParallelLinear(module, collective))
    head: Any = model.get_output_embeddings()
    model.set_output_embeddings(VocabularyParallelLinear(head, model.config.get_text_config().vocab_size, collective))


class RowParallelLinear(nn.Module):
    """``(num_tokens, inputs of this rank)`` to ``(num_tokens, outputs)``: the ranks' products are summed, then the bias comes, once."""

    def __init__(self, share: nn.Linear, collective: Collective) -> None:
        super().__init__()
        self.weight, self.bias = share.weight, share.bias
        self._collective = collective

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the same on all ranks."""
        product = functional.linear(inputs, self.weight)
        self._collective.add_up(product)
        return product if self.bias is None else product + self.bias


class VocabularyParallelLinear(nn.Module):
    """``(num_tokens, hidden)`` to logits ``(num_tokens, vocab_size)``: each rank computes those of its tokens, and all get all.

    A head that is tied to the embeddings is whole on each rank, and only its own rows of it are read.
    """

    def __init__(self, head: nn.Linear, vocab_size: int, collective: Collective) -> None:
        super().__init__()
        self.weight = head.weight
        self._vocab_size, self._collective = vocab_size, collective
        self._most_rows = vocabulary_rows(vocab_size, 0, collective.num_ranks).stop
        is_whole = len(self.weight) == vocab_size
        self._rows = vocabulary_rows(vocab_size, collective.rank, collective.num_ranks) if is_whole else slice(None)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the same on all ranks."""
        logits = functional.linear(inputs, self.weight[self._rows])
        padded = functional.pad(logits, (0, self._most_rows - logits.shape[-1]))  # the last rank may have fewer
        return torch.cat(self._collective.gather(padded), dim=-1)[..., : self._vocab_size]
