"""Calibration: the samples that are taken, and the warnings about them with their numbers."""

from __future__ import annotations

import hashlib
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.errors import UsageError
from archiver.quantize.calibration import choose_calibration, divergence, find_faults
from archiver.quantize.request import QuantizeRequest
from tests.checkpoints import make_tokenizer

WINDOW = 64
SETS = st.lists(st.lists(st.integers(0, 50), min_size=1).map(tuple), min_size=1)


def draw(number: int, *, seed: int = 0, low: int = 0, high: int = 1000, length: int = WINDOW) -> list[tuple[int, ...]]:
    rng = random.Random(seed)
    return [tuple(rng.randrange(low, high) for _ in range(length)) for _ in range(number)]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    directory = tmp_path_factory.mktemp("source")
    make_tokenizer().save_pretrained(directory)
    return directory


def test_the_first_samples_are_taken_and_recorded(tmp_path, source):
    file = tmp_path / "chats.jsonl"
    file.write_text("\n".join(json.dumps({"text": f"the quick brown fox {number}"}) for number in range(10)))
    data = choose_calibration(QuantizeRequest("model", ("gptq-int4",), calibration=file, num_samples=4, max_length=5), source)
    assert len(data.samples.samples) == data.record.num_samples == 4
    assert max(map(len, data.samples.samples)) <= data.samples.max_length == data.record.max_length == 5
    assert data.record.num_tokens == sum(map(len, data.samples.samples))
    assert (data.record.file, data.record.sha256) == ("chats.jsonl", hashlib.sha256(file.read_bytes()).hexdigest())
    assert "only 4 samples: calibration wants 128 or more" in data.record.warnings


def test_without_a_file_the_error_says_what_to_give(source):
    with pytest.raises(UsageError, match="give --calibration FILE with some hundred samples of what the model will really serve"):
        choose_calibration(QuantizeRequest("model", ("gptq-int4",)), source)


def test_the_declared_evaluation_set_is_compared_with(tmp_path, source):
    calibration, evaluation = tmp_path / "calibration.txt", tmp_path / "evaluation.txt"
    calibration.write_text("0 1 2 3 4 5 6 7 8 9\n\n" * 20)
    evaluation.write_text("the quick brown fox jumps over the lazy dog\n\n" * 20)
    request = QuantizeRequest("model", ("gptq-int4",), calibration=calibration, evaluation=evaluation)
    assert any("bits apart" in warning for warning in choose_calibration(request, source).record.warnings)


def test_a_good_set_has_no_faults():
    assert not list(find_faults(draw(200), WINDOW, draw(100, seed=1)))


def test_short_samples_are_counted():
    faults = list(find_faults(draw(60) + draw(90, seed=1, length=7), WINDOW))
    assert faults == ["60% of the samples are shorter than the window of 64 tokens (median 7)"]


def test_repeated_samples_are_counted_once_each():
    samples = draw(150)
    assert list(find_faults(samples + samples[:10], WINDOW)) == ["10 of 160 samples repeat another one"]


def test_nearly_equal_samples_are_counted():
    samples = draw(150)
    changed = [(*sample[:-1], 5000) for sample in samples[:10]]
    (fault,) = find_faults(samples + changed, WINDOW)
    assert fault.startswith("10 samples are nearly the same as another")


def test_other_text_than_the_evaluation_sets_is_reported_with_its_distance():
    (fault,) = find_faults(draw(200), WINDOW, draw(100, low=1000, high=2000))
    assert "1.00 bits apart" in fault


def test_empty_evaluation_samples_are_no_comparison():
    assert not list(find_faults(draw(200), WINDOW, [(), (), (1,)]))


@given(SETS, SETS)
def test_divergence_is_symmetric_and_within_one_bit(left, right):
    assert divergence(left, right) == pytest.approx(divergence(right, left))
    assert -1e-9 <= divergence(left, right) <= 1 + 1e-9


@given(SETS)
def test_divergence_of_a_set_from_itself_is_nothing(samples):
    assert divergence(samples, samples) == pytest.approx(0, abs=1e-12)
