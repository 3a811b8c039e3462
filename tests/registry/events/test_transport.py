"""Settings of the transport below a connection, and the search for it through all wrappers."""

from __future__ import annotations

import functools
import socket
import types
from collections.abc import Callable
from typing import Any

import pytest

from registry.events.socket import _send_at_once, _transport_of
from tests.registry.events.peer import Message, Peer


class Wire:
    """A socket that notes the options set on it."""

    def __init__(self, family: int, error: OSError | None = None) -> None:
        self.family = family
        self.options: list[tuple[int, int, int]] = []
        self._error = error

    def setsockopt(self, *option: int) -> None:
        if self._error is not None:
            raise self._error
        self.options.append(option)  # type: ignore[arg-type]


class WithWire:
    def __init__(self, wire: Wire | None) -> None:
        self._wire = wire

    def get_extra_info(self, name: str) -> Wire | None:
        return self._wire if name == "socket" else None


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
def test_small_messages_wait_for_no_receipt_on_an_internet_socket(family: int) -> None:
    wire = Wire(family)
    transport: Any = WithWire(wire)
    _send_at_once(transport)
    set_ = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
    assert wire.options == ([] if family == socket.AF_UNIX else set_)


def test_a_transport_without_a_socket_or_with_one_that_has_gone_is_left_as_it_is() -> None:
    for transport in (None, WithWire(None), WithWire(Wire(socket.AF_INET, OSError("gone")))):
        _send_at_once(transport)  # type: ignore[arg-type]


def test_no_transport_is_found_where_there_is_none() -> None:
    def itself(depth: int) -> Callable[[], Any]:
        def again() -> Any:
            return again, depth

        return again

    def reads() -> Any:
        return found

    found = None
    # As a function stands while the variables that it reads are not set yet.
    with_an_empty_cell = types.FunctionType(reads.__code__, {}, "reads", None, (types.CellType(),))
    for send in (None, 3, itself(1), with_an_empty_cell, functools.partial(itself(2))):
        assert _transport_of(send) is None


def test_the_transport_is_found_below_middleware() -> None:
    class Transport:
        def abort(self) -> None: ...

        def get_write_buffer_size(self) -> int:
            return 0

    class Server:
        transport = Transport()

        async def send(self, message: Message) -> None: ...

    server = Server()

    def wrapped(send: Any) -> Any:
        async def sender(message: Message) -> None:
            await send(message)

        return sender

    for send in (server.send, wrapped(server.send), functools.partial(wrapped(wrapped(server.send)))):
        assert id(_transport_of(send)) == id(server.transport)
    assert _transport_of(wrapped(Peer().send)) is None
