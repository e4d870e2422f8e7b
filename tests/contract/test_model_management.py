"""Models of a running server that come, change in size and go, on a server of their own that asks for keys."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from archiver.cli import main
from archiver.deploy import AsyncManagementClient, KeyFile, ManagementClient
from archiver.deploy.launch import TorchServe
from archiver.deploy.management import Conflict, ModelApiOff, ModelNotFound, Refused, Unauthorized
from archiver.deploy.models import Scaled, list_models, list_versions, register_model, scale_model, unregister_model
from archiver.deploy.running_server import RunningServer
from archiver.deploy.served_model import ServedModel
from archiver.deploy.settings import ServerSettings
from archiver.errors import ArchiverError, UsageError
from tests.contract.conftest import BATCHED_HANDLER
from tests.contract.load import bodies, generate, under_load

Run = Callable[..., tuple[int, str, str]]
"""From the arguments of a command to its exit code, what it prints, and its errors."""

pytestmark = [pytest.mark.torchserve, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def torchserve(build: Callable[..., Path]) -> Iterator[TorchServe]:
    archives = [
        build("replicated", settings={"engine": {"num_threads": 1}}),
        build("pooled", handler=BATCHED_HANDLER, frontend={"batchSize": 1}),  # few clients keep several workers busy
    ]
    settings = ServerSettings(token_auth=True, model_api=True)
    with TorchServe.start([ServedModel.from_archive(archive) for archive in archives], settings=settings) as server:
        yield server


@pytest.fixture(scope="module")
def managed(torchserve: TorchServe) -> Iterator[RunningServer]:
    with RunningServer.at(torchserve.management_url) as server:
        yield server


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs ``marquee models`` with the given arguments."""

    def run_models(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["marquee", "models", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        return int(end.value.code or 0), captured.out, captured.err

    return run_models


@pytest.fixture
def headers(torchserve: TorchServe) -> dict[str, str]:
    """What inference requests need."""
    return {"Authorization": f"Bearer {torchserve.token('inference')}"}


def test_a_server_on_this_machine_is_found_with_all_that_is_its(managed: RunningServer, torchserve: TorchServe) -> None:
    assert managed.local is not None
    assert managed.local.pid == torchserve.frontend_pid
    assert managed.local.keys == KeyFile(torchserve.key_file) == managed.keys
    assert managed.local.worker_log == torchserve.logs / "torchserve.log"
    assert managed.inference_url == torchserve.inference_url
    assert [model.replicas is not None for model in list_models(managed)] == [False, True], "pooled has workers, replicated an engine"


def test_a_model_comes_and_goes(managed: RunningServer, build: Callable[..., Path]) -> None:
    archive = build("guest", handler=BATCHED_HANDLER, format="dir")
    told: list[str] = []

    class Told:
        doing = done = told.append

    status = register_model(managed, str(archive), progress=Told())
    assert (status.name, status.version, status.is_default, status.is_continuous) == ("guest", "1.0", True, False)
    assert {"verifying", "ready"} <= {word for line in told for word in line.split()}
    assert managed.local is not None
    link = managed.local.model_store / status.archive
    assert link.resolve() == archive.resolve()

    with pytest.raises(Conflict, match="guest 1.0 is registered already"):
        register_model(managed, str(archive))
    with pytest.raises(Conflict, match="already registered"):  # as the server says it
        managed.management.register(status.archive, "guest")

    unregister_model(managed, status)
    with pytest.raises(ModelNotFound):
        managed.management.describe("guest")
    assert not link.is_symlink()
    assert archive.exists()


def test_what_is_interrupted_while_it_loads_is_taken_back(managed: RunningServer, build: Callable[..., Path]) -> None:
    class Impatient:
        def doing(self, what: str) -> None:
            if "ready" in what:
                raise KeyboardInterrupt

        def done(self, what: str) -> None: ...

    assert managed.local is not None
    archive = build("brief", handler=BATCHED_HANDLER, format="dir")
    (managed.local.model_store / "brief").symlink_to(archive)  # one of the operator's, and one that is placed
    for source in ("brief", str(archive)):
        with pytest.raises(KeyboardInterrupt):
            register_model(managed, source, progress=Impatient())
        assert "brief" not in [model.name for model in managed.management.list()]
    assert not list(managed.local.model_store.glob("brief*.placed-*"))
    (managed.local.model_store / "brief").unlink()


def test_a_damaged_archive_is_not_registered(managed: RunningServer, build: Callable[..., Path]) -> None:
    archive = build("flawed", format="dir")
    (archive / "handler.py").write_text("")
    with pytest.raises(ArchiverError, match="is damaged: altered handler.py"):
        register_model(managed, str(archive))
    with pytest.raises(ModelNotFound):
        managed.management.describe("flawed")


def test_archives_from_elsewhere_are_refused(managed: RunningServer) -> None:
    with pytest.raises(UsageError, match="its allowed_urls are file:"):
        register_model(managed, "https://models.example/bot.mar")
    with pytest.raises(Refused, match="does not match any allowed URL"):  # as the server says it
        managed.management.register("https://models.example/bot.mar")
    with pytest.raises(Refused, match="finds no archive absent.mar"):
        register_model(managed, "absent.mar")


def test_keys_are_renewed(torchserve: TorchServe) -> None:
    assert torchserve.key_file is not None
    before = json.loads(torchserve.key_file.read_text())
    stale = before | {"management": before["management"] | {"key": "expired"}}
    torchserve.key_file.write_text(json.dumps(stale))

    async def names() -> list[str]:
        async with AsyncManagementClient(torchserve.management_url, KeyFile(torchserve.key_file)) as client:
            return [model.name for model in await client.list()]

    assert asyncio.run(names()) == ["pooled", "replicated"]
    after = json.loads(torchserve.key_file.read_text())
    assert after["management"]["key"] not in ("expired", before["management"]["key"])
    with ManagementClient(torchserve.management_url) as client, pytest.raises(Unauthorized, match="--key-file"):
        client.list()


def test_workers_come_and_go_under_load(managed: RunningServer, headers: dict[str, str]) -> None:
    url = f"{managed.inference_url}/predictions/pooled"
    requests = bodies([100, 200, 300, 400])
    with under_load(lambda client: generate(url, requests[client], headers), len(requests)) as load:
        model = managed.management.describe("pooled")
        assert scale_model(managed, model, 2) == Scaled("pooled", "1.0", "workers", 1, 2)
        model = managed.management.describe("pooled")
        assert [worker.is_ready for worker in model.workers] == [True, True]
        assert scale_model(managed, model, 1) == Scaled("pooled", "1.0", "workers", 2, 1)
    assert load.failures == []
    assert managed.management.describe("pooled").workers == model.workers[:1]


def test_replicas_come_and_go_under_load(managed: RunningServer, headers: dict[str, str]) -> None:
    url = f"{managed.inference_url}/predictions/replicated"
    requests = bodies([5, 40, 80, 40])
    with under_load(lambda client: generate(url, requests[client], headers), len(requests)) as load:
        model = managed.management.describe("replicated")
        assert scale_model(managed, model, 3) == Scaled("replicated", "1.0", "replicas", 1, 3)
        (listed,) = list_versions(managed, "replicated")
        assert [replica.state for replica in listed.replicas or ()] == ["ready"] * 3
        assert scale_model(managed, model, 1) == Scaled("replicated", "1.0", "replicas", 3, 1)
    assert load.failures == []
    assert managed.management.describe("replicated").workers == model.workers


def test_the_command_line_tells_the_same(managed: RunningServer, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARQUEE_MANAGEMENT_URL", managed.management.url)
    assert [model["name"] for model in json.loads(run("list", "--json")[1])["models"]] == ["pooled", "replicated"]
    assert "1/1 replica" in run("list")[1]
    assert json.loads(run("show", "pooled", "--json")[1])["versions"][0]["is_default"] is True
    assert json.loads(run("default", "pooled", "1.0", "--json")[1]) == {"name": "pooled", "default": "1.0"}
    assert json.loads(run("scale", "pooled", "1", "--json")[1])["after"] == 1
    code, _, errors = run("unregister", "absent")
    assert (code, errors) == (1, "marquee: Model not found: absent; `marquee models list` shows what there is\n")


def test_without_the_model_api_the_way_to_have_it_is_named(server: TorchServe, build: Callable[..., Path]) -> None:
    with RunningServer.at(server.management_url) as closed:
        with pytest.raises(ModelApiOff, match="marquee serve … --model-api"):
            register_model(closed, str(build("late", format="dir")))
        with pytest.raises(ModelApiOff, match="marquee serve … --model-api"):
            unregister_model(closed, list_models(closed)[0].status)
        assert closed.local is not None
        assert not list(closed.local.model_store.glob("*.placed-*"))
