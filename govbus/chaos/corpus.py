"""Records that no department would send, made from a seed, each with what must become of it.

Every payload is a good record of an inbound topic, with an identity of its own, damaged in one way. What must become of
it is judged by Apache's ``avro`` package and the envelope's rules as written down, never by the product's decoders. A
damage that leaves a good record (a flipped bit in a text) is no poison and is made again.
"""

from __future__ import annotations

import io
import json
import math
import random
import struct
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import avro.io
import avro.schema

from schemas import codec, envelope, examples
from schemas.contracts import contract, event_types, schema_id, version
from schemas.topics import CALENDAR, INBOUND, ITEM, RATING, Topic

LIMIT = 256 * 1024
FIRST_MS = -2_208_988_800_000  # 1900-01-01 UTC
OTHER_TIMES = {
    "service.case.v1": ("special_started_at", "special_ended_at", "corrected_at", "verify_by"),
    "hotline.ticket.v1": ("due_at",), "supervision.behaviour.v1": ("reported_at",),
}  # fmt: skip
LAST_MS = 253_402_271_999_999  # the end of the year 9999 in Asia/Shanghai
BODY = frozenset({"malformed_avro", "not_canonical"})
"""What a body can be refused for; which of the two depends on where a reader stumbles."""
MARK = "QQQQ"
MARKED = b"\x08QQQQ"
Headers = tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True, slots=True)
class Payload:
    """A record for the log; ``damage`` names what was done to it."""

    topic: Topic
    key: bytes | None
    value: bytes | None
    headers: Headers
    damage: str = ""

    @property
    def body(self) -> bytes:
        """Behind the frame."""
        return (self.value or b"")[5:]


@dataclass(frozen=True, slots=True)
class Base:
    """A good record before it is damaged."""

    record: Mapping[str, Any]
    payload: Payload


Damage = Callable[[random.Random, Base], Payload]


def corpus(seed: int, count: int) -> Iterator[tuple[Payload, frozenset[str]]]:
    """``count`` payloads and the reasons for which each may be refused; every damage in turn."""
    rng = random.Random(seed)
    names = list(DAMAGES)
    for number in range(count):
        name = names[number % len(names)]
        while True:
            base = good(rng, f"{seed}-{number}")
            made = replace(DAMAGES[name](rng, base), damage=name)
            if reasons := judge(made):
                break
        yield made, reasons


# --- good records ---


@cache
def _examples(topic: Topic) -> tuple[dict[str, Any], ...]:
    return tuple(examples.load(topic).values())




def good(rng: random.Random, mark: str, topic: Topic | None = None) -> Base:
    """An example of any inbound topic under an identity that ``mark`` makes its own."""
    topic = topic or rng.choice(INBOUND)
    own = topic.key if topic is not CALENDAR else "revision"
    value: Any = f"POISON{mark}" if topic is not CALENDAR else 1_000 + int(mark.rpartition("-")[2])
    return _based(topic, {**rng.choice(_examples(topic)), "occurred_text": MARK, own: value})


def _based(topic: Topic, fields: Mapping[str, Any]) -> Base:
    record = {**fields, "event_id": str(envelope.event_id(topic, _whole(topic, fields)))}
    key = str(record[topic.key]).encode()
    return Base(record, Payload(topic, key, codec.encode(topic, record), tuple(envelope.headers(topic, record))))


def _whole(topic: Topic, fields: Mapping[str, Any]) -> dict[str, Any]:
    defaults = {f["name"]: f["default"] for f in contract(topic)["fields"] if "default" in f}
    return {**defaults, **fields}


# --- damages ---


def _value(base: Base, value: bytes | None) -> Payload:
    return replace(base.payload, value=value)


def _cut(rng: random.Random, base: Base) -> Payload:
    value = base.payload.value or b""
    return _value(base, value[: rng.randrange(5, len(value))])


def _flip(rng: random.Random, base: Base) -> Payload:
    value = bytearray(base.payload.value or b"")
    for _ in range(rng.choice((1, 1, 1, 8))):
        value[rng.randrange(len(value))] ^= 1 << rng.randrange(8)
    return _value(base, bytes(value))


def _twice(rng: random.Random, base: Base) -> Payload:
    other = good(rng, "other-1", base.payload.topic).payload.body
    return _value(base, (base.payload.value or b"") + rng.choice((b"\x00", other, rng.randbytes(20))))


def _overlong(_: random.Random, base: Base) -> Payload:
    """The first length with one byte more than it needs."""
    value = base.payload.value or b""
    return _value(base, value[:5] + bytes([value[5] | 0x80, 0]) + value[6:])


def varint(number: int) -> bytes:
    """Zigzag varint of any number of 64 bits."""
    rest, out = ((number << 1) ^ (number >> 63)) & (2**64 - 1), bytearray()
    while rest > 0x7F:
        out.append((rest & 0x7F) | 0x80)
        rest >>= 7
    return bytes([*out, rest])


