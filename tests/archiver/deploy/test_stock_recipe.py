"""The stock way to start TorchServe, with the project's config.properties from the project's root."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from archiver.configuration import config_path
from archiver.deploy.java import find_java_home
from archiver.deploy.management import ManagementClient
from archiver.deploy.ports import Ports, claim_ports
from archiver.deploy.readiness import wait_until_ready
from archiver.deploy.worker_log import ServerLog

pytestmark = pytest.mark.torchserve

TORCHSERVE = Path(sys.executable).parent / "torchserve"


def copy_config(directory: Path, ports: Ports) -> Path:
    """Copy ``config/`` with other ports than the defaults: those may be taken on this machine."""
    shutil.copytree(config_path("config.properties").parent, directory)
    file = directory / "config.properties"
    file.write_text(re.sub(r"\b80(8[0-4])\b", lambda match: str(ports.inference + int(match[0]) - 8080), file.read_text()))
    return file


def test_torchserve_start_and_stop(tmp_path, make_model):
    ports = claim_ports(0)
    copy_config(tmp_path / "config", ports)
    shutil.copytree(make_model().archive, tmp_path / "model_store" / "echo")
    (tmp_path / "tmp").mkdir()
    environment = {**os.environ, "JAVA_HOME": str(find_java_home()), "TMPDIR": str(tmp_path / "tmp"), "TEMP": str(tmp_path / "tmp")}

    def torchserve(*arguments: str) -> None:
        # Not a pipe: the server keeps its parent's output open.
        with (tmp_path / "output").open("wb") as output:
            subprocess.run([TORCHSERVE, *arguments], cwd=tmp_path, env=environment, check=True, stdout=output, stderr=output, timeout=60)

    torchserve("--start", "--model-store", "model_store", "--models", "llm=echo", "--ts-config", "config/config.properties")
    frontend = psutil.Process(int((tmp_path / "tmp" / ".model_server.pid").read_text()))
    try:
        management = ManagementClient(f"http://127.0.0.1:{ports.management}")
        wait_until_ready(["llm"], management, ServerLog(tmp_path / "logs" / "torchserve.log"), frontend.is_running)
        url = f"http://127.0.0.1:{ports.inference}/predictions/llm/1.0"
        assert httpx.post(url, content=b"hi", headers={"content-type": "application/octet-stream"}).text == "hi"
        assert "marquee_requests_total" in httpx.get(f"http://127.0.0.1:{ports.metrics}/metrics").text
        listening = {connection.laddr.port for connection in frontend.net_connections("tcp") if connection.status == psutil.CONN_LISTEN}
        assert listening == set(range(ports.inference, ports.inference + 5))
        tree = [frontend, *frontend.children(recursive=True)]
    finally:
        torchserve("--stop")
    _, alive = psutil.wait_procs(tree, timeout=30)
    assert not alive
    # Beside the quiet log only the snapshots of the configuration, which the stock way keeps.
    assert {file.name for file in (tmp_path / "logs").iterdir()} == {"torchserve.log", "config"}
