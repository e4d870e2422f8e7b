"""A GGUF file on the real server, offline: packaged by the command, streamed to the real client, as our kernels or llama.cpp compute it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from archiver.cli import app
from archiver.deploy.launch import TorchServe
from archiver.deploy.served_model import ServedModel
from tests.contract.clients import ModelClient, at_once
from tests.gguf_files import make_gguf

pytestmark = [pytest.mark.torchserve, pytest.mark.timeout(300)]

PROMPT = "Tell me about number 1"


@pytest.fixture(scope="module")
def gguf(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shared checkpoint as one file of float32: then its text is that of the checkpoint."""
    return make_gguf(checkpoint, tmp_path_factory.mktemp("gguf") / "tiny-F32.gguf")


@pytest.fixture(scope="module", params=["auto", pytest.param("llamacpp", marks=pytest.mark.peer)])
def client(request: pytest.FixtureRequest, gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelClient]:
    """The client of a server with the file's archive, on each engine."""
    store = tmp_path_factory.mktemp(request.param)
    config = store / "model-config.yaml"
    config.write_text(f"handler: {{engine: {{name: {request.param}, kv_memory_gib: 0.1}}}}")
    result = CliRunner().invoke(app, ["archive", str(gguf), "--format", "dir", "--config", str(config), "--out", str(store)])
    assert result.exit_code == 0, result.output
    with TorchServe.start([ServedModel.from_archive(Path(result.output.split()[-1]))]) as server:
        yield ModelClient(server, "tiny-F32")


@pytest.mark.parametrize("stream", [False, True])
def test_a_completion_is_what_the_checkpoint_generates(
    client: ModelClient, generate: Callable[[str, int], list[int]], tokenizer: Any, stream: bool
) -> None:
    token_ids = generate(PROMPT, 12)

    answer = client.complete(PROMPT, max_tokens=12, stream=stream)

    assert answer.text == tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert (answer.finish_reason, answer.num_tokens) == ("length", 12)


def test_a_chat_goes_through_the_file_s_template(client: ModelClient, tokenizer: Any) -> None:
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "hello"}], tokenize=False, add_generation_prompt=True)

    assert client.chat("hello", max_tokens=8, stream=True).text == client.complete(prompt, max_tokens=8).text


def test_many_at_once_get_what_each_gets_alone(client: ModelClient) -> None:
    prompts = [f"number {number} and some more" for number in range(8)]
    alone = [client.complete(prompt, max_tokens=8) for prompt in prompts]

    assert at_once(lambda prompt: client.complete(prompt, max_tokens=8, stream=True), prompts) == alone
