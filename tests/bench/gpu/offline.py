"""The engine alone: decoding with all sequences running, and prompts on an idle engine."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from handlers.engine.client import EngineClient
from tests.bench.gpu.roofline import Roofline
from tests.bench.gpu.rows import Cell
from tests.bench.gpu.setup import Setup
from tests.bench.gpu.streams import Steady, generating, random_prompts

_PROMPTS_AT_ONCE = (1, 8)
_PREFILL_REPEATS = 3


def decode_figures(steady: Steady, streams: int, roofline: Roofline) -> dict[str, float]:
    """Return what steps with all sequences came to, beside what the roofline allows at the lengths that they had."""
    bound_s = roofline.decode_s(streams, steady.context)
    return {
        "tokens_per_s": steady.tokens_per_s,
        "step_ms": 1e3 * streams / steady.tokens_per_s,
        "mean_context": steady.context,
        "bound_tokens_per_s": streams / bound_s,
        "share_of_bound": steady.tokens_per_s * bound_s / streams,
    }


@dataclass(frozen=True)
class Decoding:
    """Steady decoding: all prompts are read first, and only steps with all sequences in it count."""

    setup: Setup
    client: EngineClient
    name: str = "offline"
    who: str = "engine"

    @property
    def cells(self) -> Sequence[Cell]:
        """All."""
        return self.setup.cells

    def least_s(self, cell: Cell) -> float:
        """See Part."""
        return self.setup.decode_least_s(cell)

    def measure(self, cell: Cell) -> Mapping[str, float]:
        """Return tokens/s, the step's time and its share of the roofline."""
        num_tokens = self.setup.decode_tokens(cell)
        self.setup.check_room(self.client, cell, num_tokens)
        prompts = random_prompts(cell.streams, cell.context, self.setup.shape.vocabulary)
        with generating(self.client, prompts, num_tokens) as streams:
            streams.until_end(1)
        steady = Steady.of(cell.context, list(streams.times_s.values()))
        return decode_figures(steady, cell.streams, self.setup.roofline)


@dataclass(frozen=True)
class Prefill:
    """Prompts on an idle engine, one alone and some at once: the time to the (last) first token. ``streams`` of a cell are prompts."""

    setup: Setup
    client: EngineClient
    name: str = "prefill"
    who: str = "engine"

    @property
    def cells(self) -> Sequence[Cell]:
        """Each context, longest last."""
        contexts = sorted({cell.context for cell in self.setup.cells})
        return [Cell(count, context) for count in _PROMPTS_AT_ONCE for context in contexts if count <= self.setup.most_streams]

    def least_s(self, cell: Cell) -> float:
        """See Part."""
        return (1 + _PREFILL_REPEATS) * self.setup.roofline.prefill_s(cell.streams, cell.context)

    def measure(self, cell: Cell) -> Mapping[str, float]:
        """Return the median of some repeats, after one that does not count."""
        self.setup.check_room(self.client, cell, 1)
        self._first_token_s(cell)
        first_token_s = statistics.median(self._first_token_s(cell) for _ in range(_PREFILL_REPEATS))
        operations = self.setup.roofline.prefill_operations(cell.streams, cell.context)
        return {
            "first_token_ms": 1e3 * first_token_s,
            "prompt_tokens_per_s": cell.streams * cell.context / first_token_s,
            "tflops": operations / first_token_s / 1e12,
            "share_of_peak": operations / first_token_s / 1e12 / self.setup.roofline.ceilings.matrix_tflops,
        }

    def _first_token_s(self, cell: Cell) -> float:
        prompts = random_prompts(cell.streams, cell.context, self.setup.shape.vocabulary)
        with generating(self.client, prompts, num_tokens=1) as streams:
            streams.until_end(cell.streams)
        return max(times[0] for times in streams.times_s.values()) - streams.started_s
