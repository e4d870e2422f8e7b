"""Many clients at once: nobody's answer depends on the others, nobody is lost, and the surplus is told so."""

from __future__ import annotations

import json
import socket
from contextlib import closing
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest

from tests.contract.clients import PATIENCE_S, Answer, ClientOf, ModelClient, at_once

pytestmark = [pytest.mark.torchserve, pytest.mark.timeout(300)]


def mixed_requests(num_requests: int) -> list[dict[str, Any]]:
    """Return requests of mixed lengths, every other one streamed, some with a stop string."""
    return [
        {
            "prompt": f"Tell me about number {index}" + " and again" * (index % 9) * 3,
            "max_tokens": 3 + index * 7 % 48,
            "stream": index % 2 == 0,
            "stop": ["do", "the"] if index % 5 == 0 else [],
        }
        for index in range(num_requests)
    ]


def ask(client: ModelClient, requests: list[dict[str, Any]]) -> list[Answer]:
    return at_once(lambda request: client.complete(**request), requests)


def test_32_at_once_get_what_each_gets_alone(wide: ModelClient) -> None:
    requests = mixed_requests(32)
    alone = [wide.complete(**request) for request in requests]
    assert len({answer.text for answer in alone}) > 24, "the answers must be telling"

    assert ask(wide, requests) == alone


def test_64_at_once_get_what_the_static_path_gives(client_of: ClientOf) -> None:
    requests = mixed_requests(64)

    assert ask(client_of("wide"), requests) == ask(client_of("batched"), requests)


def test_seeds_reproduce_under_load(wide: ModelClient) -> None:
    sampled = {"prompt": "quick fox", "max_tokens": 30, "temperature": 1.0, "top_p": 0.9}
    seeded = [sampled | {"seed": seed, "stream": seed % 2 == 0} for seed in range(12)]
    alone = [wide.complete(**request) for request in seeded]
    assert len({answer.text for answer in alone}) == len(seeded)

    assert ask(wide, seeded + mixed_requests(20))[: len(seeded)] == alone


def test_200_clients_on_8_slots_are_all_answered(client_of: ClientOf) -> None:
    requests = [{"prompt": f"number {index % 10}", "max_tokens": 4 + index % 10, "stream": index % 3 == 0} for index in range(200)]
    alone = [client_of("wide").complete(**request) for request in requests[:10]]

    answers = ask(client_of("stock"), requests)

    assert [answer.text for answer in answers] == [alone[index % 10].text for index in range(200)]


def test_the_surplus_is_told_to_come_again(client_of: ClientOf) -> None:
    narrow = client_of("narrow")
    expected = client_of("wide").complete("quick fox", max_tokens=300, ignore_eos=True)

    def attempt(stream: bool) -> Answer | openai.RateLimitError:
        try:
            return narrow.complete("quick fox", max_tokens=300, ignore_eos=True, stream=stream)
        except openai.RateLimitError as refusal:
            return refusal

    outcomes = at_once(attempt, [False, True] * 16)

    refusals = [outcome for outcome in outcomes if isinstance(outcome, openai.RateLimitError)]
    assert 4 <= len(outcomes) - len(refusals) < len(outcomes)
    assert all(outcome in refusals or outcome == expected for outcome in outcomes)
    for refusal in refusals:
        assert int(refusal.response.headers["Retry-After"]) >= 1
        assert refusal.response.json()["error"]["type"] == "rate_limit_error"


def test_a_client_that_does_not_read_holds_nobody_up(wide: ModelClient) -> None:
    body = {"prompt": "quick fox", "max_tokens": 2500, "temperature": 0, "ignore_eos": True}
    requests = mixed_requests(8)
    alone = [wide.complete(**request) for request in requests]

    with closing(lazy_connection(wide)) as lazy:
        path = f"{urlsplit(wide.base_url).path}/completions"
        lazy.request("POST", path, json.dumps({"stream": True, **body}), {"Content-Type": "application/json"})
        assert ask(wide, requests) == alone  # It has not read a byte meanwhile.
        events = [line[len(b"data: ") :] for line in lazy.getresponse() if line.startswith(b"data: {")]

    assert "".join(json.loads(event)["choices"][0]["text"] for event in events) == wide.complete(**body).text


def lazy_connection(client: ModelClient) -> HTTPConnection:
    """Connect with a receive buffer that holds a few events only."""
    url = urlsplit(client.base_url)
    connection = HTTPConnection(url.hostname or "", url.port, timeout=PATIENCE_S)
    connection.sock = socket.socket()
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # before connecting: it decides the window
    connection.sock.settimeout(PATIENCE_S)
    connection.sock.connect((connection.host, connection.port))
    return connection
