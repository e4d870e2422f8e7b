"""The timing model: what it was made of is found again, nothing is negative, and few steps make a small model."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.errors import UsageError
from archiver.plan.simulation.measurements import MeasuredStep, Measurements
from archiver.plan.simulation.timing import TimingModel

ONE, MANY, PROMPT, LONG = (1, 0, 50), (16, 0, 800), (0, 512, 512), (8, 0, 8000)
LOADS = (ONE, MANY, PROMPT, LONG)

coefficients = st.tuples(st.floats(1e-3, 1e-1), st.floats(1e-4, 1e-2), st.floats(1e-5, 1e-3), st.floats(1e-6, 1e-4))
noise = st.lists(st.floats(0.7, 1.4), min_size=4, max_size=4)


def measured(model: TimingModel, *loads: tuple[int, int, int]) -> list[MeasuredStep]:
    return [MeasuredStep(*load, seconds=model.step_s(*load)) for load in loads]


def error(model: TimingModel, steps: list[MeasuredStep]) -> float:
    ratios = [model.step_s(step.num_decodes, step.num_prompt_tokens, step.num_context_tokens) / step.seconds for step in steps]
    return math.sqrt(sum((ratio - 1) ** 2 for ratio in ratios) / len(ratios))


@given(coefficients)
def test_steps_that_follow_the_model_are_predicted(true):
    steps = measured(TimingModel(*true), *LOADS)
    assert error(TimingModel.fit(steps), steps) <= 0.011  # a term worth less than that may be left out


def test_four_different_steps_tell_all_coefficients():
    true = TimingModel(0.010, 0.001, 0.0002, 0.00001)
    fitted = TimingModel.fit(measured(true, *LOADS), request_overhead_s=0.004)
    assert fitted.request_overhead_s == 0.004
    for name in ("base_s", "per_decode_s", "per_prompt_token_s", "per_context_token_s"):
        assert getattr(fitted, name) == pytest.approx(getattr(true, name), rel=1e-6)


@given(coefficients, noise, coefficients)
def test_no_other_non_negative_model_is_much_better(true, factors, rival):
    exact = measured(TimingModel(*true), *LOADS)
    steps = [
        MeasuredStep(step.num_decodes, step.num_prompt_tokens, step.num_context_tokens, step.seconds * factor)
        for step, factor in zip(exact, factors, strict=True)
    ]
    fitted = TimingModel.fit(steps)
    assert min(fitted.base_s, fitted.per_decode_s, fitted.per_prompt_token_s, fitted.per_context_token_s) >= 0
    assert error(fitted, steps) <= min(error(TimingModel(*each), steps) for each in (true, rival)) + 0.011


def test_what_three_steps_cannot_tell_is_left_out():
    fitted = TimingModel.fit(measured(TimingModel(0.010, 0.001, 0.0002), ONE, MANY, PROMPT))
    assert fitted.per_context_token_s == 0
    assert fitted.per_decode_s == pytest.approx(0.001)


def test_steps_that_take_equally_long_need_the_base_only():
    steps = [MeasuredStep(*load, seconds=0.02) for load in (ONE, MANY, LONG, PROMPT)]
    assert TimingModel.fit(steps) == TimingModel(pytest.approx(0.02))


def test_after_one_decode_and_one_prompt_further_decodes_cost_nothing():
    fitted = TimingModel.fit(measured(TimingModel(0.010, 0.001, 0.0002), ONE, PROMPT))
    assert fitted.per_decode_s == 0
    assert fitted.base_s + fitted.per_prompt_token_s == pytest.approx(0.011, rel=0.02)


def test_without_prompts_their_tokens_cost_what_decodes_do():
    fitted = TimingModel.fit(measured(TimingModel(0.010, 0.001), ONE, MANY))
    assert fitted.per_prompt_token_s == fitted.per_decode_s == pytest.approx(0.001)


def test_without_decodes_they_cost_what_tokens_of_prompts_do():
    fitted = TimingModel.fit(measured(TimingModel(0.010, 0.0, 0.0002), PROMPT, (0, 64, 64)))
    assert fitted.per_prompt_token_s == fitted.per_decode_s == pytest.approx(0.0002)


def test_one_step_is_not_enough():
    with pytest.raises(UsageError, match="two measured steps, better three"):
        TimingModel.fit(measured(TimingModel(0.01), ONE))


def test_measurements_survive_their_file(tmp_path):
    measurements = Measurements((MeasuredStep(1, 0, 50, 0.01), MeasuredStep(0, 512, 512, 0.1)), request_overhead_s=0.003)
    measurements.write(tmp_path / "points.json")
    assert Measurements.read(tmp_path / "points.json") == measurements


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "the file: Invalid JSON"),
        (
            '{"steps": [{"num_decodes": 1, "num_prompt_tokens": 0, "num_context_tokens": 5, "seconds": 0}]}',
            "steps.0.seconds: .*greater than 0",
        ),
        ('{"steps": [{"num_decodes": 1, "num_prompt_tokens": 0, "seconds": 1}]}', "steps.0.num_context_tokens: Field required"),
        ('{"points": []}', "steps: Field required"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path, text, complaint):
    file = tmp_path / "points.json"
    file.write_text(text)
    with pytest.raises(UsageError, match=rf"points.json: {complaint}.*; it should look like"):
        Measurements.read(file)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UsageError, match="cannot read the measurements in .*points.json: No such file"):
        Measurements.read(tmp_path / "points.json")
