"""Lets the simulated departments publish, in the order in which the bus hears of things, and poisons the log.

Decides nothing about content. ``received_at`` is the simulated time of each row, so a year passes in minutes.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa

from connectors.publisher import Publisher, RowResult, publish_together
from govbus.district.model import Poison, PoisonKind, Row
from schemas import codec, envelope
from schemas.envelope import Headers
from schemas.topics import Topic


@dataclass(slots=True)
class Tally:
    """What the publisher answered: rows by outcome, faults by reason, and wrong answers."""

    outcomes: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    surprises: list[str] = field(default_factory=list)

    def note(self, row: Row, result: RowResult, repeated: bool) -> None:
        """Count one answer. ``repeated``: published before, so ``same`` is right for new."""
        self.outcomes[result.outcome] += 1
        if result.faults:
            self.faults[result.faults[0].reason] += 1
        right = {row.outcome, "same"} if repeated and row.outcome == "new" else {row.outcome}
        if result.outcome not in right or (row.reason and row.reason not in {f.reason for f in result.faults}):
            self.surprises.append(f"{row.topic.name} {result.event_id}: {result.outcome}, not {row.outcome}")


class Departments:
    """The publishers of all departments of all regions on one database, with a simulated clock.

    A publisher asks its clock once for each row, in order.
    """

    def __init__(self, engine: sa.Engine, repeated: bool = False) -> None:
        self.tally = Tally()
        self._engine = engine
        self._repeated = repeated
        self._times: deque[int] = deque()
        self._publishers: dict[tuple[str, str], Publisher] = {}

    def publish(self, rows: Sequence[Row], again: bool = False) -> list[RowResult]:
        """Publish ``rows`` in order and in one transaction, whichever departments they are of; the answers.

        ``again``: the answer of an earlier attempt was lost, so they may be there. Raises ``Retryable``.
        """
        self._times.extend(row.received_at for row in rows)
        sent = [(self._publisher(row.department, row.region), row.topic, row.record) for row in rows]
        results = publish_together(self._engine, sent)
        for row, result in zip(rows, results, strict=True):
            self.tally.note(row, result, self._repeated or again)
        return results

    def _publisher(self, department: str, region: str) -> Publisher:
        key = (department, region)
        if key not in self._publishers:
            self._publishers[key] = Publisher(self._engine, department, region, self._times.popleft)
        return self._publishers[key]


# --- records that bypass the publisher ---


@dataclass(frozen=True, slots=True)
class Raw:
    """A record for the log as it stands there."""

    topic: Topic
    key: bytes
    value: bytes
    headers: Headers


Damage = Callable[[bytes], bytes]
DAMAGES: dict[PoisonKind, Damage] = {
    "duplicate": lambda value: value,
    "id_mismatch": lambda value: value,
    "malformed_avro": lambda value: value[: len(value) // 2],
    "not_canonical": lambda value: value + b"\x00",
    "unknown_schema": lambda value: b"\x00\x00\x00\xff\xff" + value[5:],
    "bad_framing": lambda value: b"\x07" + value[1:],
}


def raws(poison: Iterable[Poison]) -> list[Raw]:
    """The bytes of each poison; made from what the publisher would have made of its row."""
    return [_raw(p) for p in poison]


def _raw(poison: Poison) -> Raw:
    row = poison.row
    record = whole(row)
    headers = envelope.headers(row.topic, record)
    if poison.kind == "id_mismatch":
        other = str(envelope.derived_id("someone else", record["event_id"])).encode()
        headers = [(name, other if name == "ce_id" else value) for name, value in headers]
    value = DAMAGES[poison.kind](codec.encode(row.topic, record))
    return Raw(row.topic, str(record[row.topic.key]).encode(), value, headers)


def whole(row: Row) -> dict[str, object]:
    """The record as the publisher completes it."""
    from connectors import validate

    finding = validate.validator(row.topic, row.department, row.region).check(row.record, row.received_at)
    record = finding.record
    return {**record, "event_id": str(envelope.event_id(row.topic, record))}
