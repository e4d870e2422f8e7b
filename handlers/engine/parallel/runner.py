"""The runner of rank 0: whatever it is asked for, all ranks do."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from torch import Tensor

from handlers.config import EngineConfig
from handlers.engine.capacity import Capacity
from handlers.engine.compatibility import Adoption
from handlers.engine.memory.out_of_memory import is_out_of_memory
from handlers.engine.parallel.orders import Choose, Order, Reset, Resize, Run
from handlers.engine.parallel.plans import PlanSender
from handlers.engine.parallel.ranks import Ranks
from handlers.engine.runner import ResizableRunner
from handlers.engine.runners import choose_runner
from handlers.engine.scheduler import StepPlan

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)


def choose_parallel_runner(
    ranks: Ranks, model: PreTrainedModel, adoption: Adoption, capacity: Capacity, config: EngineConfig
) -> TensorParallelRunner:
    """Have all ranks choose a runner for their shares, which are alike; raise Unfit if there is none."""
    ranks.send(Choose(capacity.num_blocks, capacity.max_model_len))
    runner = choose_runner(model, adoption, capacity, config)
    logger.info("%d ranks share the model, each with a %s", ranks.collective.num_ranks, type(runner).__name__)
    return TensorParallelRunner(runner, ranks)


class TensorParallelRunner:
    """A ResizableRunner whose steps all ranks compute together. The bytes that it tells are those of this rank.

    A step that fails in one rank leaves the others inside it, each somewhere else, so that an error ends the process. Where memory ran out
    it is raised first, as it may say why an engine cannot load; then whatever is asked for next ends the process.
    """

    def __init__(self, runner: ResizableRunner, ranks: Ranks) -> None:
        self._runner, self._ranks = runner, ranks
        self._plans = PlanSender()
        self._failure: Exception | None = None
        self.block_tokens = runner.block_tokens
        self.vocab_size = runner.vocab_size

    @property
    def num_blocks(self) -> int:
        """See Runner."""
        return self._runner.num_blocks

    @property
    def max_model_len(self) -> int:
        """See Runner."""
        return self._runner.max_model_len

    @property
    def weight_bytes(self) -> int:
        """What this rank's share takes; see Runner."""
        return self._runner.weight_bytes

    @property
    def kv_bytes(self) -> int:
        """What this rank's part of the blocks takes; see Runner."""
        return self._runner.kv_bytes

    def run(self, plan: StepPlan) -> Tensor:
        """Compute a step with all ranks; see Runner."""
        self._tell(Run(self._ranks.collective.num_exchanges, *self._plans.pack(plan)))
        try:
            return self._runner.run(plan)
        except Exception as error:
            if not is_out_of_memory(error):
                self._ranks.end_process(error)
            self._failure = error
            raise

    def resize(self, num_blocks: int, max_model_len: int) -> None:
        """Have other blocks in all ranks; see ResizableRunner."""
        self._tell(Resize(num_blocks, max_model_len))
        self._runner.resize(num_blocks, max_model_len)

    def reset(self) -> None:
        """Forget all sequences; see Runner."""
        self._tell(Reset())
        self._runner.reset()

    def _tell(self, order: Order) -> None:
        if self._failure is not None:
            self._ranks.end_process(self._failure)
        self._ranks.send(order)
