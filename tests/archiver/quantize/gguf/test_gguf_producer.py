"""The gguf producer: which type is written by what, with and without llama.cpp and calibration."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from transformers import AutoModelForCausalLM

from archiver.errors import ArchiverError, UsageError
from archiver.quantize.gguf import llama_cpp_quantizer
from archiver.quantize.gguf.importance import measure_importance
from archiver.quantize.producer import CalibrationSet
from archiver.quantize.producers.gguf import produce
from tests.archiver.quantize.gguf.family_checkpoints import make_family_checkpoint

SAMPLES = CalibrationSet(((7, 21, 3, 190), (44, 250)), max_length=4)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    shape = {"hidden_size": 256, "intermediate_size": 96, "num_hidden_layers": 2, "tie_word_embeddings": True}
    return make_family_checkpoint(tmp_path_factory.mktemp("gguf") / "bot", "qwen2", **shape)


@pytest.fixture
def job(checkpoint, tmp_path):
    def make(file_type, calibration=None):
        paths = {"source": checkpoint, "out": tmp_path / "out", "workspace": tmp_path / "workspace"}
        paths["out"].mkdir(exist_ok=True)
        paths["workspace"].mkdir(exist_ok=True)
        progress = []
        return SimpleNamespace(
            **paths,
            options={"type": file_type},
            calibration=calibration,
            progress=progress,
            on_progress=lambda *step: progress.append(step),
        )

    return make


def types_of(path):
    return {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(path).tensors}


def test_types_that_need_no_llama_cpp(job, monkeypatch):
    monkeypatch.setattr(llama_cpp_quantizer, "find_spec", lambda _: None)
    versions = produce(job := job("q5_1"))
    assert [path.name for path in job.out.iterdir()] == ["bot-Q5_1.gguf"]
    assert types_of(job.out / "bot-Q5_1.gguf")["blk.1.ffn_up.weight"] == "Q5_1"
    assert versions.keys() == {"gguf", "transformers", "torch"}


def test_without_llama_cpp_its_types_are_refused_with_those_that_work(job, monkeypatch):
    monkeypatch.setattr(llama_cpp_quantizer, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"Q4_K_M needs llama.cpp's quantizer: pip install 'marquee\[gguf\]' .*need nothing more: F32"):
        produce(job("Q4_K_M"))


@pytest.mark.parametrize(
    ("file_type", "calibration", "message"),
    [("IQ2_XS", None, "take the recipe gguf-imatrix:IQ2_XS"), ("Q8_0", SAMPLES, "take the recipe gguf:Q8_0"), ("Q4", None, "no GGUF type")],
)
def test_types_and_calibration_that_do_not_go_together(file_type, calibration, message, job):
    with pytest.raises(UsageError, match=message):
        produce(job(file_type, calibration))


def test_importance_is_the_mean_square_of_each_column(checkpoint):
    importance = measure_importance(checkpoint, SAMPLES, lambda *_: None)
    model = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    with torch.inference_mode():
        first = [model.model.layers[0].input_layernorm(model.model.embed_tokens(torch.tensor(sample))) for sample in SAMPLES.samples]
    expected = torch.cat(first).square().mean(0).numpy()
    for name in ("attn_q", "attn_k", "attn_v"):
        np.testing.assert_allclose(importance[f"blk.0.{name}.weight"], expected, rtol=1e-4)
    assert len(importance["blk.1.ffn_down.weight"]) == 96
    assert "token_embd.weight" in importance  # the output matrix, which is tied to it


@pytest.mark.peer
def test_llama_cpps_mixes_and_what_falls_back(job, caplog):
    pytest.importorskip("llama_cpp")
    job = job("Q4_K_M")
    versions = produce(job)
    types = types_of(job.out / "bot-Q4_K_M.gguf")
    assert types["blk.0.attn_q.weight"] == "Q4_K"
    assert types["blk.0.ffn_down.weight"] in ("Q5_0", "Q8_0")
    assert "blk.0.ffn_down.weight is stored as" in caplog.text and "96 columns are not divisible by 256" in caplog.text
    assert "llama-cpp-python" in versions
    total = len(types)
    assert ("tensors", total, total) in job.progress


@pytest.mark.peer
def test_the_lossless_file_is_made_once(job):
    pytest.importorskip("llama_cpp")
    first = job("Q6_K")
    produce(first)
    made = (first.workspace / "F32.gguf").stat()
    again = job("Q4_K_S")
    produce(again)
    assert (again.workspace / "F32.gguf").stat().st_mtime_ns == made.st_mtime_ns
    assert sorted(path.name for path in again.out.iterdir()) == ["bot-Q4_K_S.gguf", "bot-Q6_K.gguf"]


@pytest.mark.peer
@pytest.mark.parametrize("file_type", ["Q4_K_M", "IQ2_XS"])
def test_importance_changes_what_is_written(file_type, job):
    pytest.importorskip("llama_cpp")
    calibrated = job(file_type, SAMPLES)
    produce(calibrated)
    path = calibrated.out / f"bot-{file_type}.gguf"
    weighed = path.read_bytes()
    assert ("samples", 1, 2) in calibrated.progress
    if file_type == "Q4_K_M":
        produce(job(file_type))
        assert path.read_bytes() != weighed


@pytest.mark.peer
def test_what_llama_cpp_cannot_read_is_an_error_and_leaves_nothing(job, tmp_path):
    pytest.importorskip("llama_cpp")
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(60))
    job = job("Q4_K_M")
    with pytest.raises(ArchiverError, match="could not quantize"):
        llama_cpp_quantizer.quantize(tmp_path / "broken.gguf", job.out / "x.gguf", "Q4_K_M", {}, job.on_progress)
    assert not list(job.out.iterdir())
