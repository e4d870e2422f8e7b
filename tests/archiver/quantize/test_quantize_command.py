"""A quantization from request to receipt, with a producer that copies or spoils: what is kept, what is rejected, what is left behind."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from archiver.errors import ArchiverError, UsageError
from archiver.quantize.command import carry_out
from archiver.quantize.display import show_result
from archiver.quantize.environment import cache_home
from archiver.quantize.plan import Plan, make_plan
from archiver.quantize.producers.catalogue import ProducerKind
from archiver.quantize.receipt import Receipt
from archiver.quantize.request import QuantizeRequest
from archiver.quantize.workspace import workspace
from tests.checkpoints import make_checkpoint

COPY = """
import shutil
def produce(job):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(job.source / name, job.out)
    (job.out / "model.safetensors").chmod(0o600)
    return {"library": "1.0"}
"""
SPOIL = """
from safetensors.torch import load_file, save_file
import shutil
def produce(job):
    shutil.copy(job.source / "config.json", job.out)
    tensors = load_file(job.source / "model.safetensors")
    save_file({name: tensor.flip(0).contiguous() for name, tensor in tensors.items()}, job.out / "model.safetensors", {"format": "pt"})
    return {}
"""
FAIL = """
def produce(job):
    (job.out / "model.safetensors").touch()
    raise MemoryError("no room")
"""


@dataclass(frozen=True)
class FakeProducer(ProducerKind):
    """A producer with a file of its own."""

    path: Path = Path()

    @property
    def file(self) -> Path:
        return self.path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoints") / "bot")


@pytest.fixture
def plan(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that plans to run a producer with the given source code."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "held_out.txt").write_text("\n\n".join(f"the quick brown fox jumps {number} times" for number in range(8)))
    (tmp_path / "results").mkdir()

    def plan(producer: str, **changes) -> Plan:
        file = tmp_path / "producer.py"
        file.write_text(producer)
        request = QuantizeRequest(str(source), ("nf4",), out=tmp_path / "results" / "out", evaluation=tmp_path / "held_out.txt", **changes)
        made = make_plan(request)
        return replace(made, recipe=replace(made.recipe, producer=FakeProducer("fake", {}, path=file)))

    return plan


def run(plan: Plan):
    return carry_out(plan, lambda *step: None, lambda line: None)


def files(directory: Path) -> set[str]:
    return {file.name for file in directory.iterdir()}


def test_a_good_result_stands_in_its_place_with_all_it_needs(plan, source, tmp_path):
    result = run(plan(COPY, budget={"kl": 0.01}))
    assert result.directory == tmp_path / "results" / "out"
    assert files(tmp_path / "results") == {"out"}
    assert files(result.directory) == {*files(source), "quantization.json"}
    assert (result.directory / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    assert (result.directory / "model.safetensors").stat().st_mode == (source / "config.json").stat().st_mode
    receipt = Receipt.read(result.directory)
    assert receipt == result.receipt
    assert receipt.is_accepted
    assert receipt.quality is not None
    assert receipt.quality.kl < 1e-6
    assert (receipt.source, receipt.versions["library"], receipt.bytes_before) == ("bot", "1.0", receipt.bytes_after)
    assert receipt.peak_memory_bytes > 0


def test_a_bad_result_is_kept_as_rejected_and_an_earlier_one_stays(plan, tmp_path):
    run(plan(COPY, measure=False))
    result = run(plan(SPOIL, budget={"kl": 0.01}, force=True))
    assert result.directory == tmp_path / "results" / "out.rejected"
    assert result.receipt.exceeded
    assert files(tmp_path / "results") == {"out", "out.rejected"}
    assert Receipt.read(tmp_path / "results" / "out").quality is None


def test_a_result_that_cannot_be_measured_is_kept_as_rejected(plan, tmp_path):
    result = run(plan(COPY.replace('return {"library"', '(job.out / "config.json").write_text("{}")\n    return {"library"')))
    assert result.directory == tmp_path / "results" / "out.rejected"
    assert result.receipt.quality is None
    assert result.receipt.exceeded[0].startswith("its quality cannot be measured on this machine: ")


def test_a_failure_leaves_its_log_and_nothing_else(plan, tmp_path):
    with pytest.raises(ArchiverError, match=r"MemoryError: no room \(its log: (.*)\)") as error:
        run(plan(FAIL, measure=False))
    assert not files(tmp_path / "results")
    log = Path(str(error.value).rpartition("its log: ")[2].rstrip(")"))
    assert "MemoryError" in log.read_text()
    assert log.is_relative_to(cache_home())
    run(plan(COPY, measure=False))
    assert not log.exists()


def test_an_interruption_while_measuring_leaves_nothing(plan, tmp_path):
    def interrupt(stage: str, num_done: int, num_all: int) -> None:
        if stage == "evaluation texts":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        carry_out(plan(COPY), interrupt, lambda line: None)
    assert not files(tmp_path / "results")


def test_the_same_quantization_runs_once_at_a_time(plan):
    made = plan(COPY, measure=False)
    with workspace(made), pytest.raises(UsageError, match="is running already"):
        run(made)


def test_the_result_is_shown_to_people_and_machines(plan, capsys):
    result = run(plan(COPY, measure=False))
    show_result(result.directory, result.receipt, as_json=True)
    shown = json.loads(capsys.readouterr().out)
    assert (shown["directory"], shown["recipe"], shown["quality"]) == (str(result.directory), "nf4", None)
    show_result(result.directory, result.receipt, as_json=False)
    assert f"written to {result.directory}" in capsys.readouterr().out
    shutil.rmtree(result.directory)
