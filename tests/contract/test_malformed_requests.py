"""Nothing that a client sends is a server's error, stops a worker or changes a neighbour's answer."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from archiver.deploy.launch import TorchServe
from tests.contract.clients import PATIENCE_S, Answer, ClientOf, ModelClient
from tests.contract.malformed import MALFORMED_REQUESTS, Malformed

pytestmark = [pytest.mark.torchserve, pytest.mark.timeout(300)]


def send(client: ModelClient, request: Malformed) -> httpx.Response:
    url = f"{client.prediction_url}/{request.route}".rstrip("/")
    return httpx.post(url, content=request.content, headers=request.headers, timeout=PATIENCE_S)


@pytest.mark.parametrize("request_", MALFORMED_REQUESTS, ids=str)
def test_it_is_the_clients_mistake(wide: ModelClient, request_: Malformed) -> None:
    response = send(wide, request_)

    assert response.status_code == request_.status, response.text[:300]
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error" and 0 < len(error["message"]) < 1000


@pytest.mark.parametrize(("model", "share"), [("wide", 1), ("batched", 5)])
def test_all_of_it_together_disturbs_nobody(server: TorchServe, client_of: ClientOf, model: str, share: int) -> None:
    client = client_of(model)
    alone = client.complete("neighbour", max_tokens=100, ignore_eos=True)
    workers = server.worker_pids(model)
    is_over = threading.Event()

    def neighbour(stream: bool) -> set[Answer]:
        answers = set()
        while not is_over.is_set():
            answers.add(client.complete("neighbour", max_tokens=100, ignore_eos=True, stream=stream))
        return answers

    with ThreadPoolExecutor(8) as pool:
        neighbours = [pool.submit(neighbour, stream) for stream in (True, False)]
        statuses = list(pool.map(lambda request: send(client, request).status_code, MALFORMED_REQUESTS[::share]))
        is_over.set()
        assert [neighbour.result() for neighbour in neighbours] == [{alone}, {alone}]

    assert {status // 100 for status in statuses} == {4}
    assert server.worker_pids(model) == workers


def test_a_body_over_the_servers_limit_is_refused(wide: ModelClient) -> None:
    response = send(wide, Malformed("7 MB", "v1/completions", b"x" * 7_000_000))

    assert response.status_code == 413
