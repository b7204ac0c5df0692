"""Identity and CloudEvents headers of an event (binary mode). Decides ids and headers; reads no clock, no
broker.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from schemas.codec import FRAME_BYTES
from schemas.topics import Topic

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "govbus.heshan.gov.cn")
CONTENT_TYPE = b"application/vnd.confluent.avro"
Headers = list[tuple[str, bytes]]


def event_id(topic: Topic, record: Mapping[str, Any]) -> uuid.UUID:
    """The deterministic id (UUIDv5) of an event: topic, region, department and the identity fields."""
    parts = [topic.name, record["region"], record["department"], *(record[f] for f in topic.identity)]
    return derived_id(*parts)


def derived_id(*parts: object) -> uuid.UUID:
    """UUIDv5 of the parts joined by a unit separator, which no code contains."""
    return uuid.uuid5(NAMESPACE, "\x1f".join(str(p) for p in parts))


def digest(value: bytes) -> uuid.UUID:
    """First 16 bytes of the value's SHA-256, kept as a UUID: what reconciliation compares. ``value`` is
    framed Avro.
    """
    return uuid.UUID(bytes=hashlib.sha256(value).digest()[:16])


def without_receipt(value: bytes) -> bytes:
    """The framed Avro ``value`` as it would be if ``received_at`` were 0: what sameness is judged by.

    Every contract begins with the envelope, so the field's bytes are found by stepping over those before it.
    ``value`` must come from ``schemas.codec.encode``.
    """
    at = FRAME_BYTES
    for _ in ("event_id", "event_type", "region", "department"):
        at = _after_text(value, at)
    at = _after_text(value, _after_number(value, at))  # occurred_at, occurred_text
    at = at + 1 if value[at] == 0 else _after_number(value, at + 1)  # entered_at: null, or a number
    return value[:at] + b"\x00" + value[_after_number(value, at) :]


def _after_number(value: bytes, at: int) -> int:
    while value[at] & 0x80:
        at += 1
    return at + 1


def _after_text(value: bytes, at: int) -> int:
    end = _after_number(value, at)
    zigzag = sum((byte & 0x7F) << 7 * n for n, byte in enumerate(value[at:end]))
    return end + (zigzag >> 1)


def headers(topic: Topic, record: Mapping[str, Any]) -> Headers:
    """CloudEvents 1.0 binary-mode headers of ``record`` (its times epoch ms UTC). No personal data."""
    occurred = datetime.fromtimestamp(record["occurred_at"] / 1000, UTC)
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", str(record["event_id"]).encode()),
        ("ce_source", f"/{record['region']}/{record['department']}".encode()),
        ("ce_type", f"cn.govbus.{record['event_type']}.v1".encode()),
        ("ce_time", occurred.isoformat(timespec="milliseconds").replace("+00:00", "Z").encode()),
        ("ce_subject", str(record[topic.key]).encode()),
        ("content-type", CONTENT_TYPE),
    ]
