"""config.properties: what ships, what the instance decides, what the user may add."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from archiver.configuration import config_path
from archiver.deploy.instance import Instance
from archiver.deploy.ports import Ports
from archiver.deploy.properties import _decided, read_properties, write_properties
from archiver.deploy.served_model import ServedModel
from archiver.deploy.settings import ServerSettings
from archiver.errors import UsageError

MODEL = ServedModel("bot", "1.0", Path("/nowhere/archive"))


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Instance]:
    with (tmp_path / "lock").open("wb") as lock:
        yield Instance(tmp_path, lock)


@pytest.fixture
def write(instance: Instance):
    def write(*models: ServedModel, **settings: object) -> dict[str, str]:
        write_properties(instance, Ports.starting_at(9080), models or (MODEL,), ServerSettings(**settings))
        return read_properties(instance.config_file)

    return write


def test_addresses_are_loopback_and_ports_consecutive(write):
    properties = write()
    assert properties["inference_address"] == "http://127.0.0.1:9080"
    assert properties["management_address"] == "http://127.0.0.1:9081"
    assert properties["metrics_address"] == "http://127.0.0.1:9082"
    assert (properties["grpc_inference_port"], properties["grpc_management_port"]) == ("9083", "9084")
    assert properties["disable_token_authorization"] == "true"


def test_only_inference_moves_to_another_host_and_asks_for_a_key_there(write):
    properties = write(host="0.0.0.0")
    assert properties["inference_address"] == "http://0.0.0.0:9080"
    assert {properties[f"{api}_address"].split(":")[1] for api in ("management", "metrics")} == {"//127.0.0.1"}
    assert properties["disable_token_authorization"] == "false"
    assert write(host="::1")["inference_address"] == "http://[::1]:9080"


def test_models_and_where_they_may_come_from(write, tmp_path):
    archive_file = tmp_path / "some.mar"
    archive_file.touch()
    properties = write(MODEL, ServedModel("other", "1.0", archive_file, has_requirements=True))
    assert properties["load_models"] == "bot=bot,other=other.mar"
    assert properties["allowed_urls"] == f"file://{tmp_path}/store/.*"
    assert properties["install_py_dep_per_model"] == "true"
    assert write()["install_py_dep_per_model"] == "false"


def test_ships_with_everything_else(write):
    shipped = read_properties(config_path("config.properties"))
    properties = write()
    assert shipped.keys() <= properties.keys()
    assert properties["job_queue_size"] == shipped["job_queue_size"]
    assert Path(properties["metrics_config"]).is_file()


def test_the_users_settings_win(write):
    assert write(properties={"job_queue_size": "7", "enable_model_api": "true"})["job_queue_size"] == "7"


def test_but_not_over_what_the_instance_decides(instance):
    for key in _decided(instance, Ports.starting_at(9080), (MODEL,), ServerSettings()):
        with pytest.raises(UsageError, match=f"--ts-config sets {key}"):
            ServerSettings(properties={key: "x"})


def test_the_other_two_move_only_when_they_are_told_to(write):
    properties = write(metrics_host="0.0.0.0")
    assert (properties["metrics_address"], properties["disable_token_authorization"]) == ("http://0.0.0.0:9082", "true")
    properties = write(management_host="::")
    assert (properties["management_address"], properties["disable_token_authorization"]) == ("http://[::]:9081", "false")


@pytest.mark.parametrize(
    ("host", "token_auth", "needs_key"),
    [("127.0.0.1", None, False), ("::1", None, False), ("0.0.0.0", None, True), ("example.org", None, True)]
    + [("127.0.0.1", True, True), ("0.0.0.0", False, False)],
)
def test_a_key_is_asked_for_beyond_this_machine(host, token_auth, needs_key):
    assert ServerSettings(host=host, token_auth=token_auth).needs_key is needs_key


def test_management_is_never_public_without_a_key():
    with pytest.raises(UsageError, match="--expose-management"):
        ServerSettings(management_host="0.0.0.0", token_auth=False)


@pytest.mark.parametrize("seconds", [-1.0, float("inf"), float("nan"), 1e10])
def test_a_drain_has_an_end(seconds):
    with pytest.raises(UsageError, match="--drain-timeout"):
        ServerSettings(drain_timeout_s=seconds)


def test_models_are_registered_over_http_only_where_it_is_asked_for(write):
    assert write()["enable_model_api"] == "false"
    assert write(model_api=True)["enable_model_api"] == "true"


def test_reads_what_torchserve_reads(tmp_path):
    file = tmp_path / "config.properties"
    file.write_text("# a comment\n\n a = b = c \nempty=\n")
    assert read_properties(file) == {"a": "b = c", "empty": ""}


@pytest.mark.parametrize("content", ["no setting", b"\xff\xfe"])
def test_a_file_that_is_none_is_refused(tmp_path, content):
    file = tmp_path / "config.properties"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError, match="--ts-config"):
        read_properties(file)
    with pytest.raises(UsageError, match="No such file"):
        read_properties(tmp_path / "missing")
