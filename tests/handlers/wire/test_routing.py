"""The route of a request, and what stands in for one at the bare URL."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.frontend import Incoming
from handlers.wire.routing import route_of

ROUTES = ("", "v1/chat/completions", "v1/completions", "v1/models")


@pytest.mark.parametrize(
    ("body", "route"),
    [
        ({"messages": []}, "v1/chat/completions"),
        ({"prompt": "hi"}, "v1/completions"),
        ({"inputs": "hi"}, ""),
        ({"inputs": "hi", "prompt": "hi"}, ""),
        ({"inputs": 'say "messages"'}, ""),
        (["messages"], ""),
        ({}, ""),
    ],
)
def test_a_body_at_the_bare_url_finds_its_route(body, route):
    incoming = Incoming("a", "", json.dumps(body).encode(), "application/json")
    assert route_of(incoming, ROUTES) == route
    assert route_of(incoming, ("",)) == ""  # a handler without the OpenAI API


def test_text_is_text():
    assert route_of(Incoming("a", "", b'{"messages": []}', "text/plain"), ROUTES) == ""


@given(st.binary() | st.just(b'{"messages":' + b"[" * 100_000), st.sampled_from(["", "v1/models", "elsewhere"]))
def test_nothing_that_is_sent_is_too_much(body, route):
    assert route_of(Incoming("a", route, body, "application/json"), ROUTES) in {route, *ROUTES}
    if route:
        assert route_of(Incoming("a", route, body, "application/json"), ROUTES) == route
