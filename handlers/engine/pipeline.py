"""Steps on the device: launched one after the other, and collected once their samples have arrived."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from handlers.engine.runner import PipelinedRunner, Runner
from handlers.engine.sampler import Draw, Sample, draw
from handlers.engine.scheduler import Chunk, StepPlan
from handlers.engine.sequence import Sequence
from handlers.engine.speculation.speculation import sampling_states


@dataclass(frozen=True, slots=True)
class Computed:
    """What has come of a chunk: ``samples`` for each of the logits that it asked for, None where these were no distribution."""

    chunk: Chunk
    sequence: Sequence
    samples: list[Sample | None]


@dataclass(frozen=True, slots=True)
class _Launched:
    chunks: tuple[tuple[Chunk, Sequence], ...]
    draw: Draw


class Pipeline:
    """The steps of one runner, in the order of their launch. Not thread-safe.

    ``depth`` of them may still run when the next is planned: one on a PipelinedRunner, none on any other.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._pipelined: PipelinedRunner | None = runner if isinstance(runner, PipelinedRunner) else None
        self._launched: deque[_Launched] = deque()
        self.depth = 1 if self._pipelined else 0
        self.num_steps = 0
        self.num_sampled = 0  # sequences, step by step

    def __len__(self) -> int:
        """Steps that have been launched and not collected."""
        return len(self._launched)

    def chunks(self) -> Iterator[tuple[Chunk, Sequence]]:
        """Yield what is in these steps."""
        for launched in self._launched:
            yield from launched.chunks

    def launch(self, plan: StepPlan, sequences: Mapping[str, Sequence]) -> None:
        """Have the device compute ``plan`` and draw; raises what the runner raises, with nothing changed.

        The sequences have been read as far as the plan goes from now on, and those that sample go on with a token that is expected.
        """
        if self._pipelined and self._launched:
            logits = self._pipelined.run_after(plan, self._launched[-1].draw.token_ids)
        else:
            logits = self._runner.run(plan)
        chunks = tuple((chunk, sequences[chunk.sequence_id]) for chunk in plan.chunks)
        states = [state for chunk, sequence in chunks if chunk.samples for state in sampling_states(chunk, sequence)]
        self._launched.append(_Launched(chunks, draw(logits, states)))
        self._note(chunks)

    def wait(self) -> list[Computed]:
        """Return what has come of the oldest step, which stays until ``pop``."""
        launched = self._launched[0]
        samples = iter(launched.draw.samples())
        return [Computed(chunk, sequence, [next(samples) for _ in range(chunk.num_logits)]) for chunk, sequence in launched.chunks]

    def pop(self) -> None:
        """Be done with the oldest step."""
        self._launched.popleft()

    def clear(self) -> None:
        """Forget all steps."""
        self._launched.clear()

    def _note(self, chunks: tuple[tuple[Chunk, Sequence], ...]) -> None:
        row = 0
        for chunk, sequence in chunks:
            sequence.num_launched = chunk.end - chunk.num_drafts
            if chunk.samples and self.depth:
                sequence.expect(row)
            row += chunk.num_logits
            self.num_sampled += chunk.samples
        self.num_steps += 1
