"""How long a text may be that names something, how deep a JSON value, how far off an instant. PostgreSQL keeps such
texts in indexes, an entry of which holds 2,704 bytes at most; a longer one is always a column in the wrong place.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from schemas.contracts import contract
from schemas.errors import Fault
from schemas.topics import BEHAVIOUR, CASE, RATING, Topic

MOST = 160
"""Characters. Four such texts of four bytes each still fit one entry."""
NAMES = frozenset(
    {"region", "department", "item_code", "case_no", "licence_no", "holder_id", "project_code", "bundle_no",
     "bundle_code"}
)  # fmt: skip
"""Fields that name something beside a topic's key and identity."""
KEYS: Mapping[str, int] = {CASE.name: 50, RATING.name: 50, BEHAVIOUR.name: 50}
"""Characters of a topic's key where a standard says so: 办件编号 (an..50, DOMAIN §3.4) and 行为编号 (DOMAIN §8.1)."""
INVISIBLE = frozenset({"Cc", "Cf"})
"""Unicode's categories of control and format characters, such as a line break or a blank without width."""
FIRST_MS, LAST_MS = -2_208_988_800_000, 253_402_271_999_999
"""Epoch ms: 1900-01-01 UTC to 9999-12-31T23:59:59.999+08:00, the last instant whose day (Asia/Shanghai) has a name:
what a clock reckons on from beyond them fits no column.
"""
DEEPEST = 32
"""Levels of lists and objects in a JSON value from outside; ours have four. Python reads some thousand, and whether it
can write them again depends on who asks.
"""
CARRIED_BYTES = 192 * 1024
"""How much of a dead letter's original travels: with the rest it fits a record of 256 KiB. The table keeps all."""


def too_deep(value: object) -> bool:
    """Whether ``value`` (as ``json.loads`` gives it) has more than ``DEEPEST`` levels."""
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [item for one in level for item in _items(one)]
    return bool(level)


def _items(value: object) -> Iterable[object]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, (list, tuple)) else ()


@cache
def bounded(topic: Topic) -> tuple[str, ...]:
    """The fields of ``topic`` that may be so long at most; none where the bus itself makes the records."""
    if topic.direction == "out":
        return ()
    names = {topic.key, *topic.identity} | NAMES
    return tuple(f["name"] for f in contract(topic)["fields"] if f["type"] == "string" and f["name"] in names)


@cache
def moments(topic: Topic) -> tuple[str, ...]:
    """The fields of ``topic`` that are instants (epoch ms), or absent."""
    return tuple(f["name"] for f in contract(topic)["fields"] if _is_moment(f["type"]))


def _is_moment(kind: Any) -> bool:
    if isinstance(kind, list):
        return any(map(_is_moment, kind))
    return isinstance(kind, dict) and kind.get("logicalType") == "timestamp-millis"


def faults(topic: Topic, record: Mapping[str, Any]) -> list[Fault]:
    """The fields of ``record`` that are too long to name anything."""
    return [
        Fault("too_large", name, f"names something in over {MOST} characters", "see whether the columns have moved")
        for name in bounded(topic)
        if len(record.get(name) or "") > MOST
    ]


def misnamed(topic: Topic, record: Mapping[str, Any]) -> list[Fault]:
    """What the gate refuses of such names besides: keys beyond their standard, and names that a reader takes for
    another one. Not asked of the log, which may hold older ones.
    """
    limits = {topic.key: KEYS.get(topic.name, MOST)}
    told = ((name, _misnamed(record.get(name) or "", limits.get(name, MOST))) for name in bounded(topic))
    return [Fault(wrong[0], name, *wrong[1:]) for name, wrong in told if wrong]


def _misnamed(text: str, most: int) -> tuple[str, str, str] | None:
    if most < len(text) <= MOST:
        return "too_large", f"has over {most} characters", "see whether the columns have moved"
    if text != text.strip():
        return "bad_format", "begins or ends with a blank", "remove the blank"
    if not text.isprintable() and any(unicodedata.category(c) in INVISIBLE for c in text):
        return "bad_format", "holds a character that cannot be seen, such as a line break", "remove it"
    return None
