"""From what the user names to what is served."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.deploy.prepare import PackagingOptions, model_name_from, prepare_model
from archiver.errors import UsageError
from archiver.package.names import check_model_name
from tests.checkpoints import make_checkpoint


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MARQUEE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoints") / "My bot (v2)")


def test_a_checkpoint_goes_by_its_directorys_name(checkpoint):
    model = prepare_model(checkpoint)
    assert (model.name, model.version) == ("My-bot-v2", "1.0")
    assert model.archive.is_dir()


def test_or_by_the_one_that_it_is_given(checkpoint):
    model = prepare_model(str(checkpoint), name="bot", options=PackagingOptions(version="3.1"))
    assert (model.name, model.version, model.store_name) == ("bot", "3.1", "bot")


def test_an_archive_is_served_as_it_is(checkpoint):
    archive = prepare_model(checkpoint, name="bot").archive
    assert prepare_model(archive).archive == archive
    assert prepare_model(archive).name == "bot"
    assert prepare_model(archive, name="alias").name == "alias"
    with pytest.raises(UsageError, match="leave --handler out"):
        prepare_model(archive, options=PackagingOptions(handler=Path("x.py")))


@pytest.mark.parametrize("model", ["no/such/directory", "missing", "/"])
def test_what_is_neither_is_a_users_mistake(model):
    with pytest.raises(UsageError):
        prepare_model(model)


@given(st.text())
def test_any_directory_name_becomes_a_model_name(text):
    name = model_name_from(text)
    assert check_model_name(name[:100]) == name[:100]
    assert model_name_from(name) == name
