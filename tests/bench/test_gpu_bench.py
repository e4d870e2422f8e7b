"""The GPU benchmark runs whole on a CPU at a tiny shape: every part, the file, the tables and the plot; what it cannot do it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from tests.bench.gpu.kernels import Kind
from tests.bench.gpu_bench import main

TINY: dict[str, Any] = {
    "shape": "tiny",
    "device": "cpu",
    "streams": "1,3",
    "contexts": "24",
    "steps": 6,
    "chunk_tokens": 64,
    "answer_tokens": 6,
    "rounds": 1,
    "budget_s": 300.0,
}


@pytest.fixture(autouse=True)
def _same_threads():
    """An engine settles with how many threads torch computes."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_a_whole_run_measures_every_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(**TINY, served="process", out=tmp_path)
    result = json.loads((tmp_path / "gpu-tiny.json").read_text())
    rows = result["rows"]
    assert [row["note"] for row in rows if row["note"]] == []
    assert {(row["part"], row["who"]) for row in rows} == {
        ("offline", "engine"),
        ("prefill", "engine"),
        ("split", "engine"),
        ("served", "in process"),
        ("peers", "generate"),
        ("peers", "continuous batching"),
    }
    assert all(value >= 0 for row in rows for value in row["figures"].values())
    assert min(result["ceilings"].values()) > 0
    for row in rows:
        figures = row["figures"]
        if row["part"] == "split":
            assert figures["busy_share"] + figures["host_share"] == pytest.approx(1)
            assert 0 < sum(figures[f"{kind}_share"] for kind in Kind) <= 1.01 + figures["busy_share"]
            assert min(figures["attention_share"], figures["linears_share"], figures["sampling_share"]) > 0
        elif row["part"] == "prefill":
            assert figures["share_of_peak"] > 0
        else:
            assert figures["share_of_bound"] == pytest.approx(figures["tokens_per_s"] / figures["bound_tokens_per_s"])
    assert (tmp_path / "roofline-tiny.png").read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr().out
    assert all(title in said for title in ("tokens/s by streams", "prompts on an idle engine", "steps under the profiler"))
    assert said.rstrip().endswith("gpu-tiny.json")


def test_parts_add_up_and_what_there_is_no_time_for_says_so(tmp_path: Path) -> None:
    main(**TINY | {"parts": "prefill"}, out=tmp_path)
    main(**TINY | {"parts": "prefill,offline", "budget_s": 0.0}, out=tmp_path)
    rows = json.loads((tmp_path / "gpu-tiny.json").read_text())["rows"]
    assert [(row["part"], row["cell"]["streams"], bool(row["figures"])) for row in rows] == [
        ("prefill", 1, True),
        ("offline", 1, False),
        ("offline", 3, False),
    ]
    assert all(row["note"].startswith("skipped: out of time") for row in rows if not row["figures"])


def test_a_cell_that_the_engine_cannot_hold_is_a_row_that_says_so(tmp_path: Path) -> None:
    main(**TINY | {"parts": "offline", "contexts": "24,500", "streams": "1"}, out=tmp_path)
    rows = json.loads((tmp_path / "gpu-tiny.json").read_text())["rows"]
    assert [bool(row["figures"]) for row in rows] == [True, False]
    assert rows[1]["note"].startswith("DoesNotFit: sequences of ")
    assert rows[1]["note"].endswith("tokens, 512 at most")


@pytest.mark.bench
@pytest.mark.torchserve
def test_clients_go_through_torchserve(tmp_path: Path) -> None:
    main(**TINY | {"parts": "served", "streams": "2"}, served="torchserve", out=tmp_path)
    [row] = json.loads((tmp_path / "gpu-tiny.json").read_text())["rows"]
    assert (row["who"], row["note"]) == ("torchserve", "")
    assert row["figures"]["tokens_per_s"] > 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"device": "tpu"}, "--device: there is no 'tpu', use auto, cuda or cpu"),
        ({"shape": "70b"}, "--shape: there is no '70b', use 8b, 1b, tiny"),
        ({"parts": "offline,all"}, "--parts: there is no 'all'"),
        ({"streams": "1,many"}, "--streams: '1,many' is no list of numbers"),
        ({"served": "http"}, "--served: there is no 'http'"),
        pytest.param(
            {"device": "cuda"},
            "no CUDA device is here; on a CPU it can be rehearsed: --device cpu --shape tiny",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here"),
        ),
    ],
)
def test_what_cannot_run_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], options, said) -> None:
    with pytest.raises(typer.Exit) as exit_:
        main(**TINY | options, out=tmp_path)
    assert exit_.value.exit_code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(said)


def test_another_device_s_figures_are_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gpu-tiny.json").write_text(json.dumps({"device": "NVIDIA H200", "rows": []}))
    with pytest.raises(typer.Exit):
        main(**TINY | {"parts": "ceilings"}, out=tmp_path)
    assert "holds figures of NVIDIA H200, and this is CPU" in capsys.readouterr().err
