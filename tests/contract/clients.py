"""Clients of a running server: ask one thing, or many things at once, and see what the metrics say."""

from __future__ import annotations

import functools
import re
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
from openai import OpenAI

from archiver.deploy.launch import TorchServe
from handlers.control_socket import send_command
from handlers.worker_directory import control_socket, worker_directory

T = TypeVar("T")
R = TypeVar("R")

PATIENCE_S = 60.0
"""How long a client waits for anything: a busy machine is slow, and only a hang should reach this."""


@dataclass(frozen=True)
class Answer:
    """What a client got for one request."""

    text: str
    finish_reason: str
    num_prompt_tokens: int
    num_tokens: int


class ModelClient:
    """The ``openai`` client for one model. Thread-safe."""

    def __init__(self, server: TorchServe, model: str) -> None:
        self.model = model
        self.prediction_url = server.prediction_url(model)
        self.base_url = server.openai_base_url(model)
        self.openai = OpenAI(base_url=self.base_url, api_key="unused", max_retries=0, timeout=PATIENCE_S)

    def complete(self, prompt: str, *, stream: bool = False, **options: Any) -> Answer:
        """Ask for a completion, greedy unless ``options`` say otherwise; these go into the body as they are."""
        create = functools.partial(self.openai.completions.create, model=self.model, prompt=prompt, extra_body={"temperature": 0} | options)
        return _answer(create, stream, lambda choice: choice.text)

    def chat(self, content: str, *, stream: bool = False, **options: Any) -> Answer:
        """Ask for the answer to one user message, greedy unless ``options`` say otherwise."""
        messages: Any = [{"role": "user", "content": content}]
        body = {"temperature": 0} | options
        create = functools.partial(self.openai.chat.completions.create, model=self.model, messages=messages, extra_body=body)
        return _answer(create, stream, lambda choice: choice.delta.content if stream else choice.message.content)

    def post(self, body: Any, *, route: str = "v1/completions") -> httpx.Response:
        """Post JSON to a route, the bare prediction URL being the empty one."""
        return httpx.post(f"{self.prediction_url}/{route}".rstrip("/"), json=body, timeout=PATIENCE_S)


ClientOf = Callable[[str], ModelClient]
"""From a model's name to its client."""


def at_once(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Call ``function`` for every item, each in a thread of its own, all starting together; return the results in order."""
    start = threading.Barrier(len(items))

    def run(item: T) -> R:
        start.wait(PATIENCE_S)
        return function(item)

    with ThreadPoolExecutor(len(items)) as pool:
        return list(pool.map(run, items))


def orders_to(server: TorchServe, model: str, version: str = "1.0") -> Callable[..., Any]:
    """Return a function that gives the model's first worker an order: ``order(command, **arguments)``."""
    directory = worker_directory(server.frontend_pid, model, version, temp=server.logs.parent / "tmp")
    return lambda command, **arguments: send_command(control_socket(directory, server.worker_pids(model)[0]), command, **arguments)


def wait_until(condition: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
    """Return as soon as ``condition`` holds; fail the test if it never does."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not reached within {timeout_s} s"
        time.sleep(0.05)


def counter(server: TorchServe, name: str, model: str, **labels: str) -> float:
    """Return a counter of a model, summed over the labels that are not given; 0 before its first report."""
    text = httpx.get(server.metrics_url, timeout=PATIENCE_S).text
    wanted = [f'{label}="{value}"' for label, value in ({"ModelName": model} | labels).items()]
    samples = re.findall(rf"^{name}{{(.*)}} (\S+)$", text, re.MULTILINE)
    return sum(float(value) for found, value in samples if all(label in found for label in wanted))


def _answer(create: Callable[..., Any], stream: bool, text_of: Callable[[Any], str | None]) -> Answer:
    parts = create(stream=True, stream_options={"include_usage": True}) if stream else [create()]
    text, reasons, usages = "", [], []
    for part in parts:
        for choice in part.choices:
            text += text_of(choice) or ""
            reasons.append(choice.finish_reason)
        usages.append(part.usage)
    (reason,) = filter(None, reasons)
    (usage,) = filter(None, usages)
    return Answer(text, reason, usage.prompt_tokens, usage.completion_tokens)
