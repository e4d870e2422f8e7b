"""The OpenAI API on the real server, with the real client: what it answers, and what it counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import openai
import pytest

from tests.contract.clients import ModelClient

pytestmark = [pytest.mark.torchserve, pytest.mark.timeout(300)]

PROMPT = "Tell me about number 1"
ENDING_PROMPT = "Tell me about number 3" + " and again" * 3
"""A prompt after which the model's own greedy choice is soon to end."""

Generate = Callable[[str, int], list[int]]


def decode(tokenizer: Any, token_ids: list[int]) -> str:
    return str(tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


@pytest.mark.parametrize("stream", [False, True])
def test_a_completion_is_what_transformers_generates(client: ModelClient, generate: Generate, tokenizer: Any, stream: bool) -> None:
    token_ids = generate(PROMPT, 40)
    assert tokenizer.eos_token_id not in token_ids

    answer = client.complete(PROMPT, max_tokens=40, stream=stream)

    assert answer.text == decode(tokenizer, token_ids)
    assert (answer.finish_reason, answer.num_prompt_tokens, answer.num_tokens) == ("length", len(tokenizer(PROMPT)["input_ids"]), 40)


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_goes_through_the_template(client: ModelClient, generate: Generate, tokenizer: Any, stream: bool) -> None:
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "hello"}], tokenize=False, add_generation_prompt=True)
    token_ids = generate(prompt, 20)
    assert tokenizer.eos_token_id not in token_ids

    answer = client.chat("hello", max_tokens=20, stream=stream)

    assert answer.text == decode(tokenizer, token_ids)
    assert answer.num_prompt_tokens == len(tokenizer(prompt)["input_ids"])


def test_messages_reach_the_template_in_their_order(wide: ModelClient, tokenizer: Any) -> None:
    messages: Any = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]},
        {"role": "assistant", "content": "yes?"},
        {"role": "user", "content": "quick fox"},
    ]
    joined = [*messages[:1], {"role": "user", "content": "hello"}, *messages[2:]]
    prompt = tokenizer.apply_chat_template(joined, tokenize=False, add_generation_prompt=True)

    completion = wide.openai.chat.completions.create(model="wide", messages=messages, max_tokens=8, temperature=0)

    assert completion.choices[0].message.role == "assistant"
    assert completion.choices[0].message.content == wide.complete(prompt, max_tokens=8).text


def test_a_prompt_of_token_ids_is_the_same_prompt(wide: ModelClient, tokenizer: Any) -> None:
    completion = wide.openai.completions.create(model="wide", prompt=tokenizer(PROMPT)["input_ids"], max_tokens=8, temperature=0)

    assert completion.choices[0].text == wide.complete(PROMPT, max_tokens=8).text


@pytest.mark.parametrize("stream", [False, True])
def test_the_end_token_ends_and_is_counted(client: ModelClient, generate: Generate, tokenizer: Any, stream: bool) -> None:
    token_ids = generate(ENDING_PROMPT, 20)
    end = token_ids.index(tokenizer.eos_token_id)

    answer = client.complete(ENDING_PROMPT, max_tokens=20, stream=stream)
    endless = client.complete(ENDING_PROMPT, max_tokens=20, stream=stream, ignore_eos=True)

    assert (answer.text, answer.finish_reason, answer.num_tokens) == (decode(tokenizer, token_ids[:end]), "stop", end + 1)
    assert (endless.text, endless.finish_reason, endless.num_tokens) == (decode(tokenizer, token_ids), "length", 20)


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_token_ends_and_is_no_text(client: ModelClient, generate: Generate, tokenizer: Any, stream: bool) -> None:
    token_ids = generate(PROMPT, 40)
    end = max(token_ids.index(token_id) for token_id in token_ids)

    answer = client.complete(PROMPT, max_tokens=40, stream=stream, stop_token_ids=[token_ids[end]])

    assert (answer.text, answer.finish_reason, answer.num_tokens) == (decode(tokenizer, token_ids[:end]), "stop", end + 1)


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_string_ends_and_is_cut_out(client: ModelClient, stream: bool) -> None:
    text = client.complete(PROMPT, max_tokens=40).text
    stop = text[len(text) // 2 :][:4]
    begin = text.index(stop)

    answer = client.complete(PROMPT, max_tokens=40, stream=stream, stop=["never in this text", stop])

    assert (answer.text, answer.finish_reason) == (text[:begin], "stop")
    assert client.complete(PROMPT, max_tokens=answer.num_tokens).text.startswith(text[:begin])
    assert stop not in client.complete(PROMPT, max_tokens=answer.num_tokens - 1).text


@pytest.mark.parametrize("stream", [False, True])
def test_a_seed_reproduces_and_another_differs(client: ModelClient, stream: bool) -> None:
    def sample(seed: int) -> str:
        return client.complete(PROMPT, max_tokens=30, stream=stream, temperature=1.2, top_p=0.95, top_k=50, seed=seed, ignore_eos=True).text

    assert sample(1) == sample(1) != sample(2)


def test_without_a_limit_an_answer_ends_at_the_configured_length(wide: ModelClient) -> None:
    assert wide.complete(PROMPT, ignore_eos=True).num_tokens == 256


def test_the_models_list_names_the_one_model(client: ModelClient) -> None:
    assert [model.id for model in client.openai.models.list()] == [client.model]
    assert client.openai.models.retrieve(client.model).id == client.model


def test_a_model_of_another_name_is_not_found(client: ModelClient) -> None:
    with pytest.raises(openai.NotFoundError, match="another"):
        client.openai.completions.create(model="another", prompt=PROMPT)


@pytest.mark.parametrize("parameter", [{"echo": True}, {"suffix": "x"}, {"best_of": 3}, {"tools": [{"type": "function"}]}])
def test_what_is_not_supported_is_refused_by_name(client: ModelClient, parameter: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        client.complete(PROMPT, **parameter)

    assert refusal.value.param == next(iter(parameter))
