"""What the indicators mean, how an item counts in them, what of them may be published (DOMAIN 2.4, 2.5, 4.2, 5.8, 9).

Definitions are data (indicators.toml). Pure: figures come from counts and item records that others read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from typing import Any

from streams.rules.calendar import day_at
from streams.rules.data import data
from streams.rules.limits import WORKING_DAY, Limit, in_days

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Indicator:
    """One indicator as it is published: Chinese name, formula, what dates it, source, target (None: none)."""

    key: str
    name: str
    formula: str
    period: str
    source: str
    target: float | None


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure: a count (``denominator`` None) or a rate; ``value`` None: nothing to divide by, or suppressed."""

    numerator: float
    denominator: float | None = None
    suppressed: bool = False

    @property
    def value(self) -> float | None:
        """The count or the rate."""
        if self.suppressed:
            return None
        if self.denominator is None:
            return self.numerator
        return self.numerator / self.denominator if self.denominator else None


@dataclass(frozen=True, slots=True)
class Excluded:
    """An item that the speed-up leaves out, and why."""

    item_code: str
    department: str
    why: str


@dataclass(frozen=True, slots=True)
class ItemCount:
    """What one item in force adds to the figures about items; limits in days (working or natural) or minutes."""

    item_code: str
    department: str
    region: str
    level: str
    applied_for: bool
    deep: bool
    promise: float = 0.0
    statutory: float = 0.0


@cache
def indicators() -> Mapping[str, Indicator]:
    """All indicators by key, in the order in which they are shown."""
    return {
        r["key"]: Indicator(r["key"], r["name"], r["formula"], r["period"], r["source"], r.get("target"))
        for r in data("indicators")["indicator"]
    }


def version() -> str:
    """Version of the definitions."""
    return str(data("indicators")["version"])


def exempt() -> frozenset[str]:
    """Codes of the items that law or secrecy keeps off the platform."""
    return frozenset(data("indicators")["items"]["exempt"])


def points() -> int:
    """What each score (1 to 5, 5 best) is worth in the satisfaction (满意度)."""
    return int(data("indicators")["satisfaction"]["points"])


def published(figures: Mapping[str, Figure]) -> dict[str, Figure]:
    """The figures as the public may see them: one with a cell too small to be told is suppressed (DOMAIN 9)."""
    below = data("indicators")["suppression"]["below"]
    return {
        key: Figure(0, None, True) if any(0 < cell < below for cell in _cells(key, figure)) else figure
        for key, figure in figures.items()
    }


def _cells(key: str, figure: Figure) -> tuple[float, ...]:
    """How many cases, cards, ratings or items a reader learns of; a part and its rest say how large the whole is."""
    if figure.denominator is None:
        return (figure.numerator,)
    if key in data("indicators")["suppression"]["parts"]:
        return figure.numerator, figure.denominator - figure.numerator
    return (figure.denominator,)


# --- items ----------------------------------------------------------------------------------------


def in_force(records: Iterable[Record], day: date) -> list[Record]:
    """Of each item (records of ``service.item.v1``, as they were received; of two of one version the last holds) the
    version in force on ``day``: the latest effective one that is neither cancelled nor withdrawn by then.
    """
    versions: dict[tuple[str, int], Record] = {}
    gone: dict[tuple[str, int], date] = {}
    for record in records:
        key = record["item_code"], record["item_version"]
        if record["event_type"] == "item.withdrawn":
            gone[key] = _day(record["cancelled_on"]) or day_at(record["occurred_at"])
        else:
            versions[key] = record
    found: dict[str, Record] = {}
    for key, record in sorted(versions.items(), key=lambda v: (v[0][0], str(v[1]["effective_on"]), v[0][1])):
        ended = min((d for d in (_day(record["cancelled_on"]), gone.get(key)) if d is not None), default=None)
        if (_day(record["effective_on"]) or day) <= day and (ended is None or day < ended):
            found[key[0]] = record
    return list(found.values())


def count_item(record: Record) -> tuple[ItemCount, Excluded | None]:
    """What an item in force adds, and why it is left out of the speed-up, if it is."""
    rule = data("indicators")["items"]
    base = ItemCount(
        record["item_code"],
        record["department"],
        record["region"],
        record.get("body_level_code") or "",
        not record["item_type_code"] or record["item_type_code"] in rule["applied_for"],
        record["depth_set"] == "govbus.depth" and int(record["depth_code"] or 0) >= rule["depth_at_least"],
    )
    why, promise, statutory = _comparable(record)
    if why:
        return base, Excluded(base.item_code, base.department, why)
    return replace(base, promise=promise, statutory=statutory), None


def _comparable(record: Record) -> tuple[str, float, float]:
    """Why promise and statutory limit cannot be compared, or both in one unit (DOMAIN 2.5)."""
    if record["statutory_limit"] is None:
        return "无法定时限", 0.0, 0.0
    kind, ours = in_days(Limit(record["promise_limit"], record["promise_unit_code"]))
    other, legal = in_days(Limit(record["statutory_limit"], record["statutory_unit_code"] or WORKING_DAY))
    if kind != other:
        return "计时单位不可比", 0.0, 0.0
    if ours > legal:
        return "承诺时限长于法定时限", 0.0, 0.0
    return "", ours, legal


def _day(value: date | str | None) -> date | None:
    return date.fromisoformat(value) if isinstance(value, str) else value
