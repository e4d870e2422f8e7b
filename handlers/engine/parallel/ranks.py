"""Rank 0's hold on the other ranks: child processes that do what they are told, and that it cannot do without."""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import NoReturn

from handlers.engine.parallel.collective import Collective
from handlers.engine.parallel.orders import Order, encode_order

logger = logging.getLogger(__name__)

_MOMENT_S = 1.0
"""What fails in one rank mostly fails in all: so long rank 0 has to say it itself, in better words."""


class Ranks:
    """The ranks from 1 on, by their number at the other ends of ``connections``. One thread may use it.

    ``meet`` waits for all of them, and returns what is exchanged with.
    When one of them hangs up, this process ends: in the middle of an exchange it could do nothing else, as NCCL waits for ever for a peer
    that is gone. The supervisor of this process starts another, and the kernel ends the ranks that are left.
    """

    def __init__(self, connections: Mapping[int, socket.socket], meet: Callable[[], Collective]) -> None:
        self._connections = connections
        threading.Thread(target=self._watch, name="ranks", daemon=True).start()  # now: one that has ended would be waited for in vain
        self.collective = meet()

    def send(self, order: Order) -> None:
        """Tell all ranks; they carry out orders one after the other."""
        frame = encode_order(order)
        for connection in self._connections.values():
            try:
                connection.sendall(frame)
            except OSError as error:
                self.end_process(error)

    def end_process(self, error: Exception) -> NoReturn:
        """End this process, and so all ranks, for an error that a rank which has ended may be the cause of."""
        if lost := self._lost(_MOMENT_S):
            _end_process(lost)
        logger.error("rank 0 has failed, and ends with the others", exc_info=error)
        os._exit(1)

    def _watch(self) -> None:
        lost = self._lost(None)
        time.sleep(_MOMENT_S)
        _end_process(lost)

    def _lost(self, timeout_s: float | None) -> list[int]:
        """Return the ranks that have hung up, once there are any; nothing else is ever heard of them."""
        sockets = select.poll()
        for connection in self._connections.values():
            sockets.register(connection, select.POLLIN)
        hung_up = {fd for fd, _ in sockets.poll(None if timeout_s is None else timeout_s * 1000)}
        return [rank for rank, connection in self._connections.items() if connection.fileno() in hung_up]


def _end_process(lost: list[int]) -> NoReturn:
    logger.error("rank %s has ended: rank 0 ends with the others, as they can only go on together", ", ".join(map(str, lost)))
    os._exit(1)