CLAIMS = (2**62, 2**63 - 1, 2**40, 2**31, 2**31 - 1, 10**6, -1, -(2**31), -(2**63))


def _text_bomb(rng: random.Random, base: Base) -> Payload:
    """A text that claims to be longer than all there is."""
    value = base.payload.value or b""
    at = value.index(MARKED)
    return _value(base, value[:at] + varint(rng.choice(CLAIMS)) + value[at + 1 :])


def _array_bomb(rng: random.Random, base: Base) -> Payload:
    """An array that claims items without end, or in blocks without end."""
    rating = _rating(rng, base)
    value = rating.payload.value or b""
    at = value.index(b"\x02" + MARKED + b"\x00", value.index(MARKED) + 5)
    claim = rng.choice(CLAIMS)
    blocks = (
        varint(claim), varint(-abs(claim)) + varint(claim), (b"\x02" + MARKED) * 9_000 + b"\x02",
        b"\x01\x0a" + MARKED + b"\x02",
    )  # fmt: skip
    return _value(rating, value[:at] + rng.choice(blocks) + value[at + 1 :])


def _rating(rng: random.Random, base: Base) -> Base:
    fields = {**rng.choice(_examples(RATING)), "occurred_text": MARK, "tags": [MARK]}
    return _based(RATING, {**fields, "case_no": str(base.record["event_id"])})


def _huge(rng: random.Random, base: Base) -> Payload:
    """Larger than a value may be, by one byte or by much."""
    value = base.payload.value or b""
    size = rng.choice((LIMIT + 1, LIMIT + 100, 600_000, 900_000)) - len(value)
    at = value.index(MARKED)
    return _value(base, value[:at] + varint(4 + size) + b"Q" * size + value[at + 1 :])


def _foreign(rng: random.Random, base: Base) -> Payload:
    """Another topic's schema, or nobody's."""
    topic = base.payload.topic
    own = {schema_id(topic, number) for number in range(1, version(topic) + 1)}
    ids = [n for n in (*range(16), 1_000 + topic.schema_id, 65_535, 2**31, 2**32 - 1) if n not in own]
    return _value(base, b"\x00" + rng.choice(ids).to_bytes(4, "big") + base.payload.body)


def _unframed(rng: random.Random, base: Base) -> Payload:
    value = base.payload.value or b""
    other = (None, b"", value[: rng.randrange(1, 5)], b"\x01" + value[1:], json.dumps({"a": 1}).encode())
    return _value(base, rng.choice(other))


def _noise(rng: random.Random, base: Base) -> Payload:
    return _value(base, (base.payload.value or b"")[:5] + rng.randbytes(rng.randrange(1, 2_000)))


def _bad_text(rng: random.Random, base: Base) -> Payload:
    """U+0000, or bytes that are no UTF-8."""
    bad = (b"QQ\x00Q", b"\x00\x00\x00\x00", b"\xff\xfe\xff\xfe", b"\xed\xa0\x80Q", b"QQQ\xe4", b"\xf8\x88\x80\x80")
    return _value(base, (base.payload.value or b"").replace(MARKED, b"\x08" + rng.choice(bad), 1))


def _not_a_number(rng: random.Random, base: Base) -> Payload:
    fields = {**rng.choice(_examples(ITEM)), "promise_limit": 1234.5678, "item_code": str(base.record["event_id"])}
    item = _based(ITEM, fields)
    wrong = struct.pack("<d", rng.choice((math.nan, math.inf, -math.inf)))
    return _value(item, (item.payload.value or b"").replace(struct.pack("<d", 1234.5678), wrong, 1))


def _bad_time(rng: random.Random, base: Base) -> Payload:
    when = rng.choice((-1, -(2**62), LAST_MS + 1, 2**53, 2**63 - 1))
    fields = {**base.record, rng.choice(("occurred_at", "received_at", "entered_at")): when}
    topic = base.payload.topic
    fields["event_id"] = str(envelope.event_id(topic, _whole(topic, fields)))
    headers = _with(base.payload.headers, "ce_id", fields["event_id"].encode())
    return replace(base.payload, value=codec.encode(topic, fields), headers=headers)


def _other_id(rng: random.Random, base: Base) -> Payload:
    """An id that the identity does not give: in the header, or everywhere."""
    other = str(uuid.UUID(int=rng.getrandbits(128), version=5))
    headers = _with(base.payload.headers, "ce_id", rng.choice((other, other.upper(), "", "\x00")).encode())
    if rng.random() < 0.5:
        return replace(base.payload, headers=headers)
    value = codec.encode(base.payload.topic, {**base.record, "event_id": other})
    return replace(base.payload, value=value, headers=_with(base.payload.headers, "ce_id", other.encode()))


