"""Addresses: what is one, what is none, and which are beside it."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.deploy.addresses import Address, neighbour, parse_address
from archiver.errors import UsageError


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1:8081", Address("http", "127.0.0.1", 8081)),
        ("https://models.example/predictions/bot/1.0", Address("https", "models.example", None)),
        ("http://[::1]:8081/", Address("http", "::1", 8081)),
        ("http://b\u00fccher.example:80", Address("http", "b\u00fccher.example", 80)),
    ],
)
def test_an_address_is_read(url, address):
    assert parse_address(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8081",
        "ftp://127.0.0.1:8081",
        "http://:8081",
        "http://127.0.0.1:8o81",
        "http://127.0.0.1:80810",
        "http://[::1:8081",
        "http://a..b:8081",
        f"http://{'a' * 64}:8081",
        "http://127.0.0.1:8081/\x00",
    ],
)
def test_what_is_no_address_is_said_to_be_none(url):
    with pytest.raises(UsageError, match="is no address of a server: write it as http://HOST:PORT"):
        parse_address(url)


@given(st.text(st.sampled_from("ab.:/[]@%#?1\u00df\u2026 \x00"), max_size=12))
def test_any_text_is_an_address_or_a_mistake(text):
    with contextlib.suppress(UsageError):
        assert parse_address(neighbour(f"http://{text}", 1)).port


def test_the_apis_beside_it_are_on_the_ports_beside_it():
    assert neighbour("http://127.0.0.1:8080/predictions", 1) == "http://127.0.0.1:8081"
    assert neighbour("http://[::1]:8082/metrics", -1) == "http://[::1]:8081"
    assert neighbour("http://127.0.0.1:65535", 2) == "http://127.0.0.1:65535"
