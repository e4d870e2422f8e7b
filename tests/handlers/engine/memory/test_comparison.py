"""What is compared with what, and what each policy makes of it, whatever the numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_fakes import GIB, FakeDevice, ledger

from handlers.engine.memory.comparison import Finding, Grant, apply_policy, compare, is_for
from handlers.engine.memory.footprint import Footprint
from handlers.errors import ConfigError
from handlers.memory_ledger import Interval

WANTED = Grant(kv_bytes=1000, max_running=10)
INTERVALS = st.lists(st.integers(0, 1000), min_size=3, max_size=3).map(lambda ends: Interval(*sorted(ends)))
FINDINGS = st.lists(st.builds(Finding, st.sampled_from(["weights", "context"]), st.integers(0, 1000), INTERVALS), max_size=4)


def test_activations_are_compared_with_those_and_the_logits_that_are_measured_with_them():
    plan = ledger(
        FakeDevice(), weights=Interval.exact(5), activations=Interval(1, 2, 3), logits=Interval(10, 20, 30), reserve=Interval.exact(9)
    )
    findings = compare(Footprint(weights=5, activations=34, context=7), plan)
    assert [(finding.part, finding.measured, finding.predicted, finding.verdict) for finding in findings] == [
        ("weights", 5, Interval.exact(5), "within"),
        ("activations", 34, Interval(11, 22, 33), "above"),
    ]


@pytest.mark.parametrize(("measured", "verdict"), [(9, "below"), (10, "within"), (20, "within"), (21, "above")])
def test_the_ends_belong_to_the_interval(measured, verdict):
    assert Finding("weights", measured, Interval(10, 15, 20)).verdict == verdict


def test_a_plan_is_for_a_device_by_kind_and_size():
    plan = ledger(FakeDevice(80 * GIB))
    assert is_for(plan, "cuda", 79 * GIB)
    assert not is_for(plan, "cuda", 40 * GIB)
    assert not is_for(plan, "cpu", 80 * GIB)
    assert is_for(ledger(FakeDevice(80 * GIB, kind="cpu")), "cpu", 16 * GIB)


@given(FINDINGS, st.integers(0, 2000))
def test_warn_changes_nothing(findings, planned):
    assert apply_policy("warn", findings, planned, WANTED) == WANTED


@given(FINDINGS, st.integers(0, 2000))
def test_refuse_is_for_parts_above_alone(findings, planned):
    above = [str(finding) for finding in findings if finding.measured > finding.predicted.high]
    if not above:
        assert apply_policy("refuse", findings, planned, WANTED) == WANTED
        return
    with pytest.raises(ConfigError) as error:
        apply_policy("refuse", findings, planned, WANTED)
    assert all(part in str(error.value) for part in above)


@given(FINDINGS, st.integers(1, 2000), st.integers(1, 2000), st.integers(1, 100))
def test_shrink_takes_no_more_than_the_excess_and_leaves_one_sequence(findings, planned, kv_bytes, max_running):
    wanted = Grant(kv_bytes, max_running)
    grant = apply_policy("shrink", findings, planned, wanted)
    excess = sum(finding.measured - finding.predicted.high for finding in findings)
    if excess <= 0:
        assert grant == wanted
        return
    assert grant.kv_bytes == max(min(planned - excess, kv_bytes), 0)
    assert 1 <= grant.max_running <= max_running
    assert grant.max_running <= max(max_running * grant.kv_bytes / planned, 1)