def _headers(rng: random.Random, base: Base) -> Payload:
    """Headers that are not there, twice there, empty, or say something else."""
    right = base.payload.headers
    name = rng.choice(("ce_id", "ce_source", "ce_type"))
    found: tuple[Headers, ...] = (
        (), tuple(h for h in right if h[0] != name), _with(right, name, None), _with(right, name, b"\xff\xfe"),
        (*right, (name, dict(right)[name])), (*right, (name, b"other")), ((name, b"other"), *right),
        _with(right, name, b"/000000/HS-NOSUCH"), (*right, *(("x", b"y"),) * 500, (name, b"")),
    )  # fmt: skip
    return replace(base.payload, headers=rng.choice(found))


def _with(headers: Headers, name: str, value: bytes | None) -> Headers:
    return tuple((n, value if n == name else v) for n, v in headers)


def _key(rng: random.Random, base: Base) -> Payload:
    right = base.payload.key or b""
    return replace(base.payload, key=rng.choice((None, b"", b"\xff\xfe", right + b"\x00", right[:-1], right * 40)))


def _type(rng: random.Random, base: Base) -> Payload:
    """An event of another topic, rightly signed otherwise."""
    topic = base.payload.topic
    other = rng.choice([t for t in INBOUND if t is not topic])
    return _based(topic, {**base.record, "event_type": rng.choice(event_types(other))}).payload


DAMAGES: Mapping[str, Damage] = {
    "cut off": _cut, "bits flipped": _flip, "more behind it": _twice, "overlong number": _overlong,
    "text bomb": _text_bomb, "array bomb": _array_bomb, "too large": _huge, "foreign schema": _foreign,
    "no frame": _unframed, "noise": _noise, "bad text": _bad_text, "not a number": _not_a_number,
    "impossible time": _bad_time, "another id": _other_id, "wrong headers": _headers, "wrong key": _key,
    "another topic's event": _type,
}  # fmt: skip


# --- what must become of it ---


def judge(payload: Payload) -> frozenset[str]:
    """The reasons of ``govbus.reason`` for which it may be refused; empty: it is a good record."""
    value, topic = payload.value or b"", payload.topic
    if len(value) > LIMIT:
        return frozenset({"too_large"})
    if len(value) < 5 or value[0]:
        return frozenset({"bad_framing"})
    if int.from_bytes(value[1:5], "big") != topic.schema_id:
        return frozenset({"unknown_schema"})
    try:
        record = _read(topic, payload.body)
    except Exception:
        return BODY
    if _written(topic, record) != payload.body:
        return BODY
    if not all(map(_usable, record.values())) or not _whole_numbers(topic, record):
        return frozenset({"malformed_avro"})
    return frozenset(_disagreements(payload, record))


@cache
def _schema(topic: Topic) -> avro.schema.Schema:
    """The contract with times as the numbers they are on the wire: a time out of range is a fault of its own."""
    return avro.schema.parse(json.dumps(codec.without_instants(contract(topic))))


def _read(topic: Topic, body: bytes) -> dict[str, Any]:
    found = avro.io.DatumReader(_schema(topic)).read(avro.io.BinaryDecoder(io.BytesIO(body)))
    return dict(found)


def _written(topic: Topic, record: Mapping[str, Any]) -> bytes | None:
    out = io.BytesIO()
    try:
        avro.io.DatumWriter(_schema(topic)).write(record, avro.io.BinaryEncoder(out))
    except Exception:
        return None
    return out.getvalue()


def _usable(value: Any) -> bool:
    if isinstance(value, str):
        return "\x00" not in value
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(_usable, value.values()))
    return all(map(_usable, value)) if isinstance(value, list) else True


def _whole_numbers(topic: Topic, record: Mapping[str, Any]) -> bool:
    ints = (f["name"] for f in contract(topic)["fields"] if f["type"] == "int")
    return all(-(2**31) <= record[name] < 2**31 for name in ints)


def _disagreements(payload: Payload, record: Mapping[str, Any]) -> Iterator[str]:
    """Times, identity and envelope as docs/architecture.md has them."""
    topic = payload.topic
    times = (record[name] for name in ("occurred_at", "received_at", "entered_at"))
    others = (record[name] for name in OTHER_TIMES.get(topic.name, ()))
    if not all(t is None or 0 <= t <= LAST_MS for t in times) or not all(
        t is None or FIRST_MS <= t <= LAST_MS for t in others
    ):
        yield "bad_event_time"
    names = [name for name, _ in payload.headers]
    said = dict(reversed(payload.headers))
    if {record["event_id"]} != {str(envelope.event_id(topic, record)), (said.get("ce_id") or b"").decode("latin-1")}:
        yield "id_mismatch"
    right = {
        "ce_source": f"/{record['region']}/{record['department']}".encode(),
        "ce_type": f"cn.govbus.{record['event_type']}.v1".encode(),
    }
    fine = all(said.get(name) == value for name, value in right.items())
    single = all(names.count(name) <= 1 for name in ("ce_id", *right))
    keyed = payload.key == str(record[topic.key]).encode()
    if not (fine and single and keyed and record["event_type"] in event_types(topic)):
        yield "envelope_mismatch"
