"""Real servers around trivial handlers: they start, answer where they should, fail with the real cause, and stop without a trace."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import pytest

from archiver.deploy.announce import curl_snippet, python_snippet
from archiver.deploy.launch import TorchServe
from archiver.deploy.management import LoadFailed
from archiver.deploy.readiness import ServerDied
from archiver.deploy.served_model import ServedModel
from archiver.deploy.settings import ServerSettings
from archiver.errors import UsageError

pytestmark = pytest.mark.torchserve

STOP_TIMEOUT_S = 30


@pytest.fixture(scope="module")
def server(make_model) -> Iterator[TorchServe]:
    echo = make_model()
    with TorchServe.start([echo, replace(echo, name="second-echo.2_x")]) as running:
        yield running


def post(server: TorchServe, name: str | None = None, **headers: str) -> httpx.Response:
    return httpx.post(server.prediction_url(name), content=b"hello", headers={"content-type": "application/octet-stream", **headers})


def write_mar(directory: Path, archive: Path) -> Path:
    with zipfile.ZipFile(archive, "w") as members:
        for file in directory.rglob("*.*"):
            members.write(file, file.relative_to(directory))
    return archive


def is_listening(port: int, host: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((host, port)) == 0


def process_tree(server: TorchServe) -> list[psutil.Process]:
    frontend = psutil.Process(server.frontend_pid)
    return [frontend, *frontend.children(recursive=True)]


def assert_all_gone(processes: list[psutil.Process], ports: tuple[int, ...]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=STOP_TIMEOUT_S)
    assert not alive
    assert not any(is_listening(port) for port in ports)


def all_ports(server: TorchServe) -> tuple[int, ...]:
    return tuple(range(server.ports.inference, server.ports.inference + 5))


def test_serves_several_models_under_their_names(server):
    assert post(server).content == b"hello"
    assert post(server, "second-echo.2_x").content == b"hello"
    assert server.openai_base_url("second-echo.2_x") == f"{server.inference_url}/predictions/second-echo.2_x/1.0/v1"


def test_listens_on_loopback_at_five_consecutive_ports(server):
    connections = psutil.Process(server.frontend_pid).net_connections("tcp")
    listening = sorted({(c.laddr.ip, c.laddr.port) for c in connections if c.status == psutil.CONN_LISTEN})
    assert {port for _, port in listening} == set(all_ports(server))
    assert all(ip.removeprefix("::ffff:") in ("127.0.0.1", "::1") for ip, _ in listening)


def test_metrics_need_no_token_and_models_cannot_be_registered(server):
    assert "ts_inference_requests_total" in httpx.get(server.metrics_url).text
    assert httpx.post(f"{server.management_url}/models", params={"url": "x.mar"}).status_code == 405


def test_names_the_workers_processes(server):
    (pid,) = server.worker_pids()
    assert "model_service_worker.py" in " ".join(psutil.Process(pid).cmdline())
    assert Path(psutil.Process(pid).exe()) == Path(sys.executable).resolve()


def test_keeps_everything_in_a_private_directory(server):
    directory = server.logs.parent
    assert directory.stat().st_mode & 0o077 == 0
    assert psutil.Process(server.frontend_pid).cwd() == str(directory)
    assert list((directory / "tmp").glob(".ts.sock.*"))
    assert "Torch worker started" in (server.logs / "torchserve.log").read_text()


def test_two_servers_run_side_by_side_and_stopping_one_leaves_the_other(server, make_model, tmp_path):
    archive = write_mar(make_model().archive, tmp_path / "echo.mar")
    with TorchServe.start([ServedModel.from_archive(archive, "renamed")]) as other:
        assert post(other).content == b"hello"
        directory = other.logs.parent
        assert list(directory.glob("tmp/models/*/handler.py"))  # unpacked inside the instance
        processes = process_tree(other)
    assert_all_gone(processes, all_ports(other))
    assert not directory.exists()
    assert post(server).content == b"hello"
    other.stop()  # once more does no harm


def test_refuses_a_port_in_use_and_two_models_of_one_name(server):
    with pytest.raises(UsageError, match=f"port {server.ports.inference} is in use"):
        TorchServe.start(server.models, port=server.ports.inference)
    with pytest.raises(UsageError, match="two models are named echo"):
        TorchServe.start([server.models[0], server.models[0]])


def test_token_auth_lets_nobody_in_without_the_key(make_model):
    with TorchServe.start([make_model()], settings=ServerSettings(host="0.0.0.0")) as server:
        assert post(server).status_code == 400
        assert post(server, Authorization=f"Bearer {server.token('inference')}").content == b"hello"
        assert len(server.worker_pids()) == 1
        assert server.key_file and server.key_file.stat().st_mode & 0o077 == 0
        curl, python = curl_snippet(server), python_snippet(server)
        key = str(server.token("inference"))
        assert key not in curl + python
        told = subprocess.run(["bash", "-c", f'{curl.partition("curl")[0]} echo "$KEY"'], capture_output=True, text=True, check=True)
        assert told.stdout.strip() == key
        assert eval(python[python.index("json.load") :].partition(")\n")[0], {"json": json, "open": open}) == key


@pytest.mark.parametrize(
    ("statement", "cause"),
    [
        # TorchServe replaces it by a code; the other kinds of causes are in test_worker_log.py.
        ("raise RuntimeError('shapes do not match')", "RuntimeError: shapes do not match"),
        ("import os; os.kill(os.getpid(), 9)", "its worker died without a message"),
    ],
)
def test_failed_load_is_reported_at_once_with_the_workers_own_words(make_model, statement, cause):
    handler = f"""
    class Broken:
        def initialize(self, context):
            {statement}

        def handle(self, data, context):
            pass
    """
    before = set(psutil.Process().children(recursive=True))
    with pytest.raises(LoadFailed, match=f"^broken failed to load: {cause}"):
        TorchServe.start([make_model("broken", handler)])
    assert set(psutil.Process().children(recursive=True)) <= before


def test_a_frontend_that_cannot_start_gives_its_first_complaint_and_keeps_its_log(make_model):
    with pytest.raises(ServerDied, match="Unrecognized option: -Xnonsense") as failure:
        TorchServe.start([make_model()], settings=ServerSettings(properties={"vmargs": "-Xnonsense"}))
    logs = Path(str(failure.value).rpartition("(logs: ")[2].removesuffix(")"))
    assert (logs / "console.log").exists()


OWNER = """
    import sys, signal
    from pathlib import Path
    from archiver.deploy.launch import TorchServe
    from archiver.deploy.served_model import ServedModel

    server = TorchServe.start([ServedModel.from_archive(Path(sys.argv[1]))])
    print(server.frontend_pid, server.worker_pids()[0], server.ports.inference, flush=True)
    signal.pause()
"""


def test_nothing_outlives_an_owner_that_is_killed(make_model):
    command = [sys.executable, "-c", textwrap.dedent(OWNER), str(make_model().archive)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as owner:
        assert owner.stdout is not None
        frontend, worker, port = (int(number) for number in owner.stdout.readline().split())
        processes = [psutil.Process(frontend), psutil.Process(worker)]
        owner.send_signal(signal.SIGKILL)
    assert_all_gone(processes, tuple(range(port, port + 5)))


def test_workers_do_not_outlive_a_frontend_that_is_killed(make_model):
    with TorchServe.start([make_model()]) as server:
        processes = process_tree(server)
        assert len(processes) == 2
        processes[0].kill()
        assert server.wait() == 128 + signal.SIGKILL
        assert_all_gone(processes, all_ports(server))
        assert not server.is_running()
