"""The way in: a row becomes an event in the outbox and a receipt, or a dead letter that says why not.

Decides nothing about content (``connectors.validate`` does) and nothing about sameness
(``streams.store.outbox`` does). A row is in the outbox or dead-lettered when ``publish`` returns, never both,
never neither.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import sqlalchemy as sa

from connectors import refusals, validate
from connectors.intake.files import Row, Unreadable
from connectors.refusals import RefusedRow
from schemas import envelope
from schemas.clock import wall_clock
from schemas.errors import Fault, Misconfigured, Rejected, Retryable
from schemas.topics import Topic
from streams.store import failpoints, horizon, outbox
from streams.store.engine import is_transient, not_allowed, not_let_in
from streams.store.outbox import Enqueued, OutboxRow

CHUNK, CHUNK_S = 1_000, 0.1
"""Rows in one transaction, at most, and for how long they gather: a row bears the time at which it was looked at, and
until it is committed timers, which settle for 200 ms, should not have spoken of its case (docs/decisions/0001).
"""
CLOCKS_APART_MS = 60_000
"""How far the clock that gives receipt times may be from the database's, by which timers go: what is received in their
future is late at once.
"""
Outcome = Literal["new", "same", "conflict", "refused", "valid"]


@dataclass(frozen=True, slots=True)
class RowResult:
    """What became of one row. ``row`` counts from 1; ``valid`` is the outcome of a dry run that found nothing
    wrong.

    ``receipt`` names the stored event and is the same however often the row is sent. ``differing`` holds the
    names of the fields in which a conflicting row differs from the event stored under its id. ``notes`` are
    not faults.
    """

    row: int
    outcome: Outcome
    event_id: uuid.UUID | None = None
    receipt: str | None = None
    faults: tuple[Fault, ...] = ()
    differing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def accepted(self) -> bool:
        """True if the event stands on the bus (or would, in a dry run)."""
        return self.outcome in ("new", "same", "valid")


@dataclass(frozen=True, slots=True)
class _Checked:
    """A row after validation: ready for the outbox, or refused with its bytes."""

    source: Publisher
    topic: Topic
    result: RowResult
    original: Row
    received_at: int
    ready: OutboxRow | None


class Publisher:
    """Publishes the events of one department of one region (GB/T 2260).

    ``department`` is a code, name or alias of ``govbus.department``; raises ``Rejected`` if it or the region is not
    known.
    ``now`` gives the receipt time in epoch ms UTC.
    """

    def __init__(
        self, engine: sa.Engine | None, department: str, region: str, now: Callable[[], int] = wall_clock
    ) -> None:
        self.department = _known_department(department)
        self.region = _known_region(region)
        self._engine = engine
        self._now = now
        self._clock_known = now is not wall_clock  # a simulated time is nobody's clock

    def publish(self, topic: Topic, rows: Iterable[Row]) -> list[RowResult]:
        """Publish ``rows``, one result for each, in order; chunks of 1,000 rows or a tenth of a second are
        committed as they fill.

        Raises ``Retryable`` if the database is away, ``Misconfigured`` if it does not let us in, or not write for this
        department, or its clock is another than ours; rows already committed answer ``same`` when they are sent again.
        """
        return list(self.stream(topic, rows))

    def stream(self, topic: Topic, rows: Iterable[Row], first: int = 1) -> Iterator[RowResult]:
        """Like ``publish``, for more rows than fit in memory; ``first`` is the number of the first row."""
        gathered: list[_Checked] = []
        until = 0.0
        for number, row in enumerate(rows, first):
            if not gathered:
                until = time.monotonic() + CHUNK_S
            gathered.append(self._check(topic, number, row))
            if len(gathered) == CHUNK or time.monotonic() >= until:
                yield from self._store(gathered)
                gathered = []
        if gathered:
            yield from self._store(gathered)

    def check(self, topic: Topic, rows: Iterable[Row], first: int = 1) -> Iterator[RowResult]:
        """A dry run: validate and encode, write nothing, need no database."""
        for number, row in enumerate(rows, first):
            yield self._check(topic, number, row).result

    def _check(self, topic: Topic, number: int, row: Row) -> _Checked:
        received_at = self._now()
        if isinstance(row, Unreadable):
            return _Checked(
                self, topic, RowResult(number, "refused", faults=row.faults), row, received_at, None
            )
        finding = validate.validator(topic, self.department, self.region).check(row, received_at)
        if finding.faults:
            return _Checked(self, topic, self._refused(number, topic, finding), row, received_at, None)
        try:
            ready = outbox.row(topic, finding.record)
            _same_claim(row, ready.event_id)
        except Rejected as error:
            finding.faults.extend(error.faults)
            return _Checked(self, topic, self._refused(number, topic, finding), row, received_at, None)
        result = RowResult(number, "valid", ready.event_id, notes=tuple(finding.notes))
        return _Checked(self, topic, result, row, received_at, ready)

    def _refused(self, number: int, topic: Topic, finding: validate.Finding) -> RowResult:
        event_id = _derivable(topic, finding)
        return RowResult(number, "refused", event_id, None, tuple(finding.faults), notes=tuple(finding.notes))

    def _store(self, checked: Sequence[_Checked]) -> list[RowResult]:
        if self._engine is None:
            raise RuntimeError("a publisher without a database can only check")
        results = _store(self._engine, checked, ask_clock=not self._clock_known)
        self._clock_known = True
        return results


def publish_together(engine: sa.Engine, rows: Iterable[tuple[Publisher, Topic, Row]]) -> list[RowResult]:
    """Publish rows of several departments in one transaction, in the order given; one result for each.

    For a sender that holds many departments: one commit, one wake-up of the relay. Raises ``Retryable`` if
    the database is away; then none of the rows was stored.
    """
    checked = [publisher._check(topic, n, row) for n, (publisher, topic, row) in enumerate(rows, 1)]
    return _store(engine, checked)


def _store(engine: sa.Engine, checked: Sequence[_Checked], ask_clock: bool = False) -> list[RowResult]:
    try:
        with engine.begin() as tx:
            if ask_clock:
                _refuse_other_clock(tx)
            results = _write(tx, checked)
            failpoints.reach("publish.before_commit")
    except Exception as error:  # bulk writes meet psycopg's own errors, not SQLAlchemy's
        if answer := not_let_in(error):
            raise Misconfigured(f"the database's address: {answer}") from error
        if not_allowed(error):
            mend = "publish for the department whose login it is (operate.md, “A login for each department”)"
            raise Misconfigured(f"the database does not let {engine.url.username} write these rows: {mend}") from error
        if is_transient(error):
            url = engine.url
            raise Retryable(f"PostgreSQL at {url.host}:{url.port or 5432}, the database, is away") from error
        raise
    failpoints.reach("publish.after_commit")
    return results


def _refuse_other_clock(tx: sa.Connection) -> None:
    apart = wall_clock() - horizon.now(tx, "wall")
    if abs(apart) > CLOCKS_APART_MS:
        side = "ahead of" if apart > 0 else "behind"
        raise Misconfigured(f"this machine's clock is {abs(apart) // 1000:,} s {side} PostgreSQL's: set both by NTP")


def _write(tx: sa.Connection, checked: Sequence[_Checked]) -> list[RowResult]:
    answers = iter(outbox.enqueue(tx, [c.ready for c in checked if c.ready]))
    results = [_answered(c.result, next(answers)) if c.ready else c.result for c in checked]
    both = list(zip(checked, results, strict=True))
    refusals.mended(tx, {r.event_id: c.received_at for c, r in both if r.event_id and r.outcome == "new"})
    refusals.bury_rows(tx, [_dead(c, r) for c, r in both if not r.accepted])
    return results


def _dead(checked: _Checked, result: RowResult) -> RefusedRow:
    row, source = checked.original, checked.source
    original = row.original if isinstance(row, Unreadable) else refusals.original_bytes(row)
    return RefusedRow(
        checked.topic,
        source.region,
        source.department,
        original,
        result.faults,
        checked.received_at,
        result.event_id,
    )


def _answered(result: RowResult, answer: Enqueued) -> RowResult:
    if answer.outcome != "conflict":
        return replace(result, outcome=answer.outcome, receipt=answer.receipt)
    fault = Fault(
        "conflict",
        "",
        f"the event was published before with other content: {', '.join(answer.differing)} differ",
        "send a correction as an event of its own, or the same content",
    )
    return replace(result, outcome="conflict", faults=(fault,), differing=answer.differing)


def _known_department(text: str) -> str:
    if code := validate.department_code(text):
        return code
    raise Rejected(
        Fault(
            "unknown_department",
            "department",
            "is no department's code, name or alias",
            "see govbus.department",
        )
    )


def _known_region(text: str) -> str:
    if validate.is_region(text):
        return text
    mend = "send 6 digits, or 9 with the township: --region, GOVBUS_REGION"
    raise Rejected(Fault("unknown_code", "region", "is not a region code of gbt2260.region", mend))


def _same_claim(row: Mapping[str, Any], event_id: uuid.UUID) -> None:
    """A row may name its event id; it is derived, so it must be the derived one."""
    if row.get("event_id") not in (None, "", str(event_id)):
        raise Rejected(
            Fault("id_mismatch", "event_id", "is not the id derived from the event", "leave it out")
        )


def _derivable(topic: Topic, finding: validate.Finding) -> uuid.UUID | None:
    """The id that a refused row would have had; None if what makes it is missing or at fault."""
    needed = {"region", "department", *topic.identity}
    whole = all(finding.record.get(name) not in (None, "") for name in needed)
    if not whole or any(fault.field in needed for fault in finding.faults):
        return None
    return envelope.event_id(topic, finding.record)
