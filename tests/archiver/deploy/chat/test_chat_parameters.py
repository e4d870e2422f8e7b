"""What ``/set`` takes is what the server takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.deploy.chat.parameters import PARAMETERS, Number, read_setting
from archiver.errors import UsageError
from handlers.errors import InvalidRequest
from handlers.wire.schema import ChatBody
from handlers.wire.validation import validate

NUMBERS = [name for name, parameter in PARAMETERS.items() if isinstance(parameter, Number)]


def is_taken_by_the_server(name: str, value: object) -> bool:
    try:
        validate(ChatBody, {"messages": [{"role": "user", "content": "hi"}], name: value})
    except InvalidRequest:
        return False
    return True


@pytest.mark.parametrize("name", NUMBERS)
@given(st.data())
def test_a_number_is_taken_here_exactly_if_it_is_taken_there(name, data):
    parameter = PARAMETERS[name]
    assert isinstance(parameter, Number)
    edges = [parameter.low, parameter.low - 1, parameter.high, parameter.high + 1, 0]
    numbers = st.integers(-(2**70), 2**70) if parameter.kind is int else st.floats()
    value = data.draw(st.sampled_from([parameter.kind(edge) for edge in edges]) | numbers)
    try:
        assert read_setting(name, repr(value)) == value
    except UsageError:
        assert not is_taken_by_the_server(name, value)
    else:
        assert is_taken_by_the_server(name, value)


@pytest.mark.parametrize(
    ("text", "value"),
    [("END", "END"), ("a b", "a b"), ('"\\n"', "\n"), ('["a", "b"]', ["a", "b"]), ("7", "7"), ("[1]", "[1]"), ("{", "{")],
)
def test_stop_strings_as_they_are_or_in_json(text, value):
    assert read_setting("stop", text) == value
    assert is_taken_by_the_server("stop", value)


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("temprature", "1", "no parameter 'temprature': did you mean 'temperature'?"),
        ("xyz", "1", "no parameter 'xyz': there are temperature, top_p"),
        ("temperature", "3", "temperature is a number from 0 to 2, not '3'"),
        ("top_p", "0", "top_p is a number above 0 to 1, not '0'"),
        ("top_k", "1.5", "top_k is an integer from -1, not '1.5'"),
        ("seed", "x", "seed is an integer, not 'x'"),
        ("temperature", "", "temperature is a number from 0 to 2, not ''"),
        ("stop", "[]", "stop is text, or JSON"),
    ],
)
def test_a_mistake_is_named_with_what_would_be_right(name, text, complaint):
    with pytest.raises(UsageError, match=f"^{complaint.replace('?', '[?]')}"):
        read_setting(name, text)
