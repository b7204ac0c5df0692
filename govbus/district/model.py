"""The words of the simulated district: rows to publish, poison for the log, stories of cases."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal

from schemas.topics import Topic

HESHAN = "430903"
REGIONS: Mapping[str, float] = {HESHAN: 0.8, "430902": 0.1, "430981": 0.1}  # share of the cases
LEADING_GROUP = "HS-LDXZ"  # issues policy, handles no cases (DOMAIN §1.3)


@dataclass(frozen=True, slots=True)
class Row:
    """What a department publishes at ``received_at`` (epoch ms, simulated) and what must come of it.

    ``record`` is the row without what the publisher computes. ``reason`` is a code of ``govbus.reason``.
    """

    topic: Topic
    region: str
    department: str
    received_at: int
    record: Mapping[str, Any]
    outcome: Literal["new", "same", "refused", "conflict"] = "new"
    reason: str = ""


PoisonKind = Literal["duplicate", "malformed_avro", "not_canonical", "unknown_schema", "bad_framing", "id_mismatch"]


@dataclass(frozen=True, slots=True)
class Poison:
    """A record past the publisher: made from ``row``, damaged as ``kind`` says."""

    kind: PoisonKind
    row: Row


@dataclass(frozen=True, slots=True)
class Item:
    """One version of a service item; limits in units of ``govbus.limit-unit``: 1, working days, if nothing is said."""

    code: str
    version: int
    name: str
    region: str
    department: str
    promise: float
    statutory: float | None
    effective_on: date
    on_the_spot: bool
    rule: str = ""
    unit: str = "1"
    statutory_unit: str = "1"
    cancelled_on: date | None = None
    """The first day on which it is no longer in force."""
    bound: tuple[float, str] | None = None
    """The policy's limit and its unit, where that is not the promise's: what is due first counts (DOMAIN §4.1)."""
    kind: str | None = None
    """Code of gbt39046.item-type; None: places 22 and 23 of the code."""

    def in_force(self, day: date) -> bool:
        """Whether a case accepted on ``day`` may go by it (DOMAIN §2.2)."""
        return self.effective_on <= day and (self.cancelled_on is None or day < self.cancelled_on)


@dataclass(frozen=True, slots=True)
class Told:
    """One event of a case: when it happened and when the bus heard of it."""

    event: str
    occurred_at: int
    received_at: int
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Story:
    """A case as it really went, and the item versions that may judge it."""

    case_no: str
    item: Item
    versions: tuple[Item, ...]
    told: tuple[Told, ...]


@dataclass(frozen=True, slots=True)
class Span:
    """The simulated time: first and last moment, epoch ms."""

    start: int
    end: int


@dataclass(slots=True)
class District:
    """All of it: ``rows`` in ``received_at`` order, ``live`` rows after them, poison, stories."""

    seed: int
    span: Span
    rows: list[Row]
    live: list[Row]
    poison: list[Poison]
    stories: list[Story]


def chance(rng: random.Random, share: float) -> bool:
    """True in ``share`` of the draws."""
    return rng.random() < share
