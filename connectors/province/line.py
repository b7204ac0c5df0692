"""The connection to the province, with a bound for a whole call and a whole answer: ``httpx`` bounds each wait alone,
and a peer that sends a byte now and then, or answer after answer that is none yet, would hold the push for days.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from schemas.receipts import NotAReceipt

TIMEOUT = httpx.Timeout(10.0, connect=3.0)
ANSWER_S, ANSWER_BYTES = 60.0, 8 * 1024 * 1024
"""How long a call may take from connecting to the answer's last byte, and how large an answer may be."""
PLAIN = {"Accept-Encoding": "identity"}
"""A few compressed bytes may stand for gigabytes."""


class Line:
    """What a client is connected by; ``trace`` is the ``httpx`` extension of that name for its requests."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._late = False

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Take note of the connection that was made."""
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self._socket = info["return_value"].get_extra_info("socket")
            if self._late:
                self._shut()

    @contextlib.contextmanager
    def bounded(self) -> Iterator[None]:
        """A call that is cut after ``ANSWER_S``; raises ``httpx.ReadTimeout`` in place of what the cut looked like."""
        self._late = False
        deadline = threading.Timer(ANSWER_S, self._cut)
        deadline.daemon = True
        deadline.start()
        try:
            yield
        finally:
            deadline.cancel()
            if self._late:
                raise httpx.ReadTimeout("the answer does not end")

    def _cut(self) -> None:
        self._late = True
        self._shut()

    def _shut(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):  # closed already
                # not TLS's own, which changes what the caller's thread is using
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


def read(response: httpx.Response) -> bytes:
    """The whole answer; raises ``NotAReceipt`` if it is compressed, or larger than any receipt."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise NotAReceipt("the answer is compressed, which was not asked for")
    content = bytearray()
    for piece in response.iter_raw():
        content += piece
        if len(content) > ANSWER_BYTES:
            raise NotAReceipt(f"the answer is over {ANSWER_BYTES} bytes")
    return bytes(content)
