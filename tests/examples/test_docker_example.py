"""The container image: what its Dockerfile promises, and a server that runs as the image runs it.

No Docker is needed. The instructions are read, and ``container.sh`` gives a server the same world: process 1, a user without rights or
home, and a root file system that is read-only but for /tmp.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest
import yaml
from packaging.specifiers import SpecifierSet
from typer.main import get_command

from archiver.cli import app
from archiver.deploy.guard import STOP_TIMEOUT_S
from archiver.package import ArchiveSpec, build_archive

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "docker"
CONTAINER = Path(__file__).with_name("container.sh")

Instructions = list[tuple[str, str]]


def read_dockerfile(name: str = "Dockerfile") -> Instructions:
    """Return (instruction, arguments), with comments left out and continued lines joined."""
    lines = [line for line in (FOLDER / name).read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", "", "\n".join(lines))
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in joined.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def dockerfile() -> Instructions:
    return read_dockerfile()


@pytest.fixture(scope="module")
def final(dockerfile: Instructions) -> Instructions:
    """The last stage, which becomes the image."""
    start = max(index for index, (name, _) in enumerate(dockerfile) if name == "FROM")
    return dockerfile[start:]


@pytest.fixture(scope="module")
def environment(final: Instructions) -> dict[str, str]:
    return dict(pair.split("=", 1) for name, pairs in final if name == "ENV" for pair in pairs.split())


@pytest.fixture(scope="module")
def service() -> dict[str, Any]:
    services: dict[str, dict[str, Any]] = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]
    return services["marquee"]


def only(instructions: Instructions, name: str) -> str:
    (value,) = [arguments for each, arguments in instructions if each == name]
    return value


def test_bases_have_a_version_and_nothing_is_downloaded_by_add(dockerfile):
    assert re.fullmatch(r"PYTHON=3\.\d+-slim", dockerfile[0][1])
    assert all(arguments.split()[0] == "python:${PYTHON}" for name, arguments in dockerfile if name == "FROM")
    assert "ADD" not in dict(dockerfile)


def test_what_is_copied_exists_and_is_not_ignored(dockerfile):
    copied = [word for name, arguments in dockerfile if name == "COPY" and "--from" not in arguments for word in arguments.split()[:-1]]
    assert all((ROOT / path).exists() for path in copied)
    ignore = (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()
    assert sorted(line.removeprefix("!") for line in ignore if line.startswith("!")) == sorted(copied)
    assert "*" in ignore


def test_constraints_take_the_cpu_build_of_torch():
    (pinned,) = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch==")]
    version = pinned.removeprefix("torch==")
    assert SpecifierSet(f"=={version}").contains(f"{version}+cpu")


def test_runs_without_rights(final):
    names = [name for name, _ in final]
    assert only(final, "USER") == "10001:10001"
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert "RUN" not in names[names.index("USER") :]


def test_hears_signals_itself(final):
    assert only(final, "STOPSIGNAL") == "SIGTERM"
    assert json.loads(only(final, "ENTRYPOINT")) == ["marquee"]  # in exec form: a shell would be process 1, and keep signals to itself
    assert json.loads(only(final, "CMD")) == ["serve", "--help"]


def test_the_model_image_holds_an_archive():
    assert read_dockerfile("model.Dockerfile") == [("FROM", "scratch"), ("ARG", "MODEL=tinychat"), ("COPY", "${MODEL} /${MODEL}")]


def test_compose_locks_the_container_up(service):
    assert service["read_only"] is True
    assert service["user"] == "10001:10001"
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["ports"] == ["127.0.0.1:8080:8080"]
    assert [(volume["target"], volume["read_only"]) for volume in service["volumes"]] == [("/models", True)]
    (tmp,) = service["tmpfs"]
    assert tmp.startswith("/tmp:exec,")  # without it Docker mounts noexec, and no compiled kernel can be loaded
    assert (FOLDER / service["build"]["context"] / service["build"]["dockerfile"]).resolve() == FOLDER / "Dockerfile"


def test_compose_starts_what_our_command_line_knows(service):
    name, *arguments = service["command"]
    parameters = get_command(app).commands[name].make_context(name, arguments).params
    assert (parameters["host"], parameters["token_auth"], parameters["port"]) == ("0.0.0.0", False, 8080)
    grace_s = float(service["stop_grace_period"].removesuffix("s"))
    assert grace_s > parameters["drain_timeout"] + 2 * STOP_TIMEOUT_S  # the engine's end, and TorchServe's


@pytest.mark.parametrize("example", ["docker", "kubernetes"])
def test_the_readme_names_commands_that_exist(example):
    text = (ROOT / "examples" / example / "README.md").read_text()
    commands = re.findall(r"(?:^|-- )marquee (.+)$", text, re.MULTILINE) + re.findall(r"^  marquee:\S+ (.+)$", text, re.MULTILINE)
    assert len(commands) == 2
    for name, *arguments in map(str.split, commands):
        assert get_command(app).commands[name].make_context(name, arguments)


def test_compose_limits_what_the_engine_keeps_to(service):
    assert service["cpus"] >= 1
    assert float(service["mem_limit"].removesuffix("g")) > float(re.findall(r"size=(\d+)g", service["tmpfs"][0])[0])  # which it counts, too


def can_isolate() -> bool:
    command = ["unshare", "--mount", "--pid", "--fork", "true"]
    return sys.platform == "linux" and os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture
def container(tmp_path: Path, environment: dict[str, str], service: dict[str, Any]) -> Iterator[subprocess.Popen[str]]:
    """A server in a container's world, that of compose.yaml but for the ports: free ones, on loopback."""
    if not can_isolate():
        pytest.skip("only root on Linux may create mount and process namespaces, and not everywhere")
    models, tmp, root = (tmp_path / name for name in ("models", "tmp", "root"))
    root.mkdir()
    tmp.mkdir()
    tmp.chmod(0o1777)
    build_archive(ArchiveSpec(ROOT / "examples" / "tinychat" / "model", "tinychat", format="dir", out=models))

    system = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc")
    visible = [*system, sys.base_prefix, sys.prefix, str(ROOT)]
    variables = {**environment, "PATH": f"{sys.prefix}/bin:/usr/bin:/bin"}
    process = subprocess.Popen(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", CONTAINER, root, models, tmp, *dict.fromkeys(visible), "--"]
        + ["env", "-i", *(f"{name}={value}" for name, value in variables.items())]
        + [sys.executable, "-m", "archiver", *service["command"], "--host=127.0.0.1", "--port=0", "--json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.torchserve
def test_serves_as_a_user_without_rights_on_a_read_only_system(container, tmp_path, final, service):
    assert container.stdout is not None
    ready = json.loads(container.stdout.readline())
    base_url = ready["models"][0]["base_url"]
    client = openai.OpenAI(base_url=base_url, api_key="unused")
    messages: Any = [{"role": "user", "content": "What is 12 + 7?"}]
    answer = client.chat.completions.create(model="tinychat", messages=messages)
    assert answer.choices[0].message.content == "12 + 7 = 19."

    (server,) = psutil.Process(container.pid).children()
    tree = [server, *server.children(recursive=True)]
    assert {each.uids().real for each in tree} == {10001}
    mounts = [line.split() for line in Path(f"/proc/{server.pid}/mounts").read_text().splitlines()]
    writable = {mount[1] for mount in mounts if "rw" in mount[3].split(",")}
    assert not {mount for mount in writable if not mount.startswith(("/tmp", "/dev", "/proc"))}

    image_check = json.loads(only(final, "HEALTHCHECK").partition("CMD ")[2])
    for check in (image_check, service["healthcheck"]["test"][1:]):
        program = [sys.executable, *check[1:-1], check[-1].replace("8080", base_url.split("/")[2].split(":")[1])]
        assert subprocess.run(program, check=False).returncode == 0

    server.send_signal(signal.SIGTERM)  # a process 1 dies of no signal that it does not handle
    assert container.wait(timeout=60) == 0
    assert not any(each.is_running() for each in tree)
    assert not list((tmp_path / "tmp").glob("marquee-10001/*"))
    assert subprocess.run(program, check=False, capture_output=True).returncode != 0
