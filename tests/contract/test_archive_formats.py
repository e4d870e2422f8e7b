"""An archive is an archive: ours as a file, ours as a directory and torch-model-archiver's serve the same."""

from __future__ import annotations

import pytest

from archiver.deploy.launch import TorchServe
from tests.contract.clients import ClientOf, ModelClient

pytestmark = [pytest.mark.torchserve, pytest.mark.timeout(300)]


@pytest.mark.parametrize("name", ["narrow", "stock"])
def test_another_format_answers_as_the_directory_does(client_of: ClientOf, wide: ModelClient, name: str) -> None:
    client = client_of(name)

    assert client.complete("quick fox", max_tokens=50) == wide.complete("quick fox", max_tokens=50)
    assert client.chat("quick fox", max_tokens=50, stream=True) == wide.chat("quick fox", max_tokens=50, stream=True)


def test_an_archive_without_hashes_is_served_with_one_warning(server: TorchServe) -> None:
    warned = [line for line in (server.logs / "torchserve.log").read_text().splitlines() if "unverified" in line]

    assert len(warned) == 1 and "-stock_1.0-" in warned[0]
