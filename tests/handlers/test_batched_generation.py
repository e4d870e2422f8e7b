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
