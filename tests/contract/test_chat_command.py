"""``marquee chat`` with a real server: over pipes, and at a terminal with Ctrl-C."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from archiver.deploy.launch import TorchServe
from archiver.printable import printable
from tests.contract.clients import PATIENCE_S, ModelClient, counter, wait_until
from tests.contract.terminal import CTRL_C, CTRL_D, Terminal

pytestmark = [pytest.mark.torchserve, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
NUM_WANTED = 7500
"""What is asked for by who then presses Ctrl-C."""

PROMPT = ">\x1b[0m "
"""Until it is there the terminal is not yet ready for control characters."""

GREEDY = ("--set", "temperature=0", "--set", "max_tokens=8")


def chat(*arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "archiver", "chat", *arguments]
    return subprocess.run(command, cwd=ROOT, input=typed, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


@pytest.mark.parametrize("address", ["root", "prediction", "openai"])
def test_any_address_of_a_model_leads_to_its_answer(server: TorchServe, wide: ModelClient, address: str) -> None:
    url = {"root": server.inference_url, "prediction": wide.prediction_url, "openai": wide.base_url}[address]
    asked = chat(url, *(("--model", "wide") if address == "root" else ()), "-m", "quick fox", *GREEDY, "--json")
    answer = json.loads(asked.stdout)
    expected = wide.chat("quick fox", max_tokens=8)
    assert (answer["text"], answer["finish_reason"], answer["generated_tokens"]) == (expected.text, "length", 8)
    assert (asked.returncode, asked.stderr) == (0, "")


def test_each_line_of_a_pipe_is_answered_in_one_conversation(wide: ModelClient) -> None:
    piped = chat(wide.base_url, typed="/set temperature 0\n/set max_tokens 8\nquick fox\n\nlazy dog\n/undo\nlazy \\\ndog\n/show\n")
    assert (piped.returncode, piped.stderr) == (0, "")
    first = wide.chat("quick fox", max_tokens=8).text
    messages = [("user", "quick fox"), ("assistant", first), ("user", "lazy dog")]
    asked = wide.openai.chat.completions.create(
        model="wide",
        messages=[{"role": role, "content": content} for role, content in messages],  # type: ignore[misc]
        temperature=0,
        max_tokens=8,
    )
    assert piped.stdout.startswith(f"{printable(first)}\n{printable(asked.choices[0].message.content or '')}\n")
    assert "\nuser\tlazy \ndog\n" in piped.stdout


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["-m", "hi"], 2, "say which with --model: there are "),
        (["-m", "hi", "--model", "nobody"], 2, "no model 'nobody' there: there are "),
        (["-m", "hi", "--model", "wide:7.0"], 1, "Model version: 7.0 does not exist for model: wide"),
        (["-m", "hi", "--model", "wide", "--set", "max_tokens=100000"], 1, "the prompt has "),
        (["-m", "hi", "--model", "wide", "--set", "heat=1"], 2, "no parameter 'heat'"),
    ],
)
def test_trouble_is_one_line(server: TorchServe, arguments: list[str], exit_code: int, message: str) -> None:
    failed = chat(server.inference_url, *arguments)
    assert (failed.returncode, failed.stdout, failed.stderr.count("\n")) == (exit_code, "", 1)
    assert failed.stderr.startswith(f"marquee: {message}")


def endless_prompt(client: ModelClient) -> str:
    """Return a message to which the answer is long: one that goes on for a while in random noise mostly goes on for ever."""
    prompts = (f"quick fox {number}" for number in range(20))
    return next(prompt for prompt in prompts if client.chat(prompt, max_tokens=400).finish_reason == "length")


def test_ctrl_c_stops_the_server_too_and_the_chat_goes_on(server: TorchServe, wide: ModelClient, tmp_path: Path) -> None:
    prompt = endless_prompt(wide)
    cancelled = counter(server, "marquee_requests_total", "wide", status="cancelled")
    generated = counter(server, "marquee_generated_tokens_total", "wide")

    with Terminal("chat", wide.base_url, XDG_STATE_HOME=str(tmp_path)) as terminal:

        def type_line(text: str) -> None:
            terminal.expect(PROMPT)
            terminal.type(f"{text}\n")

        type_line("/set temperature 0")
        type_line(f"/set max_tokens {NUM_WANTED}")
        type_line(prompt)
        terminal.expect(f"{prompt}\r\n")
        wait_until(lambda: counter(server, "marquee_running_sequences", "wide") == 1)
        terminal.expect_answer()
        terminal.type(CTRL_C)
        terminal.expect("cancelled; what came of it is kept")

        # The frontend tells who is left when it has something new to say.
        wait_until(lambda: wide.openai.models.list() and counter(server, "marquee_requests_total", "wide", status="cancelled") > cancelled)
        wait_until(lambda: counter(server, "marquee_running_sequences", "wide") == 0)
        num_generated = counter(server, "marquee_generated_tokens_total", "wide") - generated
        assert 0 < num_generated < NUM_WANTED

        type_line("/show")
        terminal.expect("assistant (partial)")
        terminal.expect(PROMPT)
        terminal.type("not sent")
        terminal.expect("not sent")
        terminal.type(CTRL_C)
        type_line("/set max_tokens 8")
        type_line("again")
        terminal.expect("again\r\n")
        terminal.expect(" tokens")
        terminal.expect(PROMPT)
        terminal.type(CTRL_D)
        assert terminal.exit_code() == 0

    wait_until(lambda: counter(server, "marquee_generated_tokens_total", "wide") > generated + num_generated)
    assert counter(server, "marquee_generated_tokens_total", "wide") <= generated + num_generated + 8
    history = tmp_path / "marquee" / "chat_history"
    assert prompt in history.read_text()
    assert "not sent" not in history.read_text()
    assert history.stat().st_mode & 0o077 == 0
