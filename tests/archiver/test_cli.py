"""The command line: help, exit codes, one line for a mistake, JSON for a machine."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from archiver.cli import main
from archiver.deploy.ports import claim_ports
from archiver.package import ArchiveSpec, build_archive
from tests.checkpoints import make_checkpoint

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ("serve", "archive", "inspect", "verify", "plan", "quantize", "autoscale", "top", "chat", "doctor", "java-home")


class Result:
    """What a command left behind."""

    def __init__(self, exit_code: int, captured: pytest.CaptureResult[str]) -> None:
        self.exit_code = exit_code
        self.output = captured.out
        self.errors = captured.err


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.delenv("MARQUEE_DEBUG", raising=False)

    def run(*arguments: object) -> Result:
        monkeypatch.setattr("sys.argv", ["marquee", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        return Result(int(end.value.code or 0), capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoints") / "bot")


@pytest.fixture(scope="module")
def archive(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_archive(ArchiveSpec(checkpoint, "bot", out=tmp_path_factory.mktemp("store")))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(run, command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "Example: " in result.output
    assert f"marquee {command}" in result.output


def test_help_lists_the_commands_and_is_what_a_bare_call_shows(run):
    listing = run("--help").output
    assert all(command in listing for command in COMMANDS)
    bare = run()
    assert (bare.exit_code, bare.errors) == (2, "")
    assert "Usage" in bare.output


def test_help_imports_nothing_heavy():
    script = """
import sys
from archiver.cli import main

sys.argv = ["marquee", "--help"]
try:
    main()
finally:
    print(*sys.modules)
"""
    output = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not {"torch", "transformers", "ts", "httpx", "psutil", "safetensors", "archiver.package"} & set(output.split())


def test_version(run):
    from handlers import __version__

    assert run("--version").output == f"marquee {__version__}\n"


def used_wrongly(taken: int) -> dict[str, tuple[tuple[object, ...], str]]:
    return {
        "no model": (("serve",), "Missing argument"),
        "unknown option": (("serve", "x", "--bogus"), "No such option"),
        "unknown command": (("sreve",), "No such command"),
        "no such directory": (("serve", "./missing"), "no such directory: ./missing"),
        "no checkpoint": (("serve", ROOT / "config"), "is no checkpoint"),
        "other machines": (
            ("serve", "CHECKPOINT", "--expose-management", "0.0.0.0", "--no-token-auth"),
            "does not go with --no-token-auth",
        ),
        "port in use": (("serve", "CHECKPOINT", "--port", taken), f"port {taken} is in use"),
        "port out of range": (("serve", "CHECKPOINT", "--port", "70000"), "out of range"),
        "one name for two": (("serve", "CHECKPOINT", "CHECKPOINT", "--name", "x"), "write NAME=PATH"),
        "one name twice": (("serve", "a=CHECKPOINT", "a=CHECKPOINT"), "two models are named a"),
        "impossible name": (("serve", "CHECKPOINT", "--name", "a/b"), "cannot be used"),
        "settings of ours": (("serve", "CHECKPOINT", "--ts-config", ROOT / "config" / "config.properties"), "which marquee serve decides"),
        "no settings": (("serve", "CHECKPOINT", "--ts-config", "./missing"), "cannot read it"),
        "no archive": (("inspect", "./missing.mar"), "no such archive"),
        "nothing to verify": (("verify", "./missing.mar"), "no such archive"),
        "archive of an archive": (("archive", "ARCHIVE"), "is an archive already"),
        "nothing to quantize": (("quantize",), "say which MODEL"),
        "no recipe": (("quantize", "CHECKPOINT"), "say how, with --recipe"),
        "unknown recipe": (("quantize", "CHECKPOINT", "--recipe", "nf3"), "did you mean 'nf4'?"),
        "unknown limit": (("quantize", "CHECKPOINT", "--recipe", "nf4", "--budget", "size=3"), "--budget has no limit called 'size'"),
        "quantized archive": (("quantize", "ARCHIVE", "--recipe", "nf4"), "only a checkpoint directory"),
        "missing handler": (("archive", "CHECKPOINT", "--handler", "./missing.py"), "missing.py"),
    }


@pytest.mark.parametrize("mistake", used_wrongly(0))
def test_a_mistake_is_one_line_and_exit_code_2(run, checkpoint, archive, mistake, monkeypatch, tmp_path):
    monkeypatch.setenv("MARQUEE_CACHE", str(tmp_path))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", claim_ports(0).inference))
        listener.listen()
        arguments, message = used_wrongly(listener.getsockname()[1])[mistake]
        words = [str(argument).replace("CHECKPOINT", str(checkpoint)).replace("ARCHIVE", str(archive)) for argument in arguments]
        result = run(*words)
    assert result.exit_code == 2
    assert message in result.errors
    assert result.errors.startswith("marquee: ")
    assert result.errors.count("\n") == 1
    assert result.output == ""


def test_archives_a_checkpoint_and_prints_where(run, checkpoint, tmp_path):
    result = run("archive", checkpoint, "--name", "my-bot", "--version", "2.0", "--out", tmp_path / "store", "--format", "dir")
    assert (result.exit_code, result.errors) == (0, "")
    assert result.output == f"{tmp_path / 'store' / 'my-bot'}\n"
    manifest = json.loads((tmp_path / "store" / "my-bot" / "MAR-INF" / "MANIFEST.json").read_text())
    assert (manifest["model"]["modelName"], manifest["model"]["modelVersion"]) == ("my-bot", "2.0")


def test_a_models_name_is_its_directorys(run, checkpoint, tmp_path):
    assert run("archive", checkpoint, "--out", tmp_path).output == f"{tmp_path / 'bot.mar'}\n"


def test_inspects_for_people_and_machines(run, archive):
    shown = run("inspect", archive)
    assert "LlamaForCausalLM" in shown.output
    assert json.loads(run("inspect", archive, "--json").output)["architecture"] == "LlamaForCausalLM"


def test_verifies_with_an_exit_code(run, archive, tmp_path):
    good = run("verify", archive)
    assert (good.exit_code, good.errors) == (0, "")
    damaged = tmp_path / "bot.mar"
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    assert run("verify", damaged).exit_code == 1
    report = run("verify", damaged, "--json")
    assert report.exit_code == 1
    assert json.loads(report.output)["ok"] is False


def test_lists_recipes_for_people_and_machines(run):
    shown = run("quantize", "--list")
    assert (shown.exit_code, shown.errors) == (0, "")
    assert "gptq-int4" in shown.output
    recipes = {recipe["name"]: recipe for recipe in json.loads(run("quantize", "--list", "--json").output)["recipes"]}
    assert recipes["gptq-int4"]["needs_calibration"]
    assert recipes["gptq-int4"]["options"]["group_size"] == 128


def test_java_home_prints_a_path(run):
    assert (Path(run("java-home").output.strip()) / "bin" / "java").exists()


def test_debug_shows_the_traceback(monkeypatch):
    environment = {"PATH": "", "MARQUEE_DEBUG": "1"}
    command = [sys.executable, "-m", "archiver", "inspect", "./missing.mar"]
    assert "Traceback" in subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False).stderr
