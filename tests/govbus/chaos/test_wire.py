"""A wire carries, and does not where it is cut; what was sent meanwhile arrives when it is mended."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from govbus.chaos.wire import Wire

SHORT_S = 0.3


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that gives back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    found, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(found,), daemon=True).start()

        def answer(found: socket.socket) -> None:
            with found:
                while data := _received(found):
                    found.sendall(data)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]


def _received(found: socket.socket) -> bytes:
    try:
        return found.recv(1_000)
    except OSError:
        return b""


@pytest.fixture
def wire(echo: int) -> Iterator[Wire]:
    with Wire(lambda: echo) as made:
        yield made


def client(wire: Wire) -> socket.socket:
    return socket.create_connection(("127.0.0.1", wire.port), timeout=5)


def heard(found: socket.socket, seconds: float) -> bytes | None:
    """What comes within so many seconds; None if nothing does."""
    found.settimeout(seconds)
    try:
        return found.recv(1_000)
    except TimeoutError:
        return None


def ended_or_heard(found: socket.socket) -> bytes:
    """What comes; nothing if the connection has ended, in whichever way."""
    try:
        return heard(found, 5) or b""
    except ConnectionResetError:
        return b""


@pytest.mark.parametrize("mode", ["cut towards the server", "cut towards the client", "cut"])
def test_a_cut_holds_back_and_loses_nothing(wire: Wire, mode: str) -> None:
    with client(wire) as mine:
        mine.sendall(b"one")
        assert heard(mine, 5) == b"one"
        wire.set(mode)  # type: ignore[arg-type]
        mine.sendall(b"two")
        assert heard(mine, SHORT_S) is None
        wire.set("open")
        assert heard(mine, 5) == b"two"


def test_half_open_takes_connections_and_answers_none(wire: Wire) -> None:
    wire.set("half open")
    with client(wire) as mine:
        mine.sendall(b"one")
        assert heard(mine, SHORT_S) is None
        wire.set("open")
        assert heard(mine, 5) == b"one"


def test_refused_ends_connections_and_takes_no_new_ones(wire: Wire) -> None:
    with client(wire) as mine:
        mine.sendall(b"one")
        assert heard(mine, 5) == b"one"
        wire.set("refused")
        assert not ended_or_heard(mine)
        with pytest.raises(ConnectionRefusedError):
            client(wire)
    wire.set("open")
    with client(wire) as mine:
        mine.sendall(b"two")
        assert heard(mine, 5) == b"two"


def test_flapping_goes_and_comes_back(wire: Wire) -> None:
    wire.set("flapping")
    went, came = False, False
    for _ in range(400):
        try:
            with client(wire) as mine:
                mine.sendall(b"one")
                came = came or (went and heard(mine, 1) == b"one")
        except OSError:
            went = True
        if went and came:
            return
        threading.Event().wait(0.02)
    pytest.fail(f"went: {went}, came back: {came}")
