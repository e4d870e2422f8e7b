"""The static path: a batch that fails takes nobody with it but its own rows, and every sampling parameter works there, too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from handlers import BatchedCausalLMHandler
from tests.fakes import FakeFrontend, make_context

COMPLETIONS = "v1/completions"


@pytest.fixture(scope="module")
def handler(model_dir: Path) -> Iterator[BatchedCausalLMHandler]:
    handler = BatchedCausalLMHandler()
    handler.initialize(make_context(BatchedCausalLMHandler, model_dir))
    yield handler
    handler.close()


@pytest.fixture
def frontend(handler: BatchedCausalLMHandler, model_dir: Path) -> FakeFrontend:
    return FakeFrontend(handler, make_context(BatchedCausalLMHandler, model_dir))


def test_a_batch_tells_its_size_and_what_was_padding(
    handler: BatchedCausalLMHandler, frontend: FakeFrontend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes first: after a batch that has run out of memory, sequences run alone."""
    seen: dict[str, float] = {}
    monkeypatch.setattr(handler, "report", lambda metric, value, labels: seen.update({metric.name: value}))
    for name, num_prompt_tokens, num_tokens in (("short", 2, 1), ("long", 6, 4)):
        body = {"prompt": [5] * num_prompt_tokens, "temperature": 0, "max_tokens": num_tokens, "ignore_eos": True}
        frontend.send(name, COMPLETIONS, body)
    frontend.step()

    assert (seen["marquee_batches_total"], seen["marquee_batched_sequences_total"]) == (1, 2)
    # Prompts: 2 rows of 6, 8 of which are used. Then 3 tokens of the long row, beside an idle one.
    assert (seen["marquee_batch_positions_total"], seen["marquee_padding_positions_total"]) == (12 + 6, 4 + 3)


def test_a_batch_that_fails_is_a_500_and_the_next_one_works(
    handler: BatchedCausalLMHandler, frontend: FakeFrontend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_out_of_memory(plan: object) -> None:
        raise MemoryError

    body = {"prompt": "the fox", "temperature": 0, "max_tokens": 4}
    with monkeypatch.context() as patch:
        patch.setattr(handler.generator._runner, "run", run_out_of_memory)
        failed = [frontend.send(f"f{number}", COMPLETIONS, body) for number in range(3)]
        frontend.step()
    assert [answer.status for answer in failed] == [500] * 3

    answer = frontend.send("again", COMPLETIONS, body)
    frontend.step()
    assert answer.status == 200


def test_sampling_parameters_and_log_probabilities_reach_the_static_path(frontend: FakeFrontend) -> None:
    body = {"prompt": "the fox", "temperature": 0, "max_tokens": 3, "ignore_eos": True}
    forced = frontend.send("forced", COMPLETIONS, body | {"logit_bias": {"70": 100}, "logprobs": 2})
    plain = frontend.send("plain", COMPLETIONS, body)
    frontend.step()

    (choice,) = forced.json()["choices"]
    assert len(set(choice["logprobs"]["tokens"])) == 1
    assert len(choice["logprobs"]["token_logprobs"]) == 3
    assert choice["text"] != plain.json()["choices"][0]["text"]


def test_an_answer_says_where_its_time_went(frontend: FakeFrontend) -> None:
    answer = frontend.send("a", COMPLETIONS, {"prompt": "the fox", "max_tokens": 3, "ignore_eos": True})
    frontend.step()

    names = [entry.partition(";")[0] for entry in answer.headers["Server-Timing"].split(", ")]
    assert names == ["tokenize", "queue", "prefill", "decode", "detokenize", "send", "total"]
