"""Calibration samples: the first of the user's file, and what is wrong with them, in words and numbers.

Rounding is tuned to what the model sees here. Text unlike that which it will serve makes it worse there, however good its figures on other
text are.
"""

from __future__ import annotations

import hashlib
import math
import statistics
import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archiver.errors import UsageError
from archiver.quantize.producer import CalibrationSet
from archiver.quantize.receipt import Calibration
from archiver.quantize.request import QuantizeRequest
from archiver.quantize.samples import load_tokenizer, read_samples, tokenize

_FEWEST = 128  # what GPTQ's and AWQ's authors use; fewer tune the weights to these samples
_SHORT_SHARE = 0.5
_SHINGLE = 8  # tokens
_SKETCH = 64  # hashes that stand for a sample
_ALIKE = 0.8  # share of shingles in common
_COMPARED = 512  # samples at most, since each is compared with each
_FAR = 0.1  # bits, beyond what the evaluation set's own halves are apart

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class CalibrationData:
    """What the producer gets, and what the receipt says of it."""

    samples: CalibrationSet
    record: Calibration


def choose_calibration(request: QuantizeRequest, source: Path) -> CalibrationData:
    """Take the first ``num_samples`` samples of ``request.calibration``, tokenized as the checkpoint ``source`` would see them.

    Raises UsageError if there is no file, or a line in it is no sample.
    """
    file = request.calibration
    if file is None:
        raise UsageError(
            "this recipe is calibrated: give --calibration FILE with some hundred samples of what the model will really serve "
            "(JSONL with text or messages, or plain text); samples of anything else cost quality just there"
        )
    tokenizer = load_tokenizer(source)
    samples = tuple(_tokens(request, file, tokenizer))
    evaluation = tuple(tokenize(read_samples(request.evaluation), tokenizer, request.max_length)) if request.evaluation else ()
    record = Calibration(
        file=file.name,
        sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        num_samples=len(samples),
        max_length=request.max_length,
        num_tokens=sum(map(len, samples)),
        warnings=tuple(find_faults(samples, request.max_length, evaluation)),
    )
    return CalibrationData(CalibrationSet(samples, request.max_length), record)


def _tokens(request: QuantizeRequest, file: Path, tokenizer: Any) -> Iterator[Tokens]:
    for number, sample in enumerate(tokenize(read_samples(file)[: request.num_samples], tokenizer, request.max_length), 1):
        if not sample:
            raise UsageError(f"sample {number} of {file} has no tokens")
        yield sample


def find_faults(samples: Sequence[Tokens], max_length: int, evaluation: Sequence[Tokens] = ()) -> Iterator[str]:
    """Yield a sentence for everything that makes a poor calibration set; ``evaluation``: what the user wants the model to be good at."""
    if len(samples) < _FEWEST:
        yield f"only {len(samples)} samples: calibration wants {_FEWEST} or more"
    lengths = [len(sample) for sample in samples]
    num_short = sum(length < max_length for length in lengths)
    if num_short > _SHORT_SHARE * len(samples):
        median = round(statistics.median(lengths))
        yield f"{num_short / len(samples):.0%} of the samples are shorter than the window of {max_length} tokens (median {median})"
    num_distinct = len(set(samples))
    if num_distinct < len(samples):
        yield f"{len(samples) - num_distinct} of {len(samples)} samples repeat another one"
    if num_similar := _count_near_duplicates(samples):
        yield f"{num_similar} samples are nearly the same as another ({_ALIKE:.0%} of their {_SHINGLE}-token passages)"
    yield from _compare(samples, evaluation)


def _compare(samples: Sequence[Tokens], evaluation: Sequence[Tokens]) -> Iterator[str]:
    """The evaluation set's halves say how far apart two sets of the same kind of text are: half as many tokens, so rather farther."""
    halves = evaluation[::2], evaluation[1::2]
    if not all(map(any, (samples, *halves))):
        return  # one of them has no tokens
    usual, distance = divergence(*halves), divergence(samples, evaluation)
    if distance > usual + _FAR:
        yield (
            f"calibration and evaluation text use different tokens: their distributions are {distance:.2f} bits apart "
            f"(Jensen-Shannon, 0 to 1), the evaluation set's own halves {usual:.2f}"
        )


def divergence(left: Iterable[Tokens], right: Iterable[Tokens]) -> float:
    """Return the Jensen-Shannon divergence of two sets' token frequencies: 0 for the same ones, 1 bit for no token in common."""
    counts = [Counter(token for sample in samples for token in sample) for samples in (left, right)]
    sizes = [count.total() for count in counts]
    bits = 0.0
    for token in counts[0].keys() | counts[1].keys():
        shares = [count[token] / size for count, size in zip(counts, sizes, strict=True)]
        middle = sum(shares) / 2
        bits += sum(share / 2 * math.log2(share / middle) for share in shares if share)
    return bits


def _count_near_duplicates(samples: Sequence[Tokens]) -> int:
    """Count the samples that are much like an earlier one, but not equal to it."""
    sketches = [_sketch(sample) for sample in dict.fromkeys(samples[:_COMPARED])]
    return sum(any(_are_alike(sketch, earlier) for earlier in sketches[:index]) for index, sketch in enumerate(sketches))


def _sketch(sample: Tokens) -> frozenset[int]:
    """Return the smallest hashes of a sample's shingles: two sketches share about as much as the samples do (Broder 1997)."""
    last = max(1, len(sample) - _SHINGLE + 1)
    shingles = {zlib.crc32(struct.pack(f"{len(part)}q", *part)) for part in (sample[at : at + _SHINGLE] for at in range(last))}
    return frozenset(sorted(shingles)[:_SKETCH])


def _are_alike(left: frozenset[int], right: frozenset[int]) -> bool:
    """Estimate the Jaccard index from the smallest hashes of both samples together."""
    union = sorted(left | right)[: max(len(left), len(right))]
    return sum(value in left and value in right for value in union) >= _ALIKE * len(union)
