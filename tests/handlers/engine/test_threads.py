"""The number of threads is what the operator asked for, or the faster one by trial."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import torch

from handlers.engine.threads import settle_num_threads


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("faster", [1, 2])
def test_the_faster_number_is_kept(faster: int) -> None:
    settle_num_threads(lambda: time.sleep(0.003 if torch.get_num_threads() == faster else 0.02), asked=None)
    assert torch.get_num_threads() == faster


def test_a_model_that_is_soon_done_leaves_a_core_to_the_server() -> None:
    settle_num_threads(lambda: time.sleep(0.0 if torch.get_num_threads() == 2 else 0.001), asked=None)
    assert torch.get_num_threads() == 1


def test_what_the_operator_asks_for_is_not_tried() -> None:
    steps: list[int] = []
    settle_num_threads(lambda: steps.append(1), asked=3)
    assert (torch.get_num_threads(), steps) == (3, [])


def test_a_long_step_is_looked_at_once() -> None:
    steps: list[int] = []
    settle_num_threads(lambda: (steps.append(1), time.sleep(0.11)), asked=None)
    assert len(steps) == 2
