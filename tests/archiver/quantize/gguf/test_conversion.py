"""What is written, read back by the gguf package and by transformers."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from archiver.errors import ArchiverError, UsageError
from archiver.quantize.gguf import conversion
from archiver.quantize.gguf.conversion import checkpoint_name, convert
from tests.archiver.quantize.gguf.family_checkpoints import AWKWARD_TEXTS, FAMILIES, make_family_checkpoint

PROMPT = [7, 21, 3, 190, 44, 250, 61, 5, 5, 130, 298, 17]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_family_checkpoint(tmp_path_factory.mktemp("llama") / "tiny-llama", "llama", num_hidden_layers=2)


@pytest.fixture
def copy(checkpoint, tmp_path):
    """The checkpoint again, in a directory that a test may damage."""
    directory = tmp_path / "copy"
    directory.mkdir()
    for file in checkpoint.iterdir():
        (directory / file.name).write_bytes(file.read_bytes())
    return directory


def no_progress(*_):
    pass


def edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def logits(*where, **options):
    model = AutoModelForCausalLM.from_pretrained(*where, dtype=torch.float32, **options).eval()
    with torch.inference_mode():
        return model(torch.tensor([PROMPT])).logits


def field(path, key):
    return GGUFReader(path).get_field(key).contents()


@pytest.mark.parametrize(
    "family", [name for name, (kind, _) in FAMILIES.items() if kind in ("llama", "qwen2", "qwen3") and "-" not in name]
)
def test_transformers_reads_the_same_logits(family, tmp_path):
    only_size_that_it_reads = {"head_dim": 128} if family == "qwen3" else {}
    checkpoint = make_family_checkpoint(tmp_path / "model", family, num_hidden_layers=2, **only_size_that_it_reads)
    convert(checkpoint, tmp_path / "model.gguf", "F32", no_progress)
    read = logits(tmp_path, gguf_file="model.gguf")
    torch.testing.assert_close(read, logits(checkpoint), atol=1e-4, rtol=1e-4)


def test_transformers_reads_the_same_tokens(checkpoint, tmp_path):
    convert(checkpoint, tmp_path / "model.gguf", "F16", no_progress)
    read, source = AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf"), AutoTokenizer.from_pretrained(checkpoint)
    for text in AWKWARD_TEXTS[:5]:
        assert read(text)["input_ids"] == source(text)["input_ids"]
    assert (read.chat_template, read.eos_token_id, read.pad_token_id) == (source.chat_template, source.eos_token_id, source.pad_token_id)


def test_metadata(checkpoint, tmp_path):
    path = tmp_path / "model.gguf"
    convert(checkpoint, path, "Q8_0", no_progress)
    assert field(path, "general.architecture") == "llama"
    assert field(path, "general.name") == "tiny-llama"
    assert field(path, "llama.attention.key_length") == 16
    assert field(path, "llama.context_length") == 128
    assert field(path, "tokenizer.ggml.pre") == "gpt-2"
    assert field(path, "tokenizer.ggml.add_bos_token") is False
    tokens, types = field(path, "tokenizer.ggml.tokens"), field(path, "tokenizer.ggml.token_type")
    assert len(tokens) == len(types) == field(path, "llama.vocab_size")
    assert tokens[-1].startswith("[PAD") and types[-1] == 5  # rows without a token: unused
    assert types[tokens.index("<|end|>")] == 3  # control


@pytest.mark.parametrize("file_type", ["F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0"])
def test_every_type_is_close_to_the_source(file_type, checkpoint, tmp_path):
    from gguf.quants import dequantize

    convert(checkpoint, tmp_path / "model.gguf", file_type, no_progress)
    tensors = {tensor.name: tensor for tensor in GGUFReader(tmp_path / "model.gguf").tensors}
    source = load_file(checkpoint / "model.safetensors")
    up, head = tensors["blk.0.ffn_up.weight"], tensors["output.weight"]
    assert up.tensor_type.name == file_type
    assert head.tensor_type.name == ("Q8_0" if file_type.startswith(("Q4", "Q5")) else file_type)
    assert tensors["blk.0.attn_norm.weight"].tensor_type.name == "F32"
    expected = source["model.layers.0.mlp.up_proj.weight"].numpy()
    error = np.linalg.norm(dequantize(up.data, up.tensor_type) - expected) / np.linalg.norm(expected)
    bits = {"F32": 1e-7, "F16": 1e-3, "BF16": 4e-3, "Q8_0": 0.01}
    assert error < bits.get(file_type, 0.06 if file_type.startswith("Q5") else 0.12)


def test_rows_that_are_no_whole_blocks_stay_in_16_bits(tmp_path):
    checkpoint = make_family_checkpoint(tmp_path / "model", "llama", num_hidden_layers=1, intermediate_size=80)
    convert(checkpoint, tmp_path / "model.gguf", "Q4_0", no_progress)
    types = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(tmp_path / "model.gguf").tensors}
    assert (types["blk.0.ffn_down.weight"], types["blk.0.ffn_up.weight"]) == ("F16", "Q4_0")


def test_shards_give_the_same_file(checkpoint, tmp_path):
    sharded = tmp_path / "tiny-llama"
    AutoModelForCausalLM.from_pretrained(checkpoint).save_pretrained(sharded, max_shard_size="100KB")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json", "config.json"):
        (sharded / name).write_bytes((checkpoint / name).read_bytes())
    assert len(list(sharded.glob("*.safetensors"))) > 1
    convert(checkpoint, tmp_path / "one.gguf", "F16", no_progress)
    convert(sharded, tmp_path / "many.gguf", "F16", no_progress)
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "many.gguf").read_bytes()


def test_progress_counts_every_tensor(checkpoint, tmp_path):
    seen = []
    convert(checkpoint, tmp_path / "model.gguf", "F32", lambda *progress: seen.append(progress))
    total = len(GGUFReader(tmp_path / "model.gguf").tensors)
    assert seen == [("tensors", done, total) for done in range(total + 1)]


def test_what_is_interrupted_leaves_nothing(checkpoint, tmp_path):
    def interrupt(what, done, total):
        if done == total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(checkpoint, tmp_path / "model.gguf", "F32", interrupt)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "not for gpt2"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantized already"),
        ({"hidden_act": "gelu"}, "this model uses gelu"),
        ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "'dynamic'"),
    ],
)
def test_refused_models(changes, message, copy, tmp_path):
    edit_json(copy / "config.json", **changes)
    with pytest.raises(UsageError, match=message):
        convert(copy, tmp_path / "model.gguf", "F16", no_progress)
    assert not (tmp_path / "model.gguf").exists()


def test_a_missing_tensor(copy, tmp_path):
    tensors = load_file(copy / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ArchiverError, match="lacks 1 tensors of its model, model.norm.weight"):
        convert(copy, tmp_path / "model.gguf", "F16", no_progress)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(3), r"should be \(64,\)"),
        (torch.zeros(64, dtype=torch.int8), "of int8"),
    ],
)
def test_a_tensor_of_another_shape_or_kind(tensor, message, copy, tmp_path):
    tensors = load_file(copy / "model.safetensors")
    save_file(tensors | {"model.norm.weight": tensor}, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ArchiverError, match=message):
        convert(copy, tmp_path / "model.gguf", "F16", no_progress)
    assert not list(tmp_path.glob("*.gguf")) and not list(tmp_path.glob(".*"))


def test_values_beyond_float16(copy, tmp_path):
    tensors = load_file(copy / "model.safetensors")
    tensors["lm_head.weight"][0, 0] = 1e6
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ArchiverError, match="lm_head.weight has values that F16 cannot hold; take BF16"):
        convert(copy, tmp_path / "model.gguf", "F16", no_progress)
    convert(copy, tmp_path / "model.gguf", "BF16", no_progress)


def test_a_full_disk(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(conversion.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(ArchiverError, match="are free"):
        convert(checkpoint, tmp_path / "model.gguf", "F16", no_progress)


def test_a_sliding_window_that_llama_cpp_ignores_ends_the_context(tmp_path):
    checkpoint = make_family_checkpoint(tmp_path / "model", "mistral", sliding_window=48, num_hidden_layers=1)
    convert(checkpoint, tmp_path / "model.gguf", "F16", no_progress)
    assert field(tmp_path / "model.gguf", "llama.context_length") == 48


def test_names(tmp_path):
    snapshot = tmp_path / "models--owner--tiny-model" / "snapshots" / "0123abc"
    assert checkpoint_name(snapshot) == "tiny-model"
    assert checkpoint_name(tmp_path / "mine") == "mine"
