"""The engine process: build the engine that the worker describes, then pass on its orders and the engine's news.

Started by ``launch``. Two threads beside the engine's own: one reads, so that the worker never waits for this process, and ends it when the
worker is gone; the main thread loads and then writes.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import NoReturn

from handlers.engine.client import EngineClient, EngineStats, Event
from handlers.engine.process.child import adopt_socket, end_with_parent
from handlers.engine.process.protocol import Add, Cancel, Events, Hello, Load, LoadFailed, Message, Report, encode, message_reader
from handlers.engine.process.source import EngineSource
from handlers.errors import MarqueeError, RequestError

REPORT_S = 0.2
"""How often a working engine reports how it is doing."""
IDLE_REPORT_S = 1.0
"""And how often one that nobody watches does, if anything has changed."""
WATCH_S = 0.3
"""How long after the worker's last message the engine is asked for news; it pauses some time after that."""

_READ_BYTES = 1 << 18

logger = logging.getLogger(__name__)


class EngineServer:
    """Serve one engine to the worker at the other end of ``connection``."""

    def __init__(self, connection: socket.socket, engine: EngineClient) -> None:
        self._connection = connection
        self._engine = engine
        self._heard = threading.Condition()
        self._heard_s = time.monotonic()
        self._refused: deque[Event] = deque()  # on its way from one thread to the other
        self._last_report = EngineStats()
        self._report_at_s = 0.0

    def serve(self) -> NoReturn:
        """Write the engine's news until the process ends."""
        self._send(Hello(self._engine.limits))
        while True:
            self._await_watcher()
            events = self._engine.poll(REPORT_S / 2)
            while self._refused:
                events.append(self._refused.popleft())
            if events:
                self._send(Events(tuple(events)))
            self._report()

    def take(self, message: Message) -> None:
        """Carry out an order; called by the thread that reads."""
        if isinstance(message, Add):
            self._add(message)
        elif isinstance(message, Cancel):
            self._engine.cancel(message.sequence_id)
        with self._heard:
            self._heard_s = time.monotonic()
            self._heard.notify()

    def _add(self, add: Add) -> None:
        try:
            self._engine.add(add.sequence_id, add.prompt_token_ids, add.params, priority=add.priority, max_queue_s=add.max_queue_s)
        except (RequestError, ValueError) as error:  # The worker has checked the limits, so this is one that it does not know of.
            logger.warning("the engine refused a sequence that its worker had admitted: %s", error)
            self._refused.append(Event(add.sequence_id, finish_reason="error", error=str(error)))

    def _await_watcher(self) -> None:
        """Wait for somebody to wait for news; what the engine does meanwhile (little, and then nothing) is still reported."""
        while not self._is_watched():
            self._report()
            with self._heard:
                self._heard.wait_for(self._is_watched, IDLE_REPORT_S)

    def _is_watched(self) -> bool:
        return time.monotonic() - self._heard_s < WATCH_S

    def _report(self) -> None:
        now_s = time.monotonic()
        if now_s < self._report_at_s:
            return
        self._report_at_s = now_s + REPORT_S
        stats = self._engine.stats()
        if stats != self._last_report:
            self._last_report = stats
            self._send(Report(stats))

    def _send(self, message: Message) -> None:
        self._connection.sendall(encode(message))


class _Orders:
    """Read the worker's messages; the first is ``Load``, and the others go to the server once there is one."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._reader = message_reader()
        self.server: EngineServer | None = None

    def await_load(self) -> Load:
        messages: list[Message] = []
        while not messages:
            messages = self._receive()
        (load,) = messages
        assert isinstance(load, Load)
        return load

    def follow(self) -> NoReturn:
        while True:
            for message in self._receive():
                if self.server is not None:
                    _or_exit(partial(self.server.take, message))

    def _receive(self) -> list[Message]:
        try:
            data = self._connection.recv(_READ_BYTES)
        except ConnectionError:
            data = b""
        if not data:
            os._exit(0)  # The worker is gone, or wants us gone; whatever the engine is doing now is of no use to anybody.
        return self._reader.feed(data)


def main(parent_pid: int, connection_fd: int) -> None:
    """Serve the worker at the other end of the socket ``connection_fd``."""
    end_with_parent(parent_pid)
    # As TorchServe sets up its workers: what a process prints goes to the model's log.
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
    connection = adopt_socket(connection_fd)
    orders = _Orders(connection)
    load = orders.await_load()
    threading.Thread(target=orders.follow, name="orders", daemon=True).start()
    try:
        engine = EngineSource(**load.source).build()
    except MarqueeError as error:
        _fail(connection, LoadFailed(str(error), is_config=True))
    except Exception as error:
        logger.exception("the engine could not be loaded")
        _fail(connection, LoadFailed(f"{type(error).__name__}: {error}", is_config=False))
    orders.server = EngineServer(connection, engine)
    _or_exit(orders.server.serve)


def _or_exit(function: Callable[[], object]) -> None:
    """Call ``function``; if it raises, end this process, as half an engine is worse than none. The worker starts another."""
    try:
        function()
    except ConnectionError:
        os._exit(0)
    except Exception:
        logger.exception("the engine process cannot go on")
        os._exit(1)


def _fail(connection: socket.socket, reason: LoadFailed) -> NoReturn:
    connection.sendall(encode(reason))
    sys.exit(1)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
