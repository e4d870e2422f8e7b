"""Which prompts share their beginning."""

from __future__ import annotations

from collections.abc import Sequence

from tests.bench.load import Answer, Run
from tests.bench.prefix_bench import run_chats, run_shared_prefix
from tests.bench.workload import Job


class Letters:
    """A tokenizer: a letter is a token."""

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    def decode(self, token_ids: list[int]) -> str:
        return "".join(map(chr, token_ids))


class Parrot:
    """A contestant that answers with the number of the request and keeps the prompts."""

    def __init__(self) -> None:
        self.prompts: list[list[str]] = []

    def run(self, jobs: Sequence[Job], streams: int) -> Run:
        self.prompts.append([job.prompt for job in jobs])
        return Run(streams, tuple(Answer(0.0, 1.0, (0.5,), 1, text=f"<{number}>") for number in range(len(jobs))), 0.0)

    def rss_bytes(self) -> int:
        return 0


def test_the_shared_prefix_is_asked_for_before_it_counts() -> None:
    parrot = Parrot()
    cold, warm = run_shared_prefix(100, Letters(), parrot, 2, "seed")
    own, [first], shared = parrot.prompts
    assert len({prompt[:100] for prompt in [*own, first]}) == len(own) + 1
    assert {prompt[:100] for prompt in shared} == {first[:100]}
    assert len(set(shared)) == len(shared) == len(warm.answers) == len(cold.answers)


def test_each_turn_begins_with_the_chat_so_far() -> None:
    parrot = Parrot()
    first, later = run_chats(Letters(), parrot, 2, "seed")
    for before, after in zip(parrot.prompts, parrot.prompts[1:], strict=False):
        for number, (prompt, longer) in enumerate(zip(before, after, strict=True)):
            assert longer.startswith(f"{prompt}<{number}>")
    assert (len(first.answers), len(later.answers)) == (2, 2 * (len(parrot.prompts) - 1))
