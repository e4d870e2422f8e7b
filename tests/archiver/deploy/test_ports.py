"""Five ports in a row: which are taken, and what is said about it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import astuple

import pytest

from archiver.deploy.ports import Ports, claim_ports
from archiver.deploy.settings import ServerSettings
from archiver.errors import UsageError


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_ports_follow_the_first():
    assert astuple(Ports.starting_at(8080)) == (8080, 8081, 8082, 8083, 8084)


@pytest.mark.parametrize("offset", range(5))
def test_names_the_one_in_use(taken, offset):
    with pytest.raises(UsageError, match=f"port {taken} is in use"):
        claim_ports(taken - offset)


def test_finds_free_ones():
    ports = claim_ports(0)
    assert claim_ports(ports.inference) == ports


def test_a_port_left_in_time_wait_is_free():
    ports = claim_ports(0)
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", ports.inference))
        listener.listen()
        with socket.create_connection(("127.0.0.1", ports.inference)) as client:
            served, _ = listener.accept()
            served.close()  # the server's end closes first and waits
            assert client.recv(1) == b""
    assert claim_ports(ports.inference) == ports


@pytest.mark.parametrize("port", [-1, 65532, 70000])
def test_out_of_range(port):
    with pytest.raises(UsageError, match="out of range"):
        claim_ports(port)


def test_an_address_of_another_machine_is_no_port_in_use():
    with pytest.raises(UsageError, match=r"cannot listen at 192\.0\.2\.1"):
        claim_ports(0, ServerSettings(host="192.0.2.1"))


def test_unknown_host():
    with pytest.raises(UsageError, match="no such address"):
        claim_ports(0, ServerSettings(host="no.such.host.invalid"))
