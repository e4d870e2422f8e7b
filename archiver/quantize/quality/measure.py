"""Measure what quality a quantized model lost, against its source, both as this machine serves them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from archiver.errors import ArchiverError
from archiver.quantize.producer import OnProgress
from archiver.quantize.quality.divergence import Divergence, common_length, perplexity
from archiver.quantize.quality.evaluation import Evaluation
from archiver.quantize.quality.generation import generate, running_engine
from archiver.quantize.quality.layers import worst_layers
from archiver.quantize.quality.loading import load_as_served
from archiver.quantize.quality.text import Text, batches
from archiver.quantize.receipt import Quality
from handlers.requests import SamplingParams

GREEDY_TOKENS = 64
_BATCH_TOKENS = 1024


def measure_quality(source: Path, quantized: Path, evaluation: Evaluation, on_progress: OnProgress) -> Quality:
    """Compare two checkpoints on the same tokens and prompts.

    The reference is the source as it would be served here, in bfloat16 on most machines, and not an ideal in float32. Both models are in
    memory at once, and their logits one batch at a time: the KL divergence is over the whole vocabulary, and nothing of it is kept.
    Raises ArchiverError if a model cannot be loaded, or the source is broken itself.
    """
    before, after = load_as_served(source), load_as_served(quantized)
    divergence = Divergence.join(_divergences(before, after, evaluation, on_progress))
    worst = worst_layers(before, after)
    on_progress("greedy texts", 0, 2)
    text_before = _greedy_texts(before, evaluation)
    on_progress("greedy texts", 1, 2)
    text_after = _greedy_texts(after, evaluation)
    on_progress("greedy texts", 2, 2)
    return Quality(
        evaluation=evaluation.description,
        num_tokens=len(divergence.kl),
        perplexity_before=perplexity(divergence.nll_before),
        perplexity_after=perplexity(divergence.nll_after),
        kl=float(divergence.kl.double().mean()),
        kl_p99=float(divergence.kl.quantile(0.99)),
        top1_agreement=float(divergence.agrees.double().mean()),
        greedy_tokens=GREEDY_TOKENS,
        greedy_divergence=tuple(_same_tokens(*texts) for texts in zip(text_before, text_after, strict=True)),
        worst_layers=worst,
        num_broken=int(divergence.is_broken.sum()),
    )


def _divergences(before: Any, after: Any, evaluation: Evaluation, on_progress: OnProgress) -> Iterator[Divergence]:
    num_done = 0
    for batch in batches(evaluation.texts, _BATCH_TOKENS):
        on_progress("evaluation texts", num_done, len(evaluation.texts))
        logits_before, logits_after = _logits(before, batch), _logits(after, batch)
        if logits_before.shape != logits_after.shape:
            sizes = f"{logits_after.shape[-1]} tokens, and its source of {logits_before.shape[-1]}"
            raise ArchiverError(f"the quantized model has a vocabulary of {sizes}: they cannot be compared")
        if not logits_before.isfinite().all():
            raise ArchiverError("the source model's own logits are not finite numbers: there is nothing to compare with")
        yield Divergence.of(logits_before, logits_after, torch.tensor([token for text in batch for token in text.predicted]))
        num_done += len(batch)
    on_progress("evaluation texts", num_done, len(evaluation.texts))


@torch.inference_mode()
def _logits(model: Any, batch: Sequence[Text]) -> Tensor:
    """Return the logits of all predicted tokens one after the other, ``(num_predicted, vocabulary)``, on the CPU.

    Shorter texts are filled up behind their end, which a causal model does not see from before it.
    """
    longest = max(len(text.token_ids) for text in batch)
    filled = [text.token_ids + (0,) * (longest - len(text.token_ids)) for text in batch]
    logits: Tensor = model(torch.tensor(filled, device=model.device), use_cache=False).logits
    return torch.cat([row[text.num_given - 1 : len(text.token_ids) - 1] for row, text in zip(logits, batch, strict=True)]).cpu()


def _greedy_texts(model: Any, evaluation: Evaluation) -> list[list[int]]:
    greedy = SamplingParams(max_tokens=GREEDY_TOKENS, temperature=0.0)
    with running_engine(model) as engine:
        return generate(engine, evaluation.prompts, [greedy] * len(evaluation.prompts))


def _same_tokens(before: list[int], after: list[int]) -> int:
    return GREEDY_TOKENS if before == after else common_length(before, after)
