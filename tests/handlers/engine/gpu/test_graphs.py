"""Recorded steps: which one is replayed, what it sees, and that everything it works on stays where it was."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from handlers.engine.gpu.block_tables import BlockTables
from handlers.engine.gpu.decoder import fill_in
from handlers.engine.gpu.flat_plan import FlatPlan
from handlers.engine.gpu.graphs import DecodeGraphs, bucket_sizes
from handlers.engine.gpu.step_input import StepInput
from handlers.engine.scheduler import Chunk, StepPlan
from handlers.engine.sequence import UNKNOWN

BLOCK, MAX_CONTEXT, VOCAB_SIZE = 4, 64, 8
CPU = torch.device("cpu")


@given(st.integers(1, 2000))
def test_buckets_waste_few_rows_and_end_with_the_most(max_rows: int) -> None:
    sizes = bucket_sizes(max_rows)
    assert list(sizes) == sorted(set(sizes))
    assert sizes[-1] == min(max_rows, 512)
    for rows in range(1, sizes[-1] + 1):
        size = next(size for size in sizes if size >= rows)
        assert size - rows < max(8, rows / 8 + 1)


def test_buckets_for_the_usual_numbers_of_sequences() -> None:
    assert bucket_sizes(1) == (1,)
    assert bucket_sizes(20) == (1, 2, 4, 8, 16, 20)
    assert len(bucket_sizes(64)) == 11
    assert len(bucket_sizes(256)) == 35


class Recorder:
    """A Capture that runs what it has recorded, as a graph does; says in what order it was asked, and which size was replayed."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def __call__(self, compute: Callable[[], None]) -> Callable[[], None]:
        name = f"graph {len(self.log)}"
        self.log.append(f"{name} captured")
        compute()

        def replay() -> None:
            self.log.append(f"{name} replayed")
            compute()

        return replay


class FakeDecoder:
    """The logits after a token count its id; keeps the steps that it was asked for."""

    def __init__(self) -> None:
        self.steps: list[StepInput[Tensor]] = []
        self.places: list[list[int]] = []

    def __call__(self, step: StepInput[Tensor], drawn: Tensor) -> Tensor:
        self.steps.append(step)
        self.places.append(step.places.tolist())
        token_ids = fill_in(step.token_ids, drawn)[step.sampling]
        return torch.nn.functional.one_hot(token_ids, VOCAB_SIZE).to(torch.bfloat16)


def make_graphs(sizes: tuple[int, ...] = (1, 2, 4, 8)) -> tuple[DecodeGraphs, Recorder, FakeDecoder]:
    recorder, decoder = Recorder(), FakeDecoder()
    shape = {"max_context": MAX_CONTEXT, "block_tokens": BLOCK, "vocab_size": VOCAB_SIZE}
    return DecodeGraphs(decoder, recorder, sizes, device=CPU, **shape), recorder, decoder


def decode(index: int, token_id: int = 1, late_row: int | None = None) -> Chunk:
    return Chunk(str(index), 5, (token_id,), [2 * index, 2 * index + 1], True, 0, late_row)


def run(graphs: DecodeGraphs, *chunks: Chunk, drawn: Tensor | None = None) -> Tensor | None:
    return graphs.run(FlatPlan(StepPlan(chunks), BLOCK), BlockTables(32, BLOCK), drawn)


def test_the_largest_is_captured_first_over_padding_alone() -> None:
    _, recorder, decoder = make_graphs()
    assert recorder.log == [f"graph {index} captured" for index in range(4)]
    assert decoder.places == [[-1] * 8, [-1] * 4, [-1] * 2, [-1]]


@pytest.mark.parametrize(("num_rows", "graph"), [(1, 3), (2, 2), (3, 1), (4, 1), (5, 0), (8, 0)])
def test_the_next_larger_one_is_replayed(num_rows: int, graph: int) -> None:
    graphs, recorder, _ = make_graphs()
    logits = run(graphs, *(decode(index, token_id=index % VOCAB_SIZE) for index in range(num_rows)))
    assert recorder.log[-1] == f"graph {graph} replayed"
    assert logits is not None
    assert logits.dtype == torch.float32
    assert logits.argmax(-1).tolist() == [index % VOCAB_SIZE for index in range(num_rows)]


def test_no_recording_has_room_for_more_rows_or_for_prompts() -> None:
    graphs, recorder, _ = make_graphs()
    assert run(graphs, *(decode(index) for index in range(9))) is None
    assert run(graphs, decode(0), Chunk("prompt", 0, (1, 2, 3), [90], True)) is None
    assert run(graphs, decode(0, UNKNOWN, late_row=8), drawn=torch.arange(9)) is None
    assert not any("replayed" in line for line in recorder.log)


def test_guesses_are_rows_and_only_what_samples_has_logits() -> None:
    graphs, recorder, _ = make_graphs()
    guessing = Chunk("a", 5, (3, 4, 5), [50, 51], True, num_drafts=2)
    begins = Chunk("b", 0, (6,), [52], samples=False)
    logits = run(graphs, begins, guessing)
    assert recorder.log[-1] == "graph 1 replayed"
    assert logits is not None
    assert logits.argmax(-1).tolist() == [3, 4, 5]


def test_tokens_that_were_late_are_those_that_were_drawn() -> None:
    graphs, _, _ = make_graphs()
    drawn = torch.tensor([3, -1, 5])
    logits = run(graphs, decode(0, UNKNOWN, 2), decode(1, 7), decode(2, UNKNOWN, 1), decode(3, UNKNOWN, 0), drawn=drawn)
    assert logits is not None
    assert logits.argmax(-1).tolist() == [5, 7, 0, 3]


def test_input_and_output_stay_where_they_were_recorded() -> None:
    graphs, _, decoder = make_graphs()
    recorded = {len(step.context_lens): step for step in decoder.steps}
    first = run(graphs, decode(0), decode(1))
    assert recorded[2].positions.tolist() == [5, 5]
    assert recorded[2].block_table[:, :2].tolist() == [[0, 1], [2, 3]]
    second = run(graphs, decode(7))
    assert first is not None
    assert second is not None
    assert first.data_ptr() == second.data_ptr()
