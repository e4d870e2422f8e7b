"""Registering and unregistering: what the server is offered, and that a failure leaves nothing behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from archiver.deploy.management import Conflict, LoadFailed, ModelApiOff, Refused, Unreachable
from archiver.deploy.models import register_model, unregister_model
from archiver.errors import ArchiverError, UsageError
from tests.archiver.deploy.management.fake_torchserve import FakeTorchServe, FakeVersion

TRACEBACK = """\
2020-01-02T03:04:05,678 [INFO ] W-9002-bot_2.0-stdout MODEL_LOG - Backend worker process died.
2020-01-02T03:04:05,678 [INFO ] W-9002-bot_2.0-stdout MODEL_LOG - Traceback (most recent call last):
2020-01-02T03:04:05,678 [INFO ] W-9002-bot_2.0-stdout MODEL_LOG -   File "handler.py", line 3, in initialize
2020-01-02T03:04:05,678 [INFO ] W-9002-bot_2.0-stdout MODEL_LOG - ValueError: no such layer: 17
"""


def write_archive(directory: Path, name: str = "bot", version: str = "2.0", **manifest: str) -> Path:
    """Write an archive directory that has nothing to run."""
    model = {"modelName": name, "modelVersion": version, "handler": "handler.py", **manifest}
    (directory / "MAR-INF").mkdir(parents=True)
    about = {"createdOn": "01/01/2020 00:00:00", "runtime": "python", "model": model, "archiverVersion": "0.12.0"}
    (directory / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(about))
    (directory / "handler.py").write_text("def handle(data, context): ...\n")
    return directory


@pytest.fixture
def archive(tmp_path):
    return write_archive(tmp_path / "elsewhere" / "bot")


@pytest.fixture
def linking(fake, local):
    """A fake that finds what lies in the model store, as the real server does."""

    def answer(request: httpx.Request) -> httpx.Response:
        fake.store |= {entry.name: ("2.0", FakeVersion("")) for entry in local.model_store.iterdir()}
        return FakeTorchServe.answer(fake, request)

    fake.answer = answer
    return fake


def links(local):
    return sorted(entry.name for entry in local.model_store.iterdir())


def test_an_archive_is_linked_into_the_store_and_out_again(linking, server, local, archive):
    model = register_model(server, str(archive))
    (link,) = links(local)
    assert model.archive == link
    assert (local.model_store / link).resolve() == archive
    unregister_model(server, model, force=True)
    assert links(local) == []


def test_a_file_is_unpacked_for_the_server_and_cleared_away(linking, server, local, archive, tmp_path):
    file = Path(shutil.make_archive(str(tmp_path / "bot"), "zip", archive)).rename(tmp_path / "bot.mar")
    model = register_model(server, str(file))
    (place,) = links(local)
    assert model.archive == place
    unpacked = local.model_store / place
    assert not unpacked.is_symlink()
    assert (unpacked / "handler.py").read_bytes() == (archive / "handler.py").read_bytes()
    unregister_model(server, model, force=True)
    assert links(local) == []


def test_what_has_no_room_is_not_unpacked(server, local, archive, tmp_path, monkeypatch):
    file = Path(shutil.make_archive(str(tmp_path / "bot"), "zip", archive)).rename(tmp_path / "bot.mar")
    monkeypatch.setattr("archiver.deploy.models.store.shutil.disk_usage", lambda path: SimpleNamespace(free=10))
    with pytest.raises(UsageError, match="has 10 bytes free"):
        register_model(server, str(file))
    assert links(local) == []


def test_what_lies_in_the_store_is_taken_as_it_is_and_stays(linking, server, local):
    archive = write_archive(local.model_store / "bot")
    model = register_model(server, str(archive), name="robot")
    assert (model.name, model.archive) == ("robot", "bot")
    unregister_model(server, model, force=True)
    assert links(local) == ["bot"]


def test_a_name_in_the_store_needs_no_archive_here(remote, fake):
    fake.store["bot.mar"] = ("2.0", FakeVersion(""))
    assert register_model(remote, "bot.mar", name="bot").version == "2.0"


def test_a_failed_load_is_told_with_the_workers_words(linking, server, local, archive):
    log = local.logs / "torchserve.log"
    log.write_text(TRACEBACK.replace("17", "of long ago"))
    find = linking.answer

    def fail(request: httpx.Request) -> httpx.Response:
        if "url" in request.url.params:
            linking.failing |= set(links(local))
            with log.open("a") as file:
                file.write(TRACEBACK)
        return find(request)

    linking.answer = fail
    with pytest.raises(LoadFailed, match="bot 2.0 failed to load: ValueError: no such layer: 17"):
        register_model(server, str(archive))
    assert links(local) == []


def test_the_death_of_another_version_fails_no_load(linking, server, local, archive):
    linking.add("bot", "1.0")
    find = linking.answer

    def die(request: httpx.Request) -> httpx.Response:
        if "url" in request.url.params:
            linking.failing.add(request.url.params["url"])
            (local.logs / "torchserve.log").write_text(TRACEBACK.replace("bot_2.0", "bot_1.0"))
        if request.url.path == "/models/bot/2.0" and (new := linking.models["bot"].get("2.0")) and new.age > 3:
            new.loadable = 1
        return find(request)

    linking.answer = die
    assert register_model(server, str(archive)).version == "2.0"


def test_a_failed_load_elsewhere_points_to_the_log(remote, fake):
    fake.store["bot.mar"] = ("2.0", FakeVersion(""))
    fake.failing.add("bot.mar")
    with pytest.raises(LoadFailed, match="bot 2.0: a worker died while it loaded; the server's log says why"):
        register_model(remote, "bot.mar", name="bot")


def test_an_interruption_takes_back_what_was_registered_meanwhile(linking, server, local, archive):
    find = linking.answer

    def interrupt(request: httpx.Request) -> httpx.Response:
        response = find(request)
        if "url" in request.url.params:
            raise KeyboardInterrupt
        return response

    linking.answer = interrupt
    with pytest.raises(KeyboardInterrupt):
        register_model(server, str(archive))
    assert linking.models == {}
    assert links(local) == []


@pytest.mark.parametrize("name", ["bot", None])
def test_an_interruption_takes_back_what_lies_in_the_store_too(linking, server, local, name):
    write_archive(local.model_store / "new")
    linking.add(name or "unnamed", "1.0")
    find = linking.answer

    def interrupt(request: httpx.Request) -> httpx.Response:
        response = find(request)
        if "url" in request.url.params:
            linking.add("elsewhere", "1.0")  # by somebody else, at the same time
            raise KeyboardInterrupt
        return response

    linking.answer = interrupt
    with pytest.raises(KeyboardInterrupt):
        register_model(server, "new", name=name)
    assert {model: list(versions) for model, versions in linking.models.items()} == {name or "unnamed": ["1.0"], "elsewhere": ["1.0"]}
    assert links(local) == ["new"]


@pytest.fixture
def stalling(linking, monkeypatch):
    """A server that does not answer the next ``num_stalls`` questions about a version in ``stalls_on``."""
    monkeypatch.setattr("archiver.deploy.management.operations._PAUSE_AFTER_MISS_S", 0.0)
    monkeypatch.setattr("archiver.deploy.management.operations._MOST_UNDO_POLLS", 2)
    linking.add("bot", "1.0")
    linking.stalls_on, linking.num_stalls = {"/models/bot/2.0"}, 3
    find = linking.answer

    def stall(request: httpx.Request) -> httpx.Response:
        if request.method == "GET" and request.url.path in linking.stalls_on and len(linking.models["bot"]) > 1 and linking.num_stalls:
            linking.num_stalls -= 1
            raise httpx.ReadTimeout("timed out")
        return find(request)

    linking.answer = stall
    return linking


def test_answers_that_are_late_do_not_end_the_wait(stalling, server, archive):
    assert register_model(server, str(archive)).version == "2.0"
    assert stalling.num_stalls == 0


def test_a_server_that_stalls_for_long_loses_the_registration(stalling, server, local, archive):
    stalling.num_stalls = 1000
    with pytest.raises(Unreachable, match="timed out"):
        register_model(server, str(archive))
    assert list(stalling.models["bot"]) == ["1.0"]
    assert links(local) == []


def test_what_may_be_registered_still_keeps_its_place(stalling, server, local, archive):
    stalling.stalls_on, stalling.num_stalls = {"/models/bot", "/models/bot/2.0"}, 1000
    with pytest.raises(Unreachable):
        register_model(server, str(archive))
    assert links(local) == [stalling.models["bot"]["2.0"].archive]


def test_without_the_model_api_nothing_is_verified(linking, server, archive):
    linking.has_model_api = False
    (archive / "handler.py").unlink()
    with pytest.raises(ModelApiOff, match="--model-api"):
        register_model(server, str(archive))


def test_workers_that_cannot_be_had_undo_the_registration(linking, server, local, archive):
    find = linking.answer

    def refuse_to_scale(request: httpx.Request) -> httpx.Response:
        return httpx.Response(507, json={"message": "no memory"}) if request.url.params.get("min_worker") == "2" else find(request)

    linking.answer = refuse_to_scale
    with pytest.raises(Refused, match="507: no memory"):
        register_model(server, str(archive), count=2)
    assert linking.models == {}
    assert links(local) == []


def test_a_version_that_is_there_stays(linking, server, local, archive):
    linking.add("bot", "2.0")
    with pytest.raises(Conflict, match="bot 2.0 is registered already.*marquee archive --version"):
        register_model(server, str(archive))
    assert "2.0" in linking.models["bot"]
    assert links(local) == []


@pytest.mark.parametrize("allowed", ["https://models.example/.*", r"file:///.*, https://models\.example/.*"])
def test_a_url_is_passed_on_where_the_server_allows_it(server, fake, local, allowed):
    local.config_file.write_text(f"# addresses\nallowed_urls={allowed}\n")
    fake.store["https://models.example/bot.mar"] = ("2.0", FakeVersion(""))
    assert register_model(server, "https://models.example/bot.mar", name="bot").archive == "https://models.example/bot.mar"
    with pytest.raises(UsageError, match="does not take archives from https://other.example/bot.mar: its allowed_urls are"):
        register_model(server, "https://other.example/bot.mar")


def test_a_damaged_archive_is_refused(server, archive):
    (archive / "handler.py").unlink()
    with pytest.raises(ArchiverError, match="is damaged: missing handler.py"):
        register_model(server, str(archive))


def test_requirements_need_a_server_that_installs_them(linking, server, local, tmp_path):
    archive = write_archive(tmp_path / "needy", requirementsFile="requirements.txt")
    (archive / "requirements.txt").write_text("x\n")
    with pytest.raises(UsageError, match="install_py_dep_per_model=true"):
        register_model(server, str(archive))
    local.config_file.write_text("install_py_dep_per_model=true")
    assert register_model(server, str(archive)).name == "bot"


def test_an_archive_here_does_not_reach_a_server_elsewhere(remote, archive):
    with pytest.raises(UsageError, match="put it there and register it by its file name"):
        register_model(remote, str(archive))
