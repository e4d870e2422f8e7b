"""The examples' handlers on a real server, asked by their own clients."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from archiver.deploy.launch import TorchServe
from archiver.deploy.served_model import ServedModel
from archiver.package import ArchiveSpec, build_archive

EXAMPLES = Path(__file__).parents[2] / "examples"
MODEL = EXAMPLES / "tinychat" / "model"

pytestmark = pytest.mark.torchserve


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TorchServe]:
    store = tmp_path_factory.mktemp("store")
    custom, static = EXAMPLES / "custom_preprocessing", EXAMPLES / "static_batching"
    specs = [
        ArchiveSpec(MODEL, "redacting", handler=custom / "handler.py", out=store),
        ArchiveSpec(MODEL, "static", handler=static / "handler.py", config=static / "model-config.yaml", out=store),
    ]
    with TorchServe.start([ServedModel.from_archive(build_archive(spec)) for spec in specs]) as server:
        yield server


def run_client(server: TorchServe, example: str, model: str) -> str:
    command = [sys.executable, EXAMPLES / example / "client.py", server.openai_base_url(model)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def test_the_redacting_client_is_told_what_was_redacted(server: TorchServe) -> None:
    assert "redactions: 2" in run_client(server, "custom_preprocessing", "redacting")


def test_the_model_sees_the_redacted_text(server: TorchServe) -> None:
    client = openai.OpenAI(base_url=server.openai_base_url("redacting"), api_key="unused")

    def num_prompt_tokens(text: str) -> int:
        completion = client.completions.create(model="redacting", prompt=text, max_tokens=1)
        assert completion.usage is not None
        return completion.usage.prompt_tokens

    private = "My address is anna.long.name@mail.example.org, my number (020) 7946 0958."
    assert num_prompt_tokens(private) == num_prompt_tokens("My address is [redacted], my number [redacted].")


def test_the_static_client_gets_its_answers_faster_together(server: TorchServe) -> None:
    output = run_client(server, "static_batching", "static")
    assert re.search(r"16 at once: \d+\.\d\d s", output)
    assert output.rstrip().splitlines()[-1], "the answer to 5 + 7 is empty"


@pytest.mark.parametrize("example", ["custom_preprocessing", "static_batching"])
def test_handlers_stay_short(example: str) -> None:
    assert len((EXAMPLES / example / "handler.py").read_text().splitlines()) <= 20
