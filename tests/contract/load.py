"""Clients that keep asking while something is done to the server, and what went wrong for them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.contract.clients import PATIENCE_S, wait_until


@dataclass
class Load:
    """What clients have seen so far."""

    num_answers: int = 0
    failures: list[str] = field(default_factory=list)


@contextmanager
def under_load(ask: Callable[[int], None], num_clients: int) -> Iterator[Load]:
    """Within the block ``num_clients`` threads each call ``ask(client)`` over and over; what it does not get in whole is a failure."""
    load, is_over = Load(), threading.Event()

    def keep_asking(client: int) -> None:
        while not is_over.is_set():
            try:
                ask(client)
                load.num_answers += 1
            except (httpx.HTTPError, AssertionError) as error:
                load.failures.append(repr(error))

    with ThreadPoolExecutor(num_clients) as pool:
        clients = [pool.submit(keep_asking, client) for client in range(num_clients)]
        try:
            wait_until(lambda: load.num_answers >= num_clients)
            yield load
            answered = load.num_answers
            wait_until(lambda: load.num_answers >= answered + num_clients)
        finally:
            is_over.set()
    for client in clients:
        client.result()


def generate(url: str, body: dict[str, Any], headers: dict[str, str] | None = None) -> str:
    """Return the whole text that a model generates, streamed if the body says so; raise for anything but a whole answer."""
    with httpx.stream("POST", url, json=body, headers=headers, timeout=PATIENCE_S) as response:
        lines = [line for line in response.iter_lines() if line]
        assert response.is_success, (response.status_code, lines)
    answer = json.loads(lines[-1].removeprefix("data:")) if body.get("stream") else json.loads(lines[0])[0]
    assert "generated_text" in answer, answer
    text: str = answer["generated_text"]
    return text


def bodies(lengths: Sequence[int]) -> list[dict[str, Any]]:
    """Return requests for so many tokens, every other one streamed."""
    return [
        {"inputs": f"quick fox {index}", "parameters": {"max_new_tokens": length, "ignore_eos": True}, "stream": index % 2 == 0}
        for index, length in enumerate(lengths)
    ]
