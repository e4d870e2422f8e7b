"""Quantized weights behind a real TorchServe, from archives, offline: quantized while they load, and stored so."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from archiver.deploy.launch import TorchServe
from archiver.deploy.served_model import ServedModel
from archiver.package import ArchiveSpec, build_archive
from handlers.config import EngineConfig, HandlerConfig, ModelConfig, QuantizationConfig
from handlers.native.packed_linear import can_pack
from handlers.quant.machine import Machine
from handlers.requests import SamplingParams
from handlers.weights.checkpoint import Checkpoint
from handlers.weights.loading import choose_loader
from tests.contract.clients import ModelClient, at_once, counter, orders_to, wait_until
from tests.quantized_checkpoints import declare, make_compressed_tensors

pytestmark = [pytest.mark.torchserve, pytest.mark.timeout(300)]

TINYCHAT = Path(__file__).parents[2] / "examples" / "tinychat" / "model"
PROMPT, NUM_TOKENS = "Once upon a time there was a little fox", 20
# A model's recipe at load, what it says its weights are, and at most how many bytes they take: packed, and where there are no kernels for
# that, in float32. tinychat's are 7.9 MB in bfloat16.
MODELS = {
    "nf4": ("nf4", "plain, nf4 at load", (5_000_000, 16_000_000)),
    "stored": ("none", "compressed-tensors W4A16", (180_000, 380_000)),
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The checkpoint of each model; that of "stored" is as llmcompressor writes them."""
    return {"nf4": TINYCHAT, "stored": make_compressed_tensors(tmp_path_factory.mktemp("stored"))}


@pytest.fixture(scope="module")
def server(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[TorchServe]:
    store = tmp_path_factory.mktemp("store")
    specs = [
        ArchiveSpec(checkpoints[name], name, out=store, settings={"quantization": {"recipe": recipe}})
        for name, (recipe, *_) in MODELS.items()
    ]
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HF_HUB_OFFLINE", "1")
        with TorchServe.start([ServedModel.from_archive(build_archive(spec)) for spec in specs]) as server:
            yield server


@pytest.fixture(scope="module")
def describe(server: TorchServe) -> Callable[[str], Any]:
    """Return a function that asks a model's worker what it is."""
    return lambda name: orders_to(server, name)("describe")


def generate_here(directory: Path, recipe: Any, prompt: str) -> str:
    """Return what the engine in this process says, greedily, over weights that are loaded the same way."""
    from transformers import AutoTokenizer

    from handlers.engine.build import build_engine_client

    load = choose_loader(Checkpoint.open(directory, ModelConfig()), HandlerConfig(quantization=QuantizationConfig(recipe)), Machine())
    assert load is not None
    tokenizer = AutoTokenizer.from_pretrained(directory)
    client = build_engine_client(load(), EngineConfig(kv_memory_gib=0.01, max_running=1), eos_token_ids=frozenset())
    try:
        client.add("a", tokenizer(prompt)["input_ids"], SamplingParams(max_tokens=NUM_TOKENS, temperature=0))
        token_ids: list[int] = []
        while len(token_ids) < NUM_TOKENS:
            token_ids += [token_id for event in client.poll(10) for token_id in event.token_ids]
    finally:
        client.close()
    return str(tokenizer.decode(token_ids, skip_special_tokens=True))


@pytest.mark.parametrize("name", MODELS)
def test_a_stream_says_what_the_weights_say(server: TorchServe, checkpoints: dict[str, Path], name: str) -> None:
    client = ModelClient(server, name)

    def ask(stream: bool) -> str:
        return client.complete(PROMPT, stream=stream, max_tokens=NUM_TOKENS, ignore_eos=True).text

    streamed, whole, *others = at_once(ask, [True, False, True, True])

    assert streamed == whole == generate_here(checkpoints[name], MODELS[name][0], PROMPT)
    assert set(others) == {streamed}


@pytest.mark.parametrize("name", MODELS)
def test_a_worker_tells_what_its_weights_are_and_take(server: TorchServe, describe: Callable[[str], Any], name: str) -> None:
    _, weights, (packed_bytes, unpacked_bytes) = MODELS[name]
    most_bytes = packed_bytes if can_pack(torch.device("cpu")) else unpacked_bytes
    ModelClient(server, name).complete(PROMPT, max_tokens=1)

    told = describe(name)
    assert told["weights"] == weights
    assert most_bytes / 2 < told["weight_bytes"] < most_bytes
    wait_until(lambda: counter(server, "marquee_weight_bytes", name) == told["weight_bytes"])


def test_what_this_machine_cannot_run_is_one_line_of_marquee_serve(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    directory = tmp_path / "gpt"
    directory.mkdir()
    for file in checkpoints["stored"].iterdir():
        (directory / file.name).write_bytes(file.read_bytes())
    declare(directory, {"quant_method": "mxfp4"})

    command = [sys.executable, "-m", "archiver", "serve", str(directory), "--port", "0"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)

    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert "the checkpoint's weights are mxfp4, which needs a CUDA GPU; this machine has no CUDA GPU" in line
    assert "marquee quantize MODEL --recipe nf4" in line
