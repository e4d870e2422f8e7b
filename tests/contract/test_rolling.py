"""New versions of models that are in use, on a server of their own: no request is lost, and what fails changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from archiver.deploy.launch import TorchServe
from archiver.deploy.management import LoadFailed
from archiver.deploy.models import ProbeFailed, Rolled, list_versions, roll_model, unregister_model
from archiver.deploy.running_server import RunningServer
from archiver.deploy.served_model import ServedModel
from archiver.deploy.settings import ServerSettings
from archiver.errors import ArchiverError
from archiver.package import ArchiveSpec, build_archive
from tests.contract.conftest import BATCHED_HANDLER
from tests.contract.load import bodies, generate, under_load

pytestmark = [pytest.mark.torchserve, pytest.mark.timeout(300)]

IN_PROCESS = {"engine": {"process": False}}
MUTE_HANDLER = """
from handlers import CausalLMHandler


class Mute(CausalLMHandler):
    def preprocess(self, requests):
        raise RuntimeError("out of order")
"""
UNLOADABLE_HANDLER = """
from handlers import CausalLMHandler


class Unloadable(CausalLMHandler):
    def initialize(self, context):
        super().initialize(context)
        raise ValueError("no such layer: 17")
"""


@pytest.fixture(scope="module")
def archive(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Return a function that builds a version of a model and returns where it is."""

    def make(name: str, version: str, **options: Any) -> str:
        store = tmp_path_factory.mktemp(f"{name}-{version}")
        return str(build_archive(ArchiveSpec(checkpoint, name, version=version, out=store, **options)))

    return make


@pytest.fixture(scope="module")
def torchserve(archive: Callable[..., str]) -> Iterator[TorchServe]:
    models = [archive("rolled", "1.0", settings=IN_PROCESS), archive("batched", "1.0", handler=BATCHED_HANDLER, format="dir")]
    with TorchServe.start([ServedModel.from_archive(Path(model)) for model in models], settings=ServerSettings(model_api=True)) as server:
        yield server


@pytest.fixture(scope="module")
def server(torchserve: TorchServe) -> Iterator[RunningServer]:
    with RunningServer.at(torchserve.management_url) as server:
        yield server


def versions(server: RunningServer, name: str) -> list[tuple[str, bool]]:
    return [(listed.status.version, listed.status.is_default) for listed in list_versions(server, name)]


def links(server: RunningServer) -> int:
    assert server.local
    return len(list(server.local.model_store.glob("*.placed-*")))


@pytest.mark.parametrize(
    ("handler", "error", "words"),
    [
        (MUTE_HANDLER, ProbeFailed, "rolled 0.9 answers the probe with 500"),
        (UNLOADABLE_HANDLER, LoadFailed, "ValueError: no such layer: 17"),
    ],
)
def test_what_cannot_answer_never_serves(server, archive, tmp_path, handler, error, words):
    file = tmp_path / "handler.py"
    file.write_text(handler)
    broken = archive("rolled", "0.9", handler=file, settings=IN_PROCESS)

    with pytest.raises(error, match=words):
        roll_model(server, "rolled", broken)

    assert versions(server, "rolled") == [("1.0", True)]
    assert links(server) == 0
    assert generate(f"{server.inference_url}/predictions/rolled", bodies([8])[0])


def test_a_continuous_model_is_replaced_under_load(server, archive):
    url = f"{server.inference_url}/predictions/rolled"
    requests = bodies([5, 200, 1500, 1500])
    expected = [generate(url, body) for body in requests]

    def ask(client: int) -> None:
        assert generate(url, requests[client]) == expected[client]

    with under_load(ask, len(requests)) as load:
        rolled = roll_model(server, "rolled", archive("rolled", "2.0", settings=IN_PROCESS))

    assert load.failures == []
    assert rolled == Rolled("rolled", "1.0", "2.0", is_old_kept=False)
    assert versions(server, "rolled") == [("2.0", True)]
    assert links(server) == 1


def test_a_version_that_clients_name_is_left_until_they_stop(server, archive):
    url = f"{server.inference_url}/predictions/batched"
    requests = bodies([5, 40, 100])

    def ask(client: int) -> None:
        generate(f"{url}/1.0" if client == 0 else url, requests[client])

    with under_load(ask, len(requests)) as load:
        # On the way to the control socket of a worker that is busy with a batch nothing stands still: draining is given up in time.
        with pytest.raises(ArchiverError, match=r"batched 2.0 serves; 1.0 is left .*`marquee models unregister batched --version 1.0`"):
            roll_model(server, "batched", archive("batched", "2.0", handler=BATCHED_HANDLER), drain_timeout_s=0.0)
        assert versions(server, "batched") == [("1.0", False), ("2.0", True)]

    assert load.failures == []
    unregister_model(server, server.management.describe("batched", "1.0"))
    assert versions(server, "batched") == [("2.0", True)]
