"""Frames, character by character, and what is coloured."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from archiver.deploy.top.drawing import bar, duration, number, sparkline
from archiver.deploy.top.screen import draw, fitting
from archiver.deploy.top.snapshot import ModelRow, Snapshot, take_snapshot

CHAT = ModelRow(
    name="tinychat",
    version="1.0",
    running=12,
    max_running=64,
    waiting=0,
    tokens_per_s=4520,
    requests_per_s=9.8,
    refused_per_s=2.0,
    failed_per_s=0,
    ttft_p50_s=0.0175,
    ttft_p90_s=0.0506,
    inter_token_p50_s=0.0025,
    kv_share=0.095,
    prefix_hit_share=0.42,
    num_engines=1,
    num_ready=1,
    num_workers=1,
    memory_bytes=595_500_000,
    tokens_lately=(0, 0, 1000, 2000, 4520),
)
BUSY = replace(CHAT, name="support-assistant", version="2.0", running=128, max_running=128, waiting=31, kv_share=0.97, failed_per_s=0.2)
BUSY = replace(BUSY, num_engines=2, tokens_per_s=12345, ttft_p50_s=1.24, ttft_p90_s=12.1, tokens_lately=(9000,) * 60)
OTHER = ModelRow("detector", "1.0", requests_per_s=0.05, num_ready=1, num_workers=2)
RECORDED = Path(__file__).with_name("recorded")


def drawn(snapshot: Snapshot, width: int, color_system: str | None = None) -> str:
    console = Console(file=StringIO(), width=width, color_system=color_system, force_terminal=color_system is not None, highlight=False)
    with console.capture() as captured:
        console.print(draw(snapshot, width))
    return captured.get()


@pytest.mark.parametrize("width", [80, 160])
def test_a_frame_of_the_recorded_server(width, recorded, status):
    statuses = [status("tinychat"), status("support-assistant", "2.0", (True, False), memory_bytes=4_200_000_000)]
    frame = drawn(take_snapshot("http://127.0.0.1:8082/metrics", recorded, statuses), width)
    assert [line.rstrip() for line in frame.splitlines()] == (RECORDED / f"frame-{width}.txt").read_text().splitlines()


NAMES = st.text(st.characters(exclude_characters="\n\t"), min_size=1, max_size=60)
ROWS = st.builds(
    ModelRow,
    *(NAMES, NAMES),
    **dict.fromkeys(["running", "max_running", "waiting"], st.none() | st.integers(0, 999)),
    **dict.fromkeys(["tokens_per_s", "requests_per_s", "refused_per_s", "failed_per_s"], st.none() | st.floats(0, 9999)),
    **dict.fromkeys(["ttft_p50_s", "ttft_p90_s", "inter_token_p50_s"], st.none() | st.floats(0, 10)),
    **dict.fromkeys(["kv_share", "prefix_hit_share"], st.none() | st.floats(0, 1)),
    **dict.fromkeys(["num_engines", "num_ready", "num_workers"], st.none() | st.integers(1, 9)),
    memory_bytes=st.none() | st.integers(0, 10**12),
    tokens_lately=st.lists(st.floats(0, 1e5), max_size=100).map(tuple),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(ROWS, max_size=3), st.integers(30, 250))
def test_a_frame_is_never_wider_than_the_terminal_and_has_a_line_a_model(models, width):
    frame = drawn(Snapshot("http://h:1", tuple(models)), width).splitlines()
    assert max(map(cell_len, frame)) <= width
    assert len(frame) == (3 + len(models) if models else 3)


def test_the_wider_the_more_columns():
    shown = [{column.title for column in fitting(width)} for width in range(20, 200)]
    assert all(narrower <= wider for narrower, wider in pairwise(shown))


def colour_of(word: str, frame: str) -> str:
    codes = {"31": "red", "33": "yellow", "1": "bold", "2": "dim"}
    before = frame[: frame.index(word)].rsplit("\x1b[", 1)[-1]
    return codes.get(before.partition("m")[0], "none")


def test_colours_mean_trouble():
    calm, busy = (drawn(Snapshot("u", (row,)), 200, "standard") for row in (replace(CHAT, refused_per_s=0), BUSY))
    assert "\x1b[31m" not in calm
    assert "\x1b[33m" not in calm
    assert colour_of("97%", busy) == "red"
    assert colour_of("0.2", busy) == "red"
    assert colour_of("31", busy.replace("\x1b[31m", "\x1b[RED")) == "yellow"
    assert colour_of("1/2", drawn(Snapshot("u", (OTHER,)), 200, "standard")) == "red"


def test_a_server_that_is_away_is_said_to_be():
    frame = drawn(Snapshot("http://h:1", problem="no metrics at http://h:1"), 80)
    assert frame.splitlines() == ["http://h:1", "", "no metrics at http://h:1"]
    assert "no models" in drawn(Snapshot("http://h:1"), 80)


def test_names_cannot_act_on_the_terminal():
    assert "\x1b" not in drawn(Snapshot("\x1b[2J", (replace(CHAT, name="\x1b[2J"),)), 80)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.2, "0.2"), (3, "3"), (9.84, "9.8"), (9.99, "10"), (10, "10"), (99.9, "100"), (12345, "12,345")],
)
def test_numbers(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0025, "2.5 ms"), (0.0175, "18 ms"), (0.12, "120 ms"), (0.9996, "1.0 s"), (1.24, "1.2 s"), (12.1, "12.1 s")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@given(st.floats(-1, 2), st.integers(1, 40))
def test_a_bar_is_as_long_as_it_should_be(share, width):
    drawn_bar = bar(share, width)
    assert len(drawn_bar) == width
    assert drawn_bar == "█" * drawn_bar.count("█") + "░" * drawn_bar.count("░")
    assert abs(drawn_bar.count("█") / width - min(max(share, 0), 1)) <= 0.5 / width + 1e-9


def test_a_sparkline_has_the_newest_at_its_end():
    assert sparkline((), 5) == ""
    assert sparkline((0, 0), 5) == "▁▁"
    assert sparkline((0, 5, 10), 5) == "▁▅█"
    assert sparkline((0, 0, 0, 0, 10, 10), 3) == "▁▁█"
    assert sparkline(range(100), 4) == "▂▄▆█"


@given(st.lists(st.floats(0, 1e9)), st.integers(1, 30))
def test_a_sparkline_fits(values, width):
    assert len(sparkline(values, width)) <= min(width, len(values))
