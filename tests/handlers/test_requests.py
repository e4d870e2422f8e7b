"""A request's own rules: failing, limits, and the author's map over its text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.errors import Failed, InvalidRequest
from handlers.requests import Request, SamplingParams


@pytest.mark.parametrize(("status", "kind"), [(400, InvalidRequest), (418, InvalidRequest), (500, Failed), (599, Failed)])
def test_fail_ends_a_request_with_a_status(status: int, kind: type) -> None:
    request = Request()
    request.fail(status, "because")

    assert isinstance(request.error, kind)
    assert (request.error.status, request.error.message, request.is_finished) == (status, "because", True)


@pytest.mark.parametrize("status", [0, 200, 399, 600])
def test_fail_takes_no_status_of_success(status: int) -> None:
    with pytest.raises(ValueError, match="400 to 599"):
        Request().fail(status, "because")


@given(
    num_prompt_tokens=st.integers(0, 30),
    asked=st.none() | st.integers(1, 2**31 - 1),
    default=st.integers(1, 30),
    max_model_len=st.integers(1, 30),
)
def test_a_settled_limit_fits_the_window(num_prompt_tokens: int, asked: int | None, default: int, max_model_len: int) -> None:
    request = Request(prompt_token_ids=[1] * num_prompt_tokens, params=SamplingParams(max_tokens=asked))
    room = max_model_len - num_prompt_tokens
    try:
        request.limit_tokens(default, max_model_len)
    except InvalidRequest as error:
        assert (asked or 1) > room
        assert (error.code, error.status) == ("context_length_exceeded", 400)
        return
    assert request.params.max_tokens == (asked if asked is not None else min(default, room))
    assert request.params.max_tokens
    assert num_prompt_tokens + request.params.max_tokens <= max_model_len


def test_a_minimum_is_room_that_must_be_there() -> None:
    request = Request(prompt_token_ids=[1] * 5, params=SamplingParams(min_tokens=8))
    request.limit_tokens(4, 20)
    assert request.params.max_tokens == 8
    with pytest.raises(InvalidRequest, match="max_tokens is 8"):
        Request(prompt_token_ids=[1] * 5, params=SamplingParams(min_tokens=8)).limit_tokens(4, 12)


def test_choices_have_names_seeds_and_authors_values_of_their_own() -> None:
    request = Request(id="r", n=3, index=6, params=SamplingParams(seed=2**63 - 2), prompt_token_ids=[1, 2])
    request.extra["x"] = 1

    first, second, third = request.choices()
    second.extra["x"], second.fields["y"] = 2, 3
    second.tokens.append(None)  # type: ignore[arg-type]

    assert first is request
    assert [choice.sequence_id for choice in (first, second, third)] == ["r#6", "r#7", "r#8"]
    assert [choice.params.seed for choice in (first, second, third)] == [2**63 - 2, 2**63 - 1, -(2**63)]
    assert [choice.is_first_choice for choice in (first, second, third)] == [True, False, False]
    assert (first.extra, third.extra, first.fields, first.tokens) == ({"x": 1}, {"x": 1}, {}, [])
    assert Request(id="r").choices()[0].sequence_id == "r"
    assert [choice.params.seed for choice in Request(n=2).choices()] == [None, None]


def test_map_text_reaches_every_message_or_the_prompt() -> None:
    chat = Request(messages=[{"role": "system", "content": "a"}, {"role": "user", "content": "b", "name": "n"}])
    chat.map_text(str.upper)
    assert chat.messages == [{"role": "system", "content": "A"}, {"role": "user", "content": "B", "name": "n"}]

    completion = Request(prompt="a")
    completion.map_text(str.upper)
    assert completion.prompt == "A"


def test_temperature_zero_is_greedy() -> None:
    assert SamplingParams(temperature=0.0).is_greedy
    assert not SamplingParams(temperature=0.01).is_greedy
