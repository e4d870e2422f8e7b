"""A rank from 1 on: a process that follows rank 0, and ends with it. Started by ``start``."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Iterator

from handlers.engine.parallel.orders import Load, Order, order_reader
from handlers.engine.process.child import adopt_socket, end_with_parent
from handlers.engine.process.source import EngineSource
from handlers.errors import MarqueeError

_READ_BYTES = 1 << 18

logger = logging.getLogger(__name__)


def main(parent_pid: int, connection_fd: int, store_fd: int) -> None:
    """Follow rank 0, the process ``parent_pid``, at the other end of the socket ``connection_fd``."""
    end_with_parent(parent_pid)
    orders = _receive(adopt_socket(connection_fd))
    load = next(orders)
    assert isinstance(load, Load)
    logging.basicConfig(stream=sys.stdout, format=f"rank {load.rank}: %(message)s", level=logging.INFO)
    try:
        _follow(load, store_fd, orders)
    except MarqueeError as error:
        logger.error("%s", error)
    except Exception:
        logger.exception("this rank cannot go on")
    os._exit(1)  # at once: it may be in the middle of an exchange


def _follow(load: Load, store_fd: int, orders: Iterator[Order]) -> None:
    # Here and not above: it takes seconds, and rank 0 may end meanwhile.
    from handlers.engine.parallel.collective import ProcessGroup
    from handlers.engine.parallel.follow import follow

    handler = EngineSource(**load.source).make_handler()
    follow(handler, ProcessGroup(load.rank, load.num_ranks, store_fd), orders)


def _receive(connection: socket.socket) -> Iterator[Order]:
    reader = order_reader()
    while data := connection.recv(_READ_BYTES):
        yield from reader.feed(data)
    os._exit(0)  # rank 0 is gone


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
