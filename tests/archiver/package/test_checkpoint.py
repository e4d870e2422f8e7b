"""What is a checkpoint, which of its files are served, and one line for each thing that is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from archiver.errors import UsageError
from archiver.package.checkpoint import read_checkpoint


def served(directory: Path, **options: bool) -> list[str]:
    return [file.as_posix() for file in read_checkpoint(directory, **options).files]


def test_serves_weights_tokenizer_and_configuration_only(checkpoint: Path) -> None:
    assert served(checkpoint) == ["chat_template.jinja", "config.json", "model.safetensors", "tokenizer.json"]
    assert read_checkpoint(checkpoint).architecture == "LlamaForCausalLM"


def test_serves_the_shards_that_the_index_lists_and_no_other(sharded_checkpoint: Path) -> None:
    save_file({"x": np.zeros(1)}, sharded_checkpoint / "consolidated.safetensors")
    weights = [file for file in served(sharded_checkpoint) if "model" in file]
    assert weights == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]


def test_a_missing_shard_is_named(sharded_checkpoint: Path) -> None:
    (sharded_checkpoint / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UsageError, match=r"lacks the shard model-00002-of-00002.safetensors"):
        read_checkpoint(sharded_checkpoint)


def test_a_tensor_in_no_shard_is_named(sharded_checkpoint: Path) -> None:
    save_file({"other": np.zeros(1)}, sharded_checkpoint / "model-00001-of-00002.safetensors")
    with pytest.raises(UsageError, match=r"lacks the tensor layer.0"):
        read_checkpoint(sharded_checkpoint)


def test_an_index_cannot_name_files_elsewhere(sharded_checkpoint: Path) -> None:
    (sharded_checkpoint / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}))
    with pytest.raises(UsageError, match="lacks the shard"):
        read_checkpoint(sharded_checkpoint)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", None, "is no checkpoint: it has no config.json"),
        ("config.json", b"{", "config.json is not JSON"),
        ("config.json", b"[]", "holds no JSON object"),
        ("config.json", b"{}", "names no architecture"),
        ("model.safetensors", None, "neither model.safetensors nor model.safetensors.index.json"),
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        ("tokenizer.json", None, "has no tokenizer"),
        ("model.safetensors.index.json", b"{}", "has no weight_map"),
    ],
)
def test_says_in_one_line_what_is_wrong(checkpoint: Path, file: str, content: bytes | None, message: str) -> None:
    (checkpoint / file).unlink(missing_ok=True)
    if content is not None:
        (checkpoint / file).write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        read_checkpoint(checkpoint)
    assert "\n" not in str(caught.value)


def test_refuses_pickled_weights_unless_asked(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    with pytest.raises(UsageError, match="convert it to safetensors"):
        read_checkpoint(checkpoint)
    assert "pytorch_model.bin" in served(checkpoint, allow_pickle=True)


def test_never_serves_pickled_weights_beside_safetensors(checkpoint: Path) -> None:
    (checkpoint / "pytorch_model.bin").write_bytes(b"pickled")
    assert "pytorch_model.bin" not in served(checkpoint, allow_pickle=True)


def test_refuses_remote_code_unless_asked(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "modeling.Model"}}))
    (checkpoint / "modeling.py").write_text("class Model: ...")
    with pytest.raises(UsageError, match="trust_remote_code"):
        read_checkpoint(checkpoint)
    assert "modeling.py" in served(checkpoint, trust_remote_code=True)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("quanto", "weights are quanto: it cannot be saved"),
        ("exl3", r"in a way that is not supported \(exl3\)"),
        (None, "lacks quant_method"),
    ],
)
def test_refuses_formats_that_no_machine_serves(checkpoint: Path, method: str | None, message: str) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": method, "bits": 4}}))
    with pytest.raises(UsageError, match=message) as caught:
        read_checkpoint(checkpoint)
    assert "\n" not in str(caught.value)


def test_packages_formats_that_another_machine_may_run(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "mxfp4"}}))
    assert "model.safetensors" in served(checkpoint)
