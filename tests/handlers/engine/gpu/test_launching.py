"""Triton is used where it can launch kernels, and says why it cannot."""

from __future__ import annotations

import logging

import pytest
import torch

from handlers.engine.gpu.launching import can_launch


@pytest.mark.skipif(torch.cuda.is_available(), reason="there it can")
def test_without_a_gpu_a_line_says_why_nothing_is_launched(caplog: pytest.LogCaptureFixture) -> None:
    can_launch.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert not can_launch()
    [record] = caplog.records
    assert "Triton needs a C compiler" in record.message
    assert "\n" not in record.message
