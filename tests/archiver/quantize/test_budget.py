"""Budgets: what is read, what is exceeded, and in which words."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from archiver.errors import UsageError
from archiver.quantize.budget import exceeded, parse_budget
from archiver.quantize.receipt import Quality

QUALITY = Quality(
    evaluation="a file",
    num_tokens=1000,
    perplexity_before=10.0,
    perplexity_after=10.4,
    kl=0.03,
    kl_p99=0.4,
    top1_agreement=0.95,
    greedy_tokens=64,
    greedy_divergence=(64, 3),
    worst_layers=(),
)


def test_reads_limits_by_name():
    assert parse_budget("kl=0.05, ppl=1.05,top1=0.95") == {"kl": 0.05, "ppl": 1.05, "top1": 0.95}
    assert parse_budget(None) == parse_budget("") == {}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("lk=0.1", r"no limit called 'lk'; there are kl \(.*\), kl_p99 \(.*\), ppl \(.*\), top1 \("),
        ("kl", r"kl needs a number from 0 up, as in kl=0\.05; got ''"),
        ("kl=low", "got 'low'"),
        ("ppl=nan", "got 'nan'"),
        ("ppl=-1", "got '-1'"),
        ("kl=0.1,kl=0.2", "limits kl twice"),
    ],
)
def test_a_mistake_is_named_with_what_would_be_right(text, complaint):
    with pytest.raises(UsageError, match=complaint):
        parse_budget(text)


def test_what_keeps_to_the_budget_exceeds_nothing():
    assert exceeded({"kl": 0.03, "kl_p99": 0.4, "ppl": 1.04, "top1": 0.95}, QUALITY) == ()
    assert exceeded({}, QUALITY) == ()


def test_each_exceeded_limit_is_a_sentence_with_both_numbers():
    assert exceeded({"kl": 0.02, "ppl": 1.03, "top1": 0.96}, QUALITY) == (
        "kl: the mean KL divergence in nats is 0.03, and the budget asks for at most 0.02",
        "ppl: perplexity as a multiple of the source's is 1.04, and the budget asks for at most 1.03",
        "top1: the share of positions with the same likeliest token is 0.95, and the budget asks for at least 0.96",
    )


@pytest.mark.parametrize("name", ["kl", "kl_p99", "ppl", "top1"])
def test_not_a_number_exceeds_every_limit(name):
    nan = math.nan
    broken = replace(QUALITY, kl=nan, kl_p99=nan, perplexity_after=nan, top1_agreement=nan)
    assert len(exceeded({name: 0.0 if name == "top1" else 1e9}, broken)) == 1


def test_broken_logits_exceed_even_no_budget():
    (sentence,) = exceeded({}, replace(QUALITY, num_broken=7))
    assert sentence == "the quantized model's logits are not finite numbers at 7 of 1,000 positions"
