"""In float32 the continuous path answers exactly as the static path does, which is transformers' own ``generate``."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from handlers import BatchedCausalLMHandler, CausalLMHandler
from tests.fakes import Answer, FakeFrontend, keep_worker, make_context

CHAT, COMPLETIONS = "v1/chat/completions", "v1/completions"
WORDS = ["the", "quick", "fox", "grüß", "日本", "😀", "12", "\n", "again"]


@pytest.fixture(scope="module", autouse=True)
def unchanged_worker() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        keep_worker(patch)
        yield


@pytest.fixture(scope="module")
def continuous(model_dir: Path) -> Iterator[FakeFrontend]:
    context = make_context(CausalLMHandler, model_dir, handler={"engine": {"max_running": 7, "prefill_chunk_tokens": 16}})
    handler = CausalLMHandler()
    handler.initialize(context)
    yield FakeFrontend(handler, context)
    handler.close()


@pytest.fixture(scope="module")
def static(model_dir: Path) -> FakeFrontend:
    context = make_context(BatchedCausalLMHandler, model_dir)
    handler = BatchedCausalLMHandler()
    handler.initialize(context)
    return FakeFrontend(handler, context)


def mixed_requests(count: int) -> list[tuple[str, dict[str, Any]]]:
    """Greedy requests of mixed routes, lengths, stop strings and modes."""
    draw = random.Random(0)
    requests = []
    for _ in range(count):
        text = " ".join(draw.choices(WORDS, k=draw.randint(1, 12)))
        body: dict[str, Any] = {"temperature": 0, "max_tokens": draw.randint(1, 16), "ignore_eos": draw.random() < 0.5}
        if draw.random() < 0.3:
            body |= {"repetition_penalty": 1.3, "presence_penalty": 0.5, "frequency_penalty": 0.5}
        if draw.random() < 0.3:
            body |= {"logit_bias": {str(token_id): draw.uniform(-5, 5) for token_id in range(40, 60)}, "min_tokens": 1}
        if draw.random() < 0.4:
            body["stop"] = draw.choices(["a", "e", "the", "\ufffd", "zzz"], k=2)
        if draw.random() < 0.5:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        if draw.random() < 0.5:
            requests.append((CHAT, body | {"messages": [{"role": "user", "content": text}]}))
        else:
            requests.append((COMPLETIONS, body | {"prompt": text}))
    return requests


def plain(body: dict[str, Any]) -> dict[str, Any]:
    """Return the same request, not streamed."""
    return {name: value for name, value in body.items() if not name.startswith("stream")}


def outcome(answer: Answer) -> tuple[str, str, int, int]:
    """Return text, finish reason, and the tokens of prompt and answer, however they were sent."""
    assert answer.is_complete and answer.status == 200, answer
    if not answer.body.startswith(b"data: "):
        body = answer.json()
        (choice,) = body["choices"]
        return choice.get("text") or choice.get("message", {}).get("content") or "", choice["finish_reason"], *lengths(body)
    *events, usage = answer.events()
    choices = [event["choices"][0] for event in events]
    text = "".join(choice.get("text") or choice.get("delta", {}).get("content") or "" for choice in choices)
    return text, choices[-1]["finish_reason"], *lengths(usage)


def lengths(body: dict[str, Any]) -> tuple[int, int]:
    return body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]


def test_sixty_four_mixed_requests_agree(continuous: FakeFrontend, static: FakeFrontend) -> None:
    requests = mixed_requests(64)
    wanted = []
    for number, (route, body) in enumerate(requests):
        wanted.append(static.send(f"s{number}", route, plain(body)))
        if number % 8 == 7:
            static.step()
    answers = []
    for number, (route, body) in enumerate(requests):
        answers.append(continuous.send(f"c{number}", route, body))
        if number % 3 == 0:
            continuous.step()
    continuous.run()

    assert [outcome(answer) for answer in answers] == [outcome(answer) for answer in wanted]
    assert len({outcome(answer)[1] for answer in answers}) == 2, "both finish reasons occur"


def test_a_batch_agrees_with_one_by_one(static: FakeFrontend) -> None:
    requests = [(route, plain(body)) for route, body in mixed_requests(8)]
    together = [static.send(f"t{number}", route, body) for number, (route, body) in enumerate(requests)]
    static.step()
    alone = []
    for number, (route, body) in enumerate(requests):
        alone.append(static.send(f"o{number}", route, body))
        static.step()

    assert [outcome(answer) for answer in together] == [outcome(answer) for answer in alone]


def test_a_seed_gives_the_same_text_on_both_paths(continuous: FakeFrontend, static: FakeFrontend) -> None:
    body = {"prompt": "the fox", "temperature": 0.9, "top_p": 0.9, "seed": 7, "max_tokens": 20}
    answers = [continuous.send("x1", COMPLETIONS, body), static.send("x2", COMPLETIONS, body)]
    continuous.run()
    static.run()

    assert outcome(answers[0]) == outcome(answers[1])


def test_choices_and_log_probabilities_are_the_same_on_both_paths(continuous: FakeFrontend, static: FakeFrontend) -> None:
    body = {"prompt": ["the fox", "again and again"], "n": 3, "temperature": 0.9, "seed": 7, "max_tokens": 12, "logprobs": 2, "stop": "a"}
    answers = [continuous.send("n1", COMPLETIONS, body), static.send("n2", COMPLETIONS, body)]
    continuous.run()
    static.run()

    ours, theirs = [answer.json()["choices"] for answer in answers]
    assert [(choice["index"], choice["text"]) for choice in ours] == [(choice["index"], choice["text"]) for choice in theirs]
    assert len({choice["text"] for choice in ours}) > 3
    for mine, other in zip(ours, theirs, strict=True):
        assert mine["logprobs"]["tokens"] == other["logprobs"]["tokens"]
        assert mine["logprobs"]["token_logprobs"] == pytest.approx(other["logprobs"]["token_logprobs"], abs=1e-3)


def test_a_client_that_leaves_frees_its_place(continuous: FakeFrontend) -> None:
    engine = continuous._handler.engine
    body = {"prompt": "the fox", "temperature": 0, "max_tokens": 200, "ignore_eos": True}
    continuous.send("gone", COMPLETIONS, body)
    stays = continuous.send("stays", COMPLETIONS, body | {"max_tokens": 20})
    continuous.step()
    continuous.leave("gone")
    continuous.run()

    assert stays.is_complete
    assert engine.drain(0.0) or engine.stats().running <= 1
    assert json.loads(stays.body)["usage"]["completion_tokens"] == 20
