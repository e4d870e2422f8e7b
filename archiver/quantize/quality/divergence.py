"""How far two models' predictions of the same next tokens are apart."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

_ROWS = 128  # positions at a time: a vocabulary of 150,000 in float32 takes 77 MB of them, for each of a few intermediate results


@dataclass(frozen=True)
class Divergence:
    """Two models at each of ``num_tokens`` positions: each tensor has one number a position, of the models ``before`` and ``after``.

    ``nll``: the negative log-likelihood of the token that does follow, in nats. ``kl``: KL(before || after), over the whole vocabulary.
    ``agrees``: whether both have the same likeliest token. ``is_broken``: whether a logit of ``after`` is infinite or NaN.
    """

    nll_before: Tensor
    nll_after: Tensor
    kl: Tensor
    agrees: Tensor
    is_broken: Tensor

    @classmethod
    def of(cls, before: Tensor, after: Tensor, token_ids: Tensor) -> Divergence:
        """Compare the logits ``before`` and ``after`` ``(num_tokens, vocabulary)`` of the tokens ``token_ids`` ``(num_tokens,)``."""
        rows = [slice(start, start + _ROWS) for start in range(0, len(token_ids), _ROWS)]
        return cls.join(cls._of_rows(before[part], after[part], token_ids[part]) for part in rows)

    @classmethod
    def join(cls, parts: Iterable[Divergence]) -> Divergence:
        """Put positions one after the other."""
        listed = list(parts)
        return cls(*(torch.cat([getattr(part, field.name) for part in listed]) for field in fields(cls)))

    @classmethod
    def _of_rows(cls, before: Tensor, after: Tensor, token_ids: Tensor) -> Divergence:
        logp_before = before.float().log_softmax(-1)
        logp_after = after.float().log_softmax(-1)
        kl = (logp_before.exp() * (logp_before - logp_after)).sum(-1)
        chosen = token_ids[:, None]
        return cls(
            nll_before=-logp_before.gather(1, chosen)[:, 0],
            nll_after=-logp_after.gather(1, chosen)[:, 0],
            kl=kl.clamp(min=0.0),  # equal distributions round to a little below
            agrees=logp_before.argmax(-1) == logp_after.argmax(-1),
            is_broken=~after.isfinite().all(-1),
        )


def perplexity(nll: Tensor) -> float:
    """Return exp of the mean: infinite where that is beyond all numbers, NaN if one of them is."""
    return float(nll.double().mean().exp())


def common_length(left: Iterable[int], right: Iterable[int]) -> int:
    """Return how many tokens two texts begin with alike."""
    length = 0
    for a, b in zip(left, right, strict=False):
        if a != b:
            break
        length += 1
    return length
