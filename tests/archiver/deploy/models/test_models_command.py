"""``marquee models``: help, and what is refused before a server is asked."""

from __future__ import annotations

import signal

import pytest

from archiver.cli import main

COMMANDS = ("list", "show", "register", "scale", "default", "unregister", "roll")


@pytest.fixture
def run(monkeypatch, capsys):
    monkeypatch.delenv("MARQUEE_DEBUG", raising=False)

    def run_models(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["marquee", "models", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        return int(end.value.code or 0), captured.out, captured.err

    return run_models


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(run, command):
    code, output, _ = run(command, "--help")
    assert code == 0
    assert f"Example: marquee models {command}" in " ".join(output.split())


@pytest.mark.parametrize("command", [("list",), ("show", "bot"), ("scale", "bot", "2"), ("default", "bot", "1.0"), ("unregister", "bot")])
def test_no_server_is_one_line(run, command):
    code, output, errors = run(*command, "--url", "http://127.0.0.1:1")
    assert (code, output) == (1, "")
    assert errors.startswith("marquee: no TorchServe answers at http://127.0.0.1:1 (")
    assert errors.count("\n") == 1


def test_what_is_half_done_is_undone_however_it_is_ended(run, monkeypatch):
    heard = []
    monkeypatch.setattr("signal.signal", lambda number, handler: heard.append((number, handler)))
    run("unregister", "bot", "--url", "http://127.0.0.1:1")
    assert heard == [(signal.SIGTERM, signal.default_int_handler), (signal.SIGHUP, signal.default_int_handler)]


def test_scale_says_which_version_it_takes(run):
    assert "the default one unless given" in " ".join(run("scale", "--help")[1].replace("│", " ").split())


def test_a_message_has_no_power_over_the_terminal(run):
    code, _, errors = run("list", "--url", "http://\x1b]0;owned\x07")
    assert (code, errors.startswith("marquee: http://]0;owned is no address")) == (2, True)


def test_two_answers_to_one_question_are_refused(run):
    code, _, errors = run("roll", "bot", "bot.mar", "--probe", "probe.json", "--no-probe")
    assert (code, errors) == (2, "marquee: --probe and --no-probe exclude each other: give one of them\n")
