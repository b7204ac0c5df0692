"""One signed HTTP request to a subscriber, to an address that was checked at the moment of connecting.

Decides where may be called: a public address of an allowed host, never a private one, whatever the name resolves to
now; no redirect is followed and no proxy asked. Knows no database.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.client
import ipaddress
import json
import socket
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from schemas.errors import GovbusError

SIGNATURE, TIMESTAMP, KEY = "Govbus-Signature", "Govbus-Timestamp", "Idempotency-Key"
NAT64 = ipaddress.ip_network("64:ff9b::/96")
REFUSED = tuple(ipaddress.ip_network(network) for network in ("64:ff9b:1::/48", "fec0::/10", "::/96"))
"""Private too, though not every Python's registry says so: a translator's own (RFC 8215), site-local (RFC 3879) and
IPv4-compatible (RFC 4291) addresses.
"""
TOO_MANY = 429
"""The one 4xx that is not about this delivery: all of them come too fast."""


class Undelivered(GovbusError):
    """The subscriber did not take it; the text says why and holds nothing of the alert or the answer."""


class Refused(Undelivered):
    """The subscriber is there and does not take this one; it may take another."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """A subscriber: where, and what both sides sign with. ``timeout_s`` is for the whole call; ``loopback`` lets it be
    this machine (tests).
    """

    channel: str
    url: str
    secret: bytes
    hosts: frozenset[str]
    timeout_s: float = 10.0
    loopback: bool = False


def signature(secret: bytes, timestamp: int, body: bytes) -> str:
    """``v1=`` and the hex HMAC-SHA-256 of ``<timestamp>.<body>``; ``timestamp`` in epoch seconds."""
    return "v1=" + hmac.new(secret, f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()


def post(hook: Webhook, key: str, alert: Mapping[str, Any], now_ms: int) -> None:
    """Deliver ``alert`` under the idempotency key ``key``; returns if the subscriber answered 2xx, else raises
    ``Undelivered``.
    """
    body = json.dumps(alert, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
    headers = {
        "Content-Type": "application/json; charset=utf-8",
        "User-Agent": "govbus",
        KEY: key,
        TIMESTAMP: str(now_ms // 1000),
        SIGNATURE: signature(hook.secret, now_ms // 1000, body),
    }
    status = _status(hook, body, headers)
    if not 200 <= status < 300:
        why = ", no redirect is followed" if status // 100 == 3 else ""
        fault = Refused if status // 100 == 4 and status != TOO_MANY else Undelivered
        raise fault(f"the subscriber answered {status}{why}")


def _status(hook: Webhook, body: bytes, headers: Mapping[str, str]) -> int:
    try:
        parts = urlsplit(hook.url)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return _answered(_connection(hook, parts), path, body, headers)
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: an address that cannot be called
        raise Undelivered(f"no answer ({type(error).__name__})") from None


def _connection(hook: Webhook, parts: SplitResult) -> _Checked:
    host = parts.hostname or ""
    secure = parts.scheme == "https"
    if host not in hook.hosts or not (secure or hook.loopback):
        raise Undelivered("the address is not allowed")
    port = parts.port or (443 if secure else 80)
    return _Checked(host, port, hook.timeout_s, ssl.create_default_context() if secure else None, hook.loopback)


def _answered(connection: _Checked, path: str, body: bytes, headers: Mapping[str, str]) -> int:
    """The status of the answer; raises ``TimeoutError`` if the whole call takes too long."""
    deadline = threading.Timer(connection.limit_s, connection.cut)
    deadline.start()
    try:
        connection.request("POST", path, body, dict(headers))
        return connection.getresponse().status  # what follows the head says nothing more, and need not end
    finally:
        deadline.cancel()
        connection.close()
        connection.must_be_in_time()  # says what was wrong in the place of whatever the cut looked like


class _Checked(http.client.HTTPConnection):
    """A connection to an address that was resolved and checked just now; the certificate is checked for the name.

    ``limit_s`` bounds each wait for the peer, ``cut`` all of them together: a peer that sends a byte now and then would
    hold its delivery's transaction for hours. Only resolving the name is bounded by the system alone.
    """

    def __init__(self, host: str, port: int, limit_s: float, tls: ssl.SSLContext | None, loopback: bool) -> None:
        super().__init__(host, port, timeout=limit_s)
        self.limit_s = limit_s
        self._tls, self._loopback = tls, loopback
        self._line: socket.socket | None = None
        self._late = False

    def connect(self) -> None:
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        addresses = [str(address[4][0]) for address in found]
        if not addresses or not all(allowed(a, self._loopback) for a in addresses):
            raise Undelivered("the host resolves to an address that may not be called")
        line = socket.create_connection((addresses[0], self.port), self.limit_s)
        if self._tls is not None:
            line = self._tls.wrap_socket(line, server_hostname=self.host, do_handshake_on_connect=False)
        self.sock = self._line = line
        self.must_be_in_time()  # the cut may have come when there was nothing to cut yet
        if isinstance(line, ssl.SSLSocket):
            line.do_handshake()

    def cut(self) -> None:
        """End the call where it stands; for another thread than the caller's, whose wait ends by it."""
        self._late = True
        if self._line is not None:
            with contextlib.suppress(OSError):  # closed already
                # not TLS's own, which changes what the caller's thread is using
                socket.socket.shutdown(self._line, socket.SHUT_RDWR)

    def must_be_in_time(self) -> None:
        """Raises ``TimeoutError`` once the call was cut."""
        if self._late:
            raise TimeoutError


def allowed(address: str, loopback: bool) -> bool:
    """Whether an IP address is a public one (IANA's registries), or this machine where ``loopback`` says so."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ip.ipv4_mapped or ip.sixtofour or (ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in NAT64 else ip)
    public = ip.is_global and not ip.is_multicast and not any(ip in network for network in REFUSED)
    return public or (loopback and ip.is_loopback)
