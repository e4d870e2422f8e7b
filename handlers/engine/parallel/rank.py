"""A rank from 1 on: load a share of the model, then do what rank 0 says. Started by ``ranks``; ends with rank 0."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Iterator

from handlers.engine.compatibility import adopt
from handlers.engine.parallel.collective import Collective, ProcessGroup
from handlers.engine.parallel.linear import join
from handlers.engine.parallel.orders import Choose, Load, Order, Reset, Resize, Run, order_reader
from handlers.engine.process.child import adopt_socket, end_with_parent
from handlers.engine.process.source import EngineBuilder, EngineSource
from handlers.engine.runners import choose_runner
from handlers.errors import MarqueeError

_READ_BYTES = 1 << 18

logger = logging.getLogger(__name__)


def follow(handler: EngineBuilder, collective: Collective, orders: Iterator[Order]) -> None:
    """Do what rank 0 does, in the same order, so that every exchange finds all ranks at it; the first order is to choose a runner."""
    model = handler.load_model()
    join(model, collective)
    adoption = adopt(model)
    choose = next(orders)
    assert isinstance(choose, Choose)
    runner = choose_runner(model, adoption, choose.capacity, handler.config.engine)
    for order in orders:
        match order:
            case Run(plan):
                runner.run(plan)
            case Resize(num_blocks, max_model_len):
                runner.resize(num_blocks, max_model_len)
            case Reset():
                runner.reset()


def main(connection_fd: int, store_fd: int) -> None:
    """Follow rank 0 at the other end of the socket ``connection_fd``, until it ends."""
    end_with_parent()
    orders = _receive(adopt_socket(connection_fd))
    load = next(orders)
    assert isinstance(load, Load)
    logging.basicConfig(stream=sys.stdout, format=f"rank {load.rank}: %(message)s", level=logging.INFO)
    try:
        handler = EngineSource(**load.source).make_handler()
        follow(handler, ProcessGroup(load.rank, load.num_ranks, store_fd), orders)
    except MarqueeError as error:
        logger.error("%s", error)
    except Exception:
        logger.exception("this rank cannot go on")
    os._exit(1)  # at once: who is still waiting for an exchange will end with rank 0


def _receive(connection: socket.socket) -> Iterator[Order]:
    reader = order_reader()
    while True:
        data = connection.recv(_READ_BYTES)
        if not data:
            os._exit(0)  # rank 0 is gone
        yield from reader.feed(data)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
