"""What the README shows is run: its clients against a real server, its handler through the archiver, its commands by their help."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from archiver.deploy.launch import TorchServe
from archiver.deploy.served_model import ServedModel
from archiver.deploy.support_matrix import renewed
from archiver.package import ArchiveSpec, build_archive

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
TINYCHAT = ROOT / "examples" / "tinychat" / "model"
BASE_URL = "http://127.0.0.1:8080/predictions/tinychat/1.0/v1"


def blocks(language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [text for name, text in fenced if name == language]


def python_block(containing: str) -> str:
    return next(block for block in blocks("python") if containing in block)


def marquee_commands() -> list[str]:
    lines = [line.strip() for block in blocks("") for line in block.splitlines()]
    return [line for line in lines if re.match(r"(\.venv/bin/)?marquee ", line)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TorchServe]:
    directory = tmp_path_factory.mktemp("readme")
    handler = directory / "support_bot.py"
    handler.write_text(python_block("class SupportBot"))
    specs = [ArchiveSpec(TINYCHAT, "tinychat", out=directory), ArchiveSpec(TINYCHAT, "bot", handler=handler, out=directory)]
    with TorchServe.start([ServedModel.from_archive(build_archive(spec)) for spec in specs]) as server:
        yield server


@pytest.mark.torchserve
def test_the_python_client_streams_a_story(server: TorchServe) -> None:
    program = python_block("stream = client").replace(BASE_URL, server.openai_base_url("tinychat"))
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=120).stdout
    assert len(output.split()) > 5


@pytest.mark.torchserve
def test_the_printed_curl_command_streams_events(server: TorchServe) -> None:
    command = re.search(r"^curl .*?}'$", README, re.MULTILINE | re.DOTALL)
    assert command is not None
    arguments = shlex.split(command[0].replace("\\\n", "").replace(BASE_URL, server.openai_base_url("tinychat")))
    output = subprocess.run([*arguments, "-sS"], check=True, capture_output=True, text=True, timeout=120).stdout
    assert output.rstrip().endswith("data: [DONE]")


@pytest.mark.torchserve
def test_the_handler_of_the_readme_answers(server: TorchServe) -> None:
    program = python_block("stream = client").replace(BASE_URL, server.openai_base_url("bot")).replace('"tinychat"', '"bot"')
    assert subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=120).stdout


@pytest.mark.parametrize("command", marquee_commands())
def test_every_command_shown_exists_with_its_options(command: str) -> None:
    _, name, *arguments = shlex.split(command, comments=True)
    command_help = [sys.executable, "-m", "archiver", name, "--help"]
    usage = subprocess.run(command_help, check=True, capture_output=True, text=True, timeout=60).stdout
    for option in (argument for argument in arguments if argument.startswith("--")):
        assert option in usage


def test_the_output_shown_is_what_serve_prints() -> None:
    shown = next(block for block in blocks("") if "OpenAI base URL" in block)
    assert BASE_URL in shown


def test_the_table_of_formats_is_the_support_matrix() -> None:
    assert renewed(README) == README, "renew it: python -m archiver.deploy.support_matrix README.md"
