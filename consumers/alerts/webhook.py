"""One signed HTTP request to a subscriber, to an address that was checked at the moment of connecting.

Decides where may be called: a public address of an allowed host, never a private one, whatever the name resolves to
now; no redirect is followed and no proxy asked. Knows no database.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import ipaddress
import json
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from schemas.errors import GovbusError

SIGNATURE, TIMESTAMP, KEY = "Govbus-Signature", "Govbus-Timestamp", "Idempotency-Key"
NAT64 = ipaddress.ip_network("64:ff9b::/96")
MOST_READ = 1024
"""Bytes of an answer that are looked at: only the status counts."""


class Undelivered(GovbusError):
    """The subscriber did not take it; the text says why and holds nothing of the alert or the answer."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """A subscriber: where, and what both sides sign with. ``loopback`` lets it be this machine (tests)."""

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
        raise Undelivered(f"the subscriber answered {status}{why}")


def _status(hook: Webhook, body: bytes, headers: Mapping[str, str]) -> int:
    parts = urlsplit(hook.url)
    host = parts.hostname or ""
    secure = parts.scheme == "https"
    if host not in hook.hosts or not (secure or hook.loopback):
        raise Undelivered("the address is not allowed")
    port = parts.port or (443 if secure else 80)
    connection = _Checked(host, port, hook.timeout_s, ssl.create_default_context() if secure else None, hook.loopback)
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", path, body, dict(headers))
        answer = connection.getresponse()
        answer.read(MOST_READ)
        return answer.status
    except (OSError, http.client.HTTPException) as error:
        raise Undelivered(f"no answer ({type(error).__name__})") from None
    finally:
        connection.close()


class _Checked(http.client.HTTPConnection):
    """A connection to an address that was resolved and checked just now; the certificate is checked for the name."""

    def __init__(self, host: str, port: int, timeout: float, tls: ssl.SSLContext | None, loopback: bool) -> None:
        super().__init__(host, port, timeout=timeout)
        self._tls, self._loopback = tls, loopback

    def connect(self) -> None:
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        addresses = [str(address[4][0]) for address in found]
        if not addresses or not all(allowed(a, self._loopback) for a in addresses):
            raise Undelivered("the host resolves to an address that may not be called")
        plain = socket.create_connection((addresses[0], self.port), self.timeout)
        self.sock = plain if self._tls is None else self._tls.wrap_socket(plain, server_hostname=self.host)


def allowed(address: str, loopback: bool) -> bool:
    """Whether an IP address is a public one (IANA's registries), or this machine where ``loopback`` says so."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ip.ipv4_mapped or ip.sixtofour or (ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in NAT64 else ip)
    return (ip.is_global and not ip.is_multicast) or (loopback and ip.is_loopback)
