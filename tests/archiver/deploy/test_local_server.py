"""What a frontend's process tells of its server; that one is found is tested where one runs (tests/contract)."""

from __future__ import annotations

from pathlib import Path

import pytest

from archiver.deploy.local_server import LocalServer, find_local_server
from archiver.deploy.running_server import RunningServer
from archiver.errors import UsageError

JAVA = ["/java/bin/java", "-Dmodel_server_home=/ts", "-cp", ".:/ts/frontend/*", "org.pytorch.serve.ModelServer", "--python", "/python"]


def test_a_server_of_ours_has_all_in_its_instance():
    root = Path("/tmp/marquee-0/i8080-abc")
    environment = {"TMPDIR": f"{root}/tmp", "TEMP": f"{root}/tmp", "LOG_LOCATION": f"{root}/logs"}
    command = [*JAVA, "-f", f"{root}/config.properties", "-s", f"{root}/store", "-ncs"]
    server = LocalServer.from_process(7, command, environment, root)
    assert server == LocalServer(7, root, root / "store", root / "config.properties", root / "logs", root / "tmp")


def test_a_stock_server_has_it_where_it_was_started():
    here = Path("/home/user/project")
    server = LocalServer.from_process(7, [*JAVA, "-s", "model_store"], {"TS_CONFIG_FILE": "ts.properties"}, here)
    assert server == LocalServer(7, here, here / "model_store", here / "ts.properties", here / "logs", Path("/tmp"))


def test_keys_log_and_settings_are_looked_for(tmp_path):
    server = LocalServer.from_process(7, [*JAVA, "-f", "config.properties"], {}, tmp_path)
    assert (server.keys, server.properties(), server.worker_log) == (None, {}, tmp_path / "logs" / "model_log.log")
    (tmp_path / "key_file.json").touch()
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "torchserve.log").touch()
    (tmp_path / "config.properties").write_text("#a=1\nno setting\nallowed_urls = https://x=y/.*\n")
    assert server.keys and server.keys.path == tmp_path / "key_file.json"
    assert server.worker_log == tmp_path / "logs" / "torchserve.log"
    assert server.properties() == {"allowed_urls": "https://x=y/.*"}


@pytest.mark.parametrize("url", ["http://192.0.2.1:8081", "http://no-such-host.invalid:8081", "http://127.0.0.1:1"])
def test_nothing_is_known_of_other_machines_and_free_ports(url):
    assert find_local_server(url) is None


def test_without_local_knowledge_inference_is_on_the_port_before():
    with RunningServer.at("http://192.0.2.1:9081") as server:
        assert (server.inference_url, server.local, server.keys) == ("http://192.0.2.1:9080", None, None)
    with RunningServer.at("http://192.0.2.1:9081", inference_url="http://192.0.2.2:80/") as server:
        assert server.inference_url == "http://192.0.2.2:80"


@pytest.mark.parametrize(
    ("url", "words"), [("http://127.0.0.1", "--url http://127.0.0.1: .* with its port"), ("http://[::1:8081", "no address")]
)
def test_an_address_needs_a_port(url, words):
    with pytest.raises(UsageError, match=words):
        RunningServer.at(url)


def test_the_inference_address_is_looked_at_too():
    with pytest.raises(UsageError, match="http://127.0.0.1:8o80 is no address"):
        RunningServer.at("http://192.0.2.1:9081", inference_url="http://127.0.0.1:8o80")


def test_a_key_file_must_be_there(tmp_path):
    with pytest.raises(UsageError, match="--key-file .*no such file"):
        RunningServer.at("http://127.0.0.1:1", key_file=tmp_path / "absent.json")
