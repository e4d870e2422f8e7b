"""Receipts of quantizations: they travel in archives, and keep out what lost too much."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from archiver.cli import main
from archiver.deploy.archive_cache import cached_archive
from archiver.errors import ArchiverError, UsageError
from archiver.package import ArchiveSpec, build_archive, inspect_archive
from archiver.quantize.receipt import RECEIPT_FILE, Calibration, LayerError, Quality, Receipt

MakeSpec = Callable[..., ArchiveSpec]

RECEIPT = Receipt(
    recipe="gptq-int4",
    options={"group_size": 128},
    source="tiny-model",
    versions={"llmcompressor": "1.0"},
    calibration=Calibration("chats.jsonl", "0" * 64, 3, 512, 700, ("only 3 samples",)),
    bytes_before=4000,
    bytes_after=1000,
    seconds=61.4,
    peak_memory_bytes=10**9,
    quality=Quality("a file", 900, 8.0, 8.4, 0.03, 0.2, 0.93, 64, (64, 12), (LayerError("model.layers.0.mlp.up_proj", 0.11),)),
    budget={"kl": 0.05},
    exceeded=(),
)
FAILED = replace(RECEIPT, exceeded=("kl: the mean KL divergence in nats is 0.9, and the budget asks for at most 0.05",))


@pytest.mark.parametrize("format", ["mar", "dir"])
def test_the_receipt_travels_and_is_shown(make_spec: MakeSpec, checkpoint: Path, format: str) -> None:
    RECEIPT.write(checkpoint)
    info = inspect_archive(build_archive(make_spec(format=format)))
    assert f"model/{RECEIPT_FILE}" in info.members
    assert info.quantization == RECEIPT
    assert json.loads(json.dumps(info.to_dict()))["quantization"] == RECEIPT.to_dict()


def test_an_archive_without_one_says_so(make_spec: MakeSpec) -> None:
    info = inspect_archive(build_archive(make_spec()))
    assert info.quantization is None
    assert info.to_dict()["quantization"] is None


def test_inspect_shows_what_was_lost(make_spec: MakeSpec, checkpoint: Path, monkeypatch, capsys) -> None:
    RECEIPT.write(checkpoint)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("sys.argv", ["marquee", "inspect", str(build_archive(make_spec()))])
    with pytest.raises(SystemExit) as end:
        main()
    shown = capsys.readouterr().out
    assert end.value.code in (0, None)
    for text in ("gptq-int4 (group_size: 128)", "4.0x smaller", "8.000 before, 8.400 after (x 1.05", "only 3 samples", "93.0%", "kl: 0.05"):
        assert text in shown


def test_what_failed_its_budget_is_refused_unless_accepted(make_spec: MakeSpec, checkpoint: Path) -> None:
    FAILED.write(checkpoint)
    with pytest.raises(UsageError, match=r"mean KL divergence in nats is 0\.9.*--accept-rejected"):
        build_archive(make_spec())
    assert inspect_archive(build_archive(make_spec(accept_rejected=True))).quantization == FAILED


def test_a_rejected_directory_is_refused_even_without_its_receipt(make_spec: MakeSpec, checkpoint: Path) -> None:
    rejected = checkpoint.rename(checkpoint.with_name("tiny-nf4.rejected"))
    with pytest.raises(UsageError, match=r"tiny-nf4\.rejected lost more than its budget allowed"):
        build_archive(make_spec(source=rejected))
    assert build_archive(make_spec(source=rejected, accept_rejected=True)).exists()


def test_serve_goes_through_the_same_check_also_after_a_first_start(make_spec: MakeSpec, checkpoint: Path, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("MARQUEE_CACHE", str(tmp_path / "cache"))
    RECEIPT.write(checkpoint)
    assert cached_archive(make_spec()).exists()
    FAILED.write(checkpoint)
    with pytest.raises(UsageError, match="lost more than its budget allowed"):
        cached_archive(make_spec())


def test_a_damaged_receipt_is_one_line(make_spec: MakeSpec, checkpoint: Path) -> None:
    (checkpoint / RECEIPT_FILE).write_text('{"recipe": 4}')
    with pytest.raises(ArchiverError, match=r"quantization\.json is no receipt of a quantization \(.*\); quantize again"):
        build_archive(make_spec())


def test_numbers_that_are_none_survive_the_file_as_json(tmp_path: Path) -> None:
    nan = math.nan
    quality = replace(RECEIPT.quality, kl=nan, perplexity_after=math.inf, worst_layers=(LayerError("lm_head", nan),), num_broken=900)
    file = replace(RECEIPT, quality=quality).write(tmp_path)
    json.loads(file.read_text(), parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))
    read = Receipt.read(tmp_path)
    assert read is not None
    assert math.isnan(read.quality.kl)
    assert math.isnan(read.quality.perplexity_ratio)
    assert math.isnan(read.quality.worst_layers[0].relative_error)
    assert read.quality.num_broken == 900


def test_without_a_receipt_there_is_none(tmp_path: Path) -> None:
    assert Receipt.read(tmp_path) is None
