"""What each route makes of a body: the request it stands for, or a 4xx that names what is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.exchange import open_exchange
from handlers.frontend import Incoming
from handlers.requests import Request, SamplingParams
from handlers.wire.chat import ChatCodec
from handlers.wire.completions import CompletionCodec
from handlers.wire.models import ModelsCodec
from handlers.wire.prediction import PredictionCodec

DEFAULTS = SamplingParams(temperature=0.7, top_p=0.9, top_k=40)
CHAT, COMPLETIONS, MODELS, BARE = "v1/chat/completions", "v1/completions", "v1/models", ""
ROUTES = {
    CHAT: ChatCodec("tiny", DEFAULTS),
    COMPLETIONS: CompletionCodec("tiny", DEFAULTS),
    MODELS: ModelsCodec("tiny", created_s=1.0),
    BARE: PredictionCodec("tiny", DEFAULTS),
}
USER = {"role": "user", "content": "hi"}
SAMPLED = {CHAT: {"messages": [USER]}, COMPLETIONS: {"prompt": "hi"}}


def decode(route: str, body: Any, content_type: str = "application/json") -> Request:
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    return decode_all(route, payload, content_type)[0]


def decode_all(route: str, payload: bytes, content_type: str = "application/json") -> list[Request]:
    return open_exchange(Incoming("id1", route, payload, content_type, {"x-user": "me"}), ROUTES, can_stream=True).requests


def refusal(route: str, body: Any, content_type: str = "application/json") -> dict[str, Any]:
    error = decode(route, body, content_type).error
    assert error is not None and error.status == 400, error
    return dict(error.body()["error"])


def chat(**params: Any) -> dict[str, Any]:
    return {"messages": [USER], **params}


class TestValid:
    def test_every_request_knows_where_it_came_from(self) -> None:
        for route, body in (*SAMPLED.items(), (BARE, {"inputs": "hi"}), (BARE, b"{"), (MODELS, b""), ("nowhere", b"")):
            request = decode(route, body)
            assert (request.id, request.route, request.headers) == ("id1", route, {"x-user": "me"})

    def test_chat_messages_reach_the_template_in_their_order(self) -> None:
        parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
        given = [{"role": "system", "content": "s"}, USER | {"name": "Ann"}, {"role": "assistant", "content": parts}]

        request = decode(CHAT, {"messages": given})

        assert request.messages == [*given[:2], {"role": "assistant", "content": "ab"}]
        assert request.prompt is None

    def test_a_message_that_the_openai_client_returned_may_be_sent_again(self) -> None:
        from openai.types.chat import ChatCompletionMessage

        message = ChatCompletionMessage(role="assistant", content="hello").model_dump()

        assert decode(CHAT, {"messages": [USER, message]}).messages == [USER, {"role": "assistant", "content": "hello"}]

    def test_a_completion_prompt_is_text_or_token_ids(self) -> None:
        assert decode(COMPLETIONS, {"prompt": "hi"}).prompt == "hi"
        assert decode(COMPLETIONS, {"prompt": [5, 6]}).prompt_token_ids == [5, 6]
        assert decode(COMPLETIONS, {"prompt": [5, 6]}).prompt is None

    @pytest.mark.parametrize("route", [CHAT, COMPLETIONS])
    def test_sampling_parameters_override_the_checkpoints_defaults(self, route: str) -> None:
        given = {"temperature": 0, "seed": -3, "stop": "x", "top_k": -1, "stop_token_ids": [7], "ignore_eos": True, "max_tokens": 9}

        params = decode(route, SAMPLED[route] | given).params

        assert params == SamplingParams(9, temperature=0.0, top_p=0.9, top_k=0, seed=-3, stop=("x",), stop_token_ids=(7,), ignore_eos=True)
        assert decode(route, SAMPLED[route]).params == DEFAULTS

    @pytest.mark.parametrize("route", [CHAT, COMPLETIONS])
    def test_the_engines_other_parameters(self, route: str) -> None:
        penalties = {"repetition_penalty": 1.1, "presence_penalty": -2, "frequency_penalty": 0.5}
        given = {
            "min_p": 0.1,
            "min_tokens": 3,
            "logit_bias": {"5": -100, "12": 1.5},
            "n": 4,
            "priority": -7,
            "max_queue_s": 2.5,
        } | penalties

        request = decode(route, SAMPLED[route] | given)

        assert request.params == replace(DEFAULTS, min_p=0.1, min_tokens=3, logit_bias=((5, -100.0), (12, 1.5)), **penalties)
        assert (request.n, request.priority, request.max_queue_s) == (4, -7, 2.5)
        plain = decode(route, SAMPLED[route])
        assert (plain.n, plain.priority, plain.max_queue_s) == (1, 0, None)

    @pytest.mark.parametrize(
        ("route", "given", "logprobs"),
        [
            (CHAT, {}, None),
            (CHAT, {"logprobs": False, "top_logprobs": 0}, None),
            (CHAT, {"logprobs": True}, 0),
            (CHAT, {"logprobs": True, "top_logprobs": 20}, 20),
            (COMPLETIONS, {"logprobs": None}, None),
            (COMPLETIONS, {"logprobs": 0}, 0),
            (COMPLETIONS, {"logprobs": 20}, 20),
        ],
    )
    def test_log_probabilities_have_two_dialects(self, route: str, given: dict[str, Any], logprobs: int | None) -> None:
        assert decode(route, SAMPLED[route] | given).params.logprobs == logprobs

    def test_a_completion_may_have_several_prompts(self) -> None:
        texts = decode_all(COMPLETIONS, b'{"prompt": ["a", "b"], "n": 2, "best_of": 2}')
        ids = decode_all(COMPLETIONS, b'{"prompt": [[1, 2], [3]]}')

        assert [(request.prompt, request.n) for request in texts] == [("a", 2), ("b", 2)]
        assert [(request.prompt, request.prompt_token_ids) for request in ids] == [(None, [1, 2]), (None, [3])]
        assert texts[0].params == texts[1].params

    def test_the_newer_name_of_max_tokens_wins(self) -> None:
        assert decode(CHAT, chat(max_completion_tokens=5, max_tokens=7)).params.max_tokens == 5

    def test_usage_is_included_only_in_a_stream_that_asks_for_it(self) -> None:
        assert decode(CHAT, chat(stream=True, stream_options={"include_usage": True})).include_usage
        assert not decode(CHAT, chat(stream=True)).include_usage
        assert not decode(CHAT, chat(stream_options={"include_usage": True})).include_usage

    @pytest.mark.parametrize(
        "neutral",
        [
            {"n": 1, "logprobs": False, "presence_penalty": 0.0, "logit_bias": {}, "tools": [], "tool_choice": "auto", "user": "u"},
            {
                "n": None,
                "logprobs": None,
                "min_p": None,
                "logit_bias": None,
                "tools": None,
                "response_format": None,
                "stop": None,
                "seed": None,
                "max_tokens": None,
            },
            {"response_format": {"type": "text"}, "metadata": {"a": "b"}, "store": False, "modalities": ["text"], "service_tier": "auto"},
        ],
    )
    def test_parameters_that_ask_for_nothing_are_accepted(self, neutral: dict[str, Any]) -> None:
        assert decode(CHAT, chat(**neutral)).error is None

    def test_plain_text_is_a_prompt(self) -> None:
        for content_type in ("text/plain", "text/plain; charset=utf-8", ""):
            request = decode(BARE, "grüß dich".encode(), content_type)
            assert (request.prompt, request.params, request.content_type[:10]) == ("grüß dich", DEFAULTS, "text/plain")

    def test_json_without_a_content_type_is_recognized(self) -> None:
        assert decode(BARE, {"inputs": "hi"}, "").prompt == "hi"
        assert decode(BARE, {"inputs": "hi"}, "text/plain").prompt == '{"inputs": "hi"}'

    @pytest.mark.parametrize(
        ("parameters", "temperature"),
        [({}, 0.0), ({"do_sample": False}, 0.0), ({"do_sample": True}, 0.7), ({"top_p": 0.5}, 0.7), ({"temperature": 1.5}, 1.5)],
    )
    def test_text_generation_inference_samples_only_when_asked(self, parameters: dict[str, Any], temperature: float) -> None:
        assert decode(BARE, {"inputs": "hi", "parameters": parameters}).params.temperature == temperature

    def test_do_sample_samples_where_the_default_is_greedy(self) -> None:
        codec = PredictionCodec("tiny", SamplingParams(temperature=0.0))
        body = json.dumps({"inputs": "hi", "parameters": {"do_sample": True}}).encode()

        assert codec.decode(Incoming("id", body=body))[0].params.temperature == 1.0

    def test_text_generation_inference_reports_tokens_with_its_details(self) -> None:
        def logprobs(stream: bool = False, **parameters: Any) -> int | None:
            return decode(BARE, {"inputs": "hi", "stream": stream, "parameters": parameters}).params.logprobs

        assert logprobs() is None and logprobs(top_n_tokens=3) is None
        assert (logprobs(details=True), logprobs(details=True, top_n_tokens=3)) == (0, 3)
        assert logprobs(stream=True, details=True) is None

    def test_the_model_list_needs_no_body(self) -> None:
        assert decode(MODELS, b"").is_finished and decode(MODELS, b"").error is None


MALFORMED = {
    "nothing": b"",
    "cut off": b'{"prompt": ',
    "not UTF-8": b'{"prompt": "\xff"}',
    "not an object": b"[]",
    "NaN": b'{"prompt": "x", "temperature": NaN}',
    "Infinity": b'{"prompt": "x", "temperature": -Infinity}',
    "NaN where anything goes": b'{"prompt": "x", "metadata": {"a": NaN}}',
    "deep arrays": b'{"prompt": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    "deep objects": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "a deep array without an end": b"[" * 100_000,
    "a number of 5000 digits": b'{"prompt": 1' + b"0" * 5000 + b"}",
    "a lone surrogate": b'{"prompt": "\\ud800"}',
    "a lone surrogate in a name": b'{"prompt": "x", "\\udfff": 1}',
    "an escaped NUL": b'{"prompt": "a\\u0000"}',
    "a raw NUL": b'{"prompt": "a\x00"}',
    "a key twice": b'{"prompt": "x", "prompt": "y"}',
    "a key twice, deeper": b'{"prompt": "x", "stream_options": {"include_usage": true, "include_usage": false}}',
}


@pytest.mark.parametrize("route", [CHAT, COMPLETIONS, BARE])
@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_malformed_json_is_refused(route: str, body: bytes) -> None:
    error = refusal(route, body)

    assert error["type"] == "invalid_request_error"
    assert error["param"] is None, "refused for another reason"


def test_escapes_that_only_look_dangerous_are_text() -> None:
    assert decode(COMPLETIONS, b'{"prompt": "\\ud83d\\ude00 \\\\u0000"}').prompt == "😀 \\u0000"


@pytest.mark.parametrize("body", [b"a\0b", b"\xff", b"   "])
def test_plain_text_must_be_text(body: bytes) -> None:
    assert refusal(BARE, body, "text/plain")


WRONG_SAMPLING = [
    ("max_tokens", 0, "max_tokens"),
    ("max_tokens", -1, "max_tokens"),
    ("max_tokens", 10**30, "max_tokens"),
    ("max_tokens", 1e9, "max_tokens"),
    ("max_tokens", True, "max_tokens"),
    ("max_tokens", "5", "max_tokens"),
    ("temperature", -0.1, "temperature"),
    ("temperature", 2.1, "temperature"),
    ("temperature", "1", "temperature"),
    ("temperature", 10**400, "temperature"),
    ("top_p", 0, "top_p"),
    ("top_p", 1.1, "top_p"),
    ("top_k", -2, "top_k"),
    ("top_k", 0.5, "top_k"),
    ("seed", 2**63, "seed"),
    ("stop", 5, "stop"),
    ("stop", "", "stop"),
    ("stop", ["a", ""], "stop.1"),
    ("stop", ["a"] * 17, "stop"),
    ("stop_token_ids", [-1], "stop_token_ids.0"),
    ("stream", "yes", "stream"),
    ("stream_options", {"include_usage": 1}, "stream_options.include_usage"),
    ("stream_options", {"foo": 1}, "stream_options.foo"),
    ("stream_options", [], "stream_options"),
    ("foo", 1, "foo"),
    ("foo", None, "foo"),
    ("n", 0, "n"),
    ("n", 17, "n"),
    ("n", True, "n"),
    ("best_of", 3, "best_of"),
    ("echo", True, "echo"),
    ("logprobs", -1, "logprobs"),
    ("logprobs", 21, "logprobs"),
    ("logprobs", "yes", "logprobs"),
    ("top_logprobs", 2, "top_logprobs"),
    ("min_p", 1.1, "min_p"),
    ("repetition_penalty", 0, "repetition_penalty"),
    ("presence_penalty", 2.1, "presence_penalty"),
    ("frequency_penalty", -2.1, "frequency_penalty"),
    ("logit_bias", {"1": 101}, "logit_bias"),
    ("logit_bias", {"the": 1}, "logit_bias"),
    ("logit_bias", {"-1": 1}, "logit_bias"),
    ("logit_bias", [[1, 5]], "logit_bias"),
    ("logit_bias", {str(number): 1 for number in range(1025)}, "logit_bias"),
    ("min_tokens", -1, "min_tokens"),
    ("priority", 0.5, "priority"),
    ("max_queue_s", 0, "max_queue_s"),
    ("max_queue_s", "soon", "max_queue_s"),
    ("tools", [{"type": "function"}], "tools"),
    ("response_format", {"type": "json_object"}, "response_format"),
    ("reasoning_effort", "high", "reasoning_effort"),
    ("x" * 5000, 1, "x" * 200),
]


@pytest.mark.parametrize("route", [CHAT, COMPLETIONS])
@pytest.mark.parametrize(("name", "value", "param"), WRONG_SAMPLING)
def test_a_wrong_parameter_is_named(route: str, name: str, value: Any, param: str) -> None:
    error = refusal(route, SAMPLED[route] | {name: value})

    assert error["param"] == param
    assert error["message"].startswith(param)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [USER] * 10_001}, "messages"),
        ({"messages": [USER | {"content": [{"type": "text", "text": ""}] * 1001}]}, "messages.0.content"),
        ({"messages": ["hi"]}, "messages.0"),
        ({"messages": [{}]}, "messages.0.role"),
        ({"messages": [USER, {"role": "user"}]}, "messages.1.content"),
        ({"messages": [USER | {"content": None}]}, "messages.0.content"),
        ({"messages": [USER | {"role": "king"}]}, "messages.0.role"),
        ({"messages": [USER | {"mood": "good"}]}, "messages.0.mood"),
        ({"messages": [USER | {"tool_calls": [{"id": "1"}]}]}, "messages.0.tool_calls"),
        ({"messages": [USER | {"content": [{"type": "text"}]}]}, "messages.0.content.0.text"),
        ({"messages": [USER | {"content": [{"type": "image_url", "image_url": {}}]}]}, "messages.0.content.0.image_url"),
    ],
)
def test_a_wrong_message_is_named(body: dict[str, Any], param: str) -> None:
    assert refusal(CHAT, body)["param"] == param


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "inputs"),
        ({"inputs": None}, "inputs"),
        ({"inputs": ["a"]}, "inputs"),
        ({"inputs": "a", "parameters": []}, "parameters"),
        ({"inputs": "a", "parameters": {"max_new_tokens": 0}}, "parameters.max_new_tokens"),
        ({"inputs": "a", "parameters": {"max_tokens": 5}}, "parameters.max_tokens"),
        ({"inputs": "a", "parameters": {"repetition_penalty": 0}}, "parameters.repetition_penalty"),
        ({"inputs": "a", "parameters": {"best_of": 2}}, "parameters.best_of"),
        ({"inputs": "a", "parameters": {"decoder_input_details": True}}, "parameters.decoder_input_details"),
        ({"inputs": "a", "parameters": {"top_n_tokens": 21}}, "parameters.top_n_tokens"),
        ({"inputs": "a", "parameters": {"grammar": {"type": "json"}}}, "parameters.grammar"),
        ({"inputs": "a", "stream": 1}, "stream"),
        ({"inputs": "a", "max_new_tokens": 5}, "max_new_tokens"),
    ],
)
def test_a_wrong_text_generation_inference_body_is_named(body: dict[str, Any], param: str) -> None:
    assert refusal(BARE, body)["param"] == param


@pytest.mark.parametrize("prompt", [None, 5, [], ["a", 5], ["a"] * 65, [-1], [1.5], [2**31], [[1, 2], []], [[1], "a"], {}])
def test_a_wrong_prompt_is_named(prompt: Any) -> None:
    assert refusal(COMPLETIONS, {"prompt": prompt})["param"].split(".")[0] == "prompt"


def test_unknown_and_unsupported_parameters_have_codes_of_their_own() -> None:
    assert refusal(CHAT, chat(foo=1))["code"] == "unknown_parameter"
    assert refusal(CHAT, chat(store=True))["code"] == "unsupported_parameter"
    assert refusal(CHAT, chat(store=True))["message"] == "store: not supported by this server; leave it out or send null or false"


def test_parameters_that_contradict_each_other_are_named() -> None:
    assert refusal(CHAT, chat(min_tokens=5, max_tokens=4))["param"] == "min_tokens"
    assert refusal(CHAT, chat(logprobs=False, top_logprobs=1))["param"] == "top_logprobs"
    assert refusal(COMPLETIONS, {"prompt": "a", "n": 2, "best_of": 1})["param"] == "best_of"
    assert refusal(COMPLETIONS, {"prompt": ["a"] * 33, "n": 2})["param"] == "prompt"


def test_another_model_is_not_found() -> None:
    error = decode(CHAT, chat(model="gpt-4")).error

    assert error is not None and (error.status, error.param, error.code) == (404, "model", "model_not_found")
    assert decode(CHAT, chat(model="tiny")).error is None


def test_an_unknown_route_is_not_found_and_lists_the_known_ones() -> None:
    error = decode("v1/embeddings", b"").error

    assert error is not None and error.status == 404
    assert all(route in error.message for route in (CHAT, COMPLETIONS, MODELS))


def test_millions_of_wrong_items_cost_one_complaint() -> None:
    # Without failing fast these bodies, well below TorchServe's limit, held up every client for more than a minute.
    for body in (b'{"messages":[' + b"1," * 100_000 + b"1]}", b'{"messages":[' + b"{}," * 100_000 + b"{}]}"):
        assert refusal(CHAT, body)["param"].startswith("messages.0")
    assert refusal(COMPLETIONS, b'{"prompt":[' + b"-1," * 100_000 + b"1]}")["param"] == "prompt.0"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None, exclude_categories=())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KNOWN_KEYS = [
    "messages",
    "prompt",
    "inputs",
    "parameters",
    "role",
    "content",
    "type",
    "text",
    "stop",
    "seed",
    "stream",
    "n",
    "logprobs",
    "tools",
]
keys = st.sampled_from(KNOWN_KEYS) | st.text(max_size=8)
bodies = st.dictionaries(keys, st.dictionaries(keys, json_values, max_size=4) | st.lists(json_values, max_size=3) | json_values, max_size=6)


@given(route=st.sampled_from([CHAT, COMPLETIONS, BARE]), body=bodies, content_type=st.sampled_from(["application/json", "", "text/plain"]))
def test_any_json_is_a_request_or_the_clients_mistake(route: str, body: dict[str, Any], content_type: str) -> None:
    error = decode(route, body, content_type).error

    assert error is None or 400 <= error.status < 500
    assert error is None or json.dumps(error.body())


@given(route=st.sampled_from([*ROUTES, "other"]), body=st.binary(max_size=200), content_type=st.text(max_size=20))
def test_any_bytes_are_a_request_or_the_clients_mistake(route: str, body: bytes, content_type: str) -> None:
    error = decode(route, body, content_type).error

    assert error is None or 400 <= error.status < 500
