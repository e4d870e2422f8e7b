"""transformers beside us: ``generate`` over a static batch of equal lengths, and its continuous batching."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from tests.bench.gpu.offline import decode_figures
from tests.bench.gpu.roofline import synchronize
from tests.bench.gpu.rows import Cell
from tests.bench.gpu.setup import NUM_FIRST_CELLS, Setup
from tests.bench.gpu.streams import Steady, random_prompts

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_SLACK_TOKENS = 64  # continuous batching takes its time until all sequences run
_CPU_MEMORY_SHARE = 0.01  # for its cache, all of which is zeroed first

Times = list[list[float]]
Generate = Callable[[Any, list[list[int]], int], Times]


@dataclass(frozen=True)
class Peer:
    """A way of transformers' own to generate: ``generate`` returns when each sequence's tokens came."""

    setup: Setup
    model: PreTrainedModel
    who: str
    name: str = "peers"

    @property
    def cells(self) -> Sequence[Cell]:
        """The first few."""
        return self.setup.cells[:NUM_FIRST_CELLS]

    def least_s(self, cell: Cell) -> float:
        """See Part."""
        return self.setup.decode_least_s(cell)

    def measure(self, cell: Cell) -> Mapping[str, float]:
        """Return the same figures as the engine's offline part, over the same steps."""
        prompts = random_prompts(cell.streams, cell.context, self.setup.shape.vocabulary)
        started_s = time.perf_counter()
        times_s = PEERS[self.who](self.model, prompts, self.setup.decode_tokens(cell) + _SLACK_TOKENS)
        first_token_ms = 1e3 * (max(times[0] for times in times_s) - started_s)
        steady = Steady.of(cell.context, times_s)
        return decode_figures(steady, cell.streams, self.setup.roofline) | {"first_token_ms": first_token_ms}


def generate(model: Any, prompts: list[list[int]], num_tokens: int) -> Times:
    """Run ``model.generate``, as its documentation has it: eager, with a cache that grows. All prompts are read in one step."""
    from transformers import StoppingCriteriaList

    clock = _Clock()
    token_ids = torch.tensor(prompts, device=model.device)
    model.generate(
        token_ids,
        attention_mask=torch.ones_like(token_ids),
        max_new_tokens=num_tokens,
        do_sample=False,
        pad_token_id=0,
        stopping_criteria=StoppingCriteriaList([clock]),
    )
    return [clock.times_s] * len(prompts)


def generate_batch(model: Any, prompts: list[list[int]], num_tokens: int) -> Times:
    """Run transformers' continuous batching with its own defaults. Raises RuntimeError unless all sequences come to their ends."""
    from transformers import ContinuousBatchingConfig, GenerationConfig

    config = GenerationConfig(max_new_tokens=num_tokens, do_sample=False, eos_token_id=-1, pad_token_id=0)
    batching = ContinuousBatchingConfig(max_memory_percent=_CPU_MEMORY_SHARE if model.device.type == "cpu" else None)
    outputs = model.generate_batch(prompts, generation_config=config, continuous_batching_config=batching, record_timestamps=True).values()
    times_s = [list(output.timestamps or ()) for output in outputs]
    finished = sum(len(times) == num_tokens for times in times_s)
    if finished < len(prompts):
        error = next((output.error for output in outputs if output.error), "its log says why")
        raise RuntimeError(f"{finished} of {len(prompts)} sequences came to their ends: {error}")
    return times_s


PEERS: dict[str, Generate] = {"generate": generate, "continuous batching": generate_batch}


@dataclass
class _Clock:
    """A stopping criterion that never stops: it notes when each token is there."""

    times_s: list[float] = field(default_factory=list)

    def __call__(self, token_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        synchronize(token_ids.device)
        self.times_s.append(time.perf_counter())
        return torch.zeros(len(token_ids), dtype=torch.bool, device=token_ids.device)
