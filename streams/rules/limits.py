"""Which limit a case has: units, the policy's upper bounds and the item version in force. Numbers live in
limits.toml.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from typing import Any, Literal

from msgspec import Struct

from streams.rules.calendar import DAY_MINUTES, day_of, minute_of
from streams.rules.data import data

MOST = 10_000.0
"""The largest amount that is taken for a time limit; beyond it is a data error."""
IMPLEMENTING, HANDLING_ITEM = 31, 33
"""Places of the code of an item and of that of a handling item (DOMAIN 2.2)."""
UNITS = WORKING_DAY, NATURAL_DAY, HOUR, MINUTE, MONTH = "1", "2", "3", "4", "5"
HalfDayMode = Literal["BUSINESS_MINUTES", "FIXED_4H", "SESSION"]


class Limit(Struct, frozen=True, cache_hash=True):
    """An amount of time in a unit of ``govbus.limit-unit``: 1 working day, 2 natural day, 3 hour, 4 minute,
    5 month.
    """

    amount: float
    unit: str = WORKING_DAY


def plausible(amount: float) -> bool:
    """Whether ``amount`` can be a limit: a number from 0 to ``MOST``."""
    return 0 <= amount <= MOST


class Counting(Struct, frozen=True, cache_hash=True):
    """How limits are counted: mode of half days, minutes of a fixed half day, days of a month, office hours of a
    working day, most extensions.
    """

    half_day_mode: HalfDayMode
    fixed_half_day_minutes: int
    month_days: int
    day_hours: int
    acceptance: Limit
    most_extensions: int


@dataclass(frozen=True, slots=True)
class PolicyLimit:
    """One line of the "2、5、6" policy: no promise may be longer than ``limit`` from day ``effective`` on."""

    rule: str
    limit: Limit
    effective: int


@cache
def counting() -> Counting:
    """The counting rules of ``limits.toml``."""
    raw, accept = data("limits")["counting"], data("limits")["acceptance"]
    return Counting(
        raw["half_day_mode"],
        raw["fixed_half_day_minutes"],
        raw["month_days"],
        raw["day_hours"],
        Limit(float(accept["amount"]), accept["unit"]),
        data("limits")["extension"]["most"],
    )


@dataclass(frozen=True, slots=True)
class Delivery:
    """Which decisions are followed by the handing over of a paper, and how long that may take."""

    limit: Limit
    kinds: frozenset[str]
    without_paper: frozenset[tuple[str, str]]


@cache
def delivery() -> Delivery:
    """The delivery clock of ``limits.toml`` (行政许可法 44)."""
    raw = data("limits")["delivery"]
    without = frozenset((r["set"], code) for r in raw["without_paper"] for code in r["codes"])
    return Delivery(Limit(float(raw["amount"]), raw["unit"]), frozenset(raw["item_types"]), without)


@cache
def policy() -> Mapping[str, PolicyLimit]:
    """The policy's limits by rule id (DOMAIN 4.1)."""
    return {
        raw["rule"]: PolicyLimit(raw["rule"], Limit(float(raw["amount"]), raw["unit"]), day_of(raw["effective_on"]))
        for raw in data("limits")["limit"]
    }


@dataclass(frozen=True, slots=True)
class GroupRule:
    """How the cases of one bundle or project share a limit; see ``limits.toml``."""

    rules: tuple[str, ...]
    gaps_pause: bool
    parts: int
    lead: str


@cache
def group_rules(by: str) -> tuple[GroupRule, ...]:
    """The group clocks of ``bundle`` or ``project``."""
    return tuple(
        GroupRule(tuple(raw["rules"]), raw["gaps"] == "PAUSE", raw["parts"], raw["lead"])
        for raw in data("limits")["group"]
        if raw["by"] == by and raw["scope"] == "GROUP_TOTAL"
    )


def capped(promise: Limit, rule: str, day: int) -> tuple[Limit, ...]:
    """The promise, or the policy's limit where that is shorter, for a case accepted on ``day``; both where their units
    cannot be compared (see :func:`shorter`).
    """
    bound = policy().get(rule)
    return (promise,) if bound is None or bound.effective > day else shorter(promise, bound.limit)


def shorter(limit: Limit, bound: Limit) -> tuple[Limit, ...]:
    """``limit``, or ``bound`` where that is shorter; both where their units cannot be compared: the one that is due
    first counts then.
    """
    (unit, amount), (other, most) = comparable(limit), comparable(bound)
    if unit != other:
        return limit, bound
    return (bound if most < amount else limit,)


def longest_extension(item: ItemVersion) -> Limit | None:
    """By how much a case of ``item`` may be extended (行政许可法 42); None: no source sets a bound."""
    raw = data("limits")["extension"]
    if item.kind not in raw["item_types"]:
        return None
    joint = item.statutory == Limit(float(raw["joint"]["statutory"]), raw["unit"])
    return Limit(float(raw["joint"]["longest"] if joint else raw["longest"]), raw["unit"])


@dataclass(frozen=True, slots=True)
class Step:
    """A step of an item and its limit."""

    name: str
    limit: Limit


