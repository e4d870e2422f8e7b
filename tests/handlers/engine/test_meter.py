"""Rates over the last whole seconds, quantiles over the latest steps."""

from handlers.engine.meter import Meter


def test_before_the_first_step_everything_is_zero():
    meter = Meter()
    assert (meter.generated_tokens, meter.step_ms(0.5), meter.tokens_per_s(100.0)) == (0, 0.0, 0.0)


def test_the_rate_is_that_of_the_last_five_whole_seconds():
    meter = Meter()
    for tenth in range(100):
        meter.record_step(tenth / 10, tenth / 10 + 0.05, num_tokens=3)
    assert meter.generated_tokens == 300
    assert meter.tokens_per_s(10.0) == 30.0
    assert meter.tokens_per_s(12.5) == 3 * 30 / 5
    assert meter.tokens_per_s(20.0) == 0.0


def test_quantiles_are_of_the_latest_thousand_steps():
    meter = Meter()
    meter.record_step(0.0, 1000.0, 1)
    for step in range(1000):
        meter.record_step(step, step + (1 + step % 100) / 1000, 1)
    assert 50 <= round(meter.step_ms(0.5)) <= 52
    assert 99 <= round(meter.step_ms(0.99)) <= 100
