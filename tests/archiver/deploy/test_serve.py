"""``marquee serve`` as a user runs it: a process that says when it is ready and ends when it is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from archiver.deploy.ports import claim_ports
from archiver.deploy.serve import split_name

ROOT = Path(__file__).resolve().parents[3]

torchserve = pytest.mark.torchserve


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "archiver", "serve", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@torchserve
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_says_ready_to_a_machine_and_stops_on_a_signal(make_model, stop):
    process = start(str(make_model().archive), f"second={make_model().archive}", "--port", "0", "--json")
    assert process.stdout is not None
    ready = json.loads(process.stdout.readline())
    assert [model["name"] for model in ready["models"]] == ["echo", "second"]
    url = ready["models"][1]["prediction_url"]
    assert httpx.post(url, content=b"hi", headers={"content-type": "application/octet-stream"}).text == "hi"
    frontend = psutil.Process(ready["frontend_pid"])
    tree = [frontend, *frontend.children(recursive=True)]

    for pause_s in (0.1, 1.0, 0.0):  # impatient further ones leave nothing behind either
        process.send_signal(stop)
        time.sleep(pause_s)
    output, errors = process.communicate(timeout=60)

    assert (process.returncode, output, errors) == (0, "", "")
    assert not any(each.is_running() for each in tree)
    assert not Path(ready["logs"]).parent.exists()
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


@torchserve
def test_shows_a_user_where_it_answers_and_how_to_try_it(make_model):
    port = str(claim_ports(0).inference)
    process = start(str(make_model().archive), "--port", port, "--name", "bot")
    assert process.stdout is not None
    lines = []
    while "Ctrl-C" not in (line := process.stdout.readline()):
        assert line, process.communicate()
        lines.append(line)
    process.terminate()
    assert process.wait(timeout=60) == 0

    text = "".join(lines)
    assert "\x1b" not in text  # plain, where there is no terminal
    assert f"http://127.0.0.1:{port}/predictions/bot/1.0/v1\n" in text
    assert f"http://127.0.0.1:{int(port) + 2}/metrics\n" in text
    curl = text[text.index("curl") : text.index("or in Python")]
    assert f"{port}/predictions/bot/1.0/v1/chat/completions \\\n" in curl
    assert '"stream": true' in curl
    compile(text[text.index("from openai") :], "snippet", "exec")


@torchserve
def test_a_failed_load_is_one_line_with_the_cause(make_model):
    broken = """
    class Broken:
        def initialize(self, context):
            raise KeyError("rope_theta")

        def handle(self, data, context):
            pass
    """
    process = start(str(make_model("broken", broken).archive), "--port", "0")
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert output == ""
    assert errors.startswith("marquee: broken failed to load: KeyError: 'rope_theta' (log: /")
    assert errors.count("\n") == 1


@torchserve
def test_a_frontend_that_ends_by_itself_is_reported(make_model):
    process = start(str(make_model().archive), "--port", "0", "--json")
    assert process.stdout is not None
    os.kill(json.loads(process.stdout.readline())["frontend_pid"], signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.startswith("marquee: TorchServe ended by itself with status 137 (logs: /")


def test_names_before_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert split_name("bot=./model") == ("bot", "./model")
    assert split_name("./model") == (None, "./model")
    (tmp_path / "a=b").mkdir()
    assert split_name("a=b") == (None, "a=b")