@dataclass(frozen=True, slots=True)
class ItemVersion:
    """What a case needs of one version of an item; days are local day numbers, ``cancelled`` None: still in
    force. ``kind``: code of ``gbt39046.item-type``.
    """

    version: int
    promise: Limit
    statutory: Limit | None
    rule: str
    effective: int
    cancelled: int | None
    kind: str = ""
    steps: tuple[Step, ...] = ()

    @property
    def sound(self) -> bool:
        """False where the promise exceeds the statutory limit or one is no amount: never judged by (DOMAIN
        2.5).
        """
        given = [limit for limit in (self.promise, self.statutory) if limit is not None]
        if not all(plausible(limit.amount) for limit in (*given, *(s.limit for s in self.steps))):
            return False
        (unit, promise), (other, legal) = in_days(given[0]), in_days(given[-1])
        return unit != other or promise <= legal


def in_days(limit: Limit) -> tuple[str, float]:
    """The limit in days, and whether working or natural ones: hours and minutes are those of offices (DOMAIN 3.6)."""
    unit, amount = comparable(limit)
    return (WORKING_DAY, amount / 60 / counting().day_hours) if unit == MINUTE else (unit, amount)


def comparable(limit: Limit) -> tuple[str, float]:
    """The limit in the smaller of the units that can be compared with its own: a month is 30 days (DOMAIN 2.5)."""
    if limit.unit == MONTH:
        return NATURAL_DAY, limit.amount * counting().month_days
    return (MINUTE, limit.amount * 60) if limit.unit == HOUR else (limit.unit, limit.amount)


def item_versions(records: Iterable[Mapping[str, Any]]) -> tuple[ItemVersion, ...]:
    """The sound versions of one item from its ``service.item.v1`` records, as they were received; of two of one
    version the last holds. Withdrawals close theirs.
    """
    published: dict[int, ItemVersion] = {}
    withdrawn: dict[int, int] = {}
    for record in records:
        if record["event_type"] == "item.withdrawn":
            withdrawn[record["item_version"]] = _withdrawal(record)
        else:
            published[record["item_version"]] = _version(record)
    closed = (_closed(v, withdrawn.get(v.version)) for v in published.values())
    return tuple(sorted((v for v in closed if v.sound), key=lambda v: (v.effective, v.version)))


def implementing(item_code: str) -> str:
    """The implementing code (实施编码) of a handling item's (业务办理项编码), which has two places more, a serial; any
    other code as it is (DOMAIN 2.2).
    """
    return item_code[:IMPLEMENTING] if len(item_code) == HANDLING_ITEM else item_code


def versions_of(items: Mapping[str, tuple[ItemVersion, ...]], item_code: str) -> tuple[ItemVersion, ...]:
    """The versions that a case of ``item_code`` may be judged by: of its handling item, and of the item that it belongs
    to.
    """
    whole = implementing(item_code)
    return items.get(item_code, ()) + (() if whole == item_code else items.get(whole, ()))


def judging(items: Mapping[str, tuple[ItemVersion, ...]], item_code: str, day: int) -> ItemVersion | None:
    """The version by which a case of ``item_code`` accepted on ``day`` is judged: of its handling item, or where none
    of that is in force then, of the item that it belongs to.
    """
    return in_force(items.get(item_code, ()), day) or in_force(items.get(implementing(item_code), ()), day)


def in_force(versions: tuple[ItemVersion, ...], day: int) -> ItemVersion | None:
    """The version in force on ``day``: the latest effective one that is not cancelled (DOMAIN 2.2)."""
    for version in reversed(versions):
        if version.effective <= day and (version.cancelled is None or day < version.cancelled):
            return version
    return None


def _version(record: Mapping[str, Any]) -> ItemVersion:
    statutory = record.get("statutory_limit")
    return ItemVersion(
        record["item_version"],
        Limit(float(record["promise_limit"]), record["promise_unit_code"]),
        None if statutory is None else Limit(float(statutory), record.get("statutory_unit_code") or WORKING_DAY),
        record.get("limit_rule", ""),
        _day(record["effective_on"]),
        _optional_day(record.get("cancelled_on")),
        record.get("item_type_code", ""),
        tuple(_step(raw) for raw in record.get("steps", ())),
    )


def _step(raw: Mapping[str, Any]) -> Step:
    return Step(raw["step_name"], Limit(float(raw["step_limit"]), raw["step_unit_code"] or WORKING_DAY))


def _withdrawal(record: Mapping[str, Any]) -> int:
    cancelled = _optional_day(record.get("cancelled_on"))
    return minute_of(record["occurred_at"]) // DAY_MINUTES if cancelled is None else cancelled


def _closed(version: ItemVersion, withdrawn: int | None) -> ItemVersion:
    if withdrawn is None or (version.cancelled is not None and version.cancelled <= withdrawn):
        return version
    return replace(version, cancelled=withdrawn)


def _day(value: date | str) -> int:
    return day_of(date.fromisoformat(value) if isinstance(value, str) else value)


def _optional_day(value: date | str | None) -> int | None:
    return None if value is None else _day(value)
