"""What a rank from 1 on does: the same as rank 0, in the same order, so that every exchange finds all ranks at it."""

from __future__ import annotations

from collections.abc import Iterator

from handlers.engine.capacity import Capacity
from handlers.engine.compatibility import adopt
from handlers.engine.parallel.collective import Collective
from handlers.engine.parallel.linear import join
from handlers.engine.parallel.orders import Choose, Order, Reset, Resize, Run
from handlers.engine.parallel.plans import PlanReceiver
from handlers.engine.process.source import EngineBuilder
from handlers.engine.runners import choose_runner


def follow(handler: EngineBuilder, collective: Collective, orders: Iterator[Order]) -> None:
    """Load this rank's share of a model, choose a runner for it as the first of ``orders`` says, and have it do what the others say."""
    model = handler.load_model()
    join(model, collective)
    adoption = adopt(model)
    choose = next(orders)
    assert isinstance(choose, Choose)
    runner = choose_runner(model, adoption, Capacity(choose.num_blocks, choose.max_model_len), handler.config.engine)
    plans = PlanReceiver()
    for order in orders:
        match order:
            case Run(num_exchanges, heads, ids):
                _check_step(num_exchanges, collective.num_exchanges)
                runner.run(plans.unpack(heads, ids))
            case Resize(num_blocks, max_model_len):
                runner.resize(num_blocks, max_model_len)
            case Reset():
                runner.reset()


def _check_step(wanted: int, found: int) -> None:
    """Raise if ranks have exchanged different things: one has survived an error of its own (a CUDA graph could not be recorded, say)."""
    if found != wanted:
        raise RuntimeError(f"out of step with rank 0: {found} exchanges here, {wanted} there")
