"""The steps every projection is made of: decode strictly, keep what is new, say decisions, bury what is
refused.

None of them commits, reads a clock or invents an id: run again on the same records they write the same rows.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any

import sqlalchemy as sa
import structlog

from schemas import bounds, codec, contracts, envelope
from schemas.errors import Fault, Rejected, Retryable
from schemas.topics import DEADLETTER, Topic
from streams.store import bulk, inflight, outbox
from streams.store.projection import Carried, Event, Refused, Said
from streams.store.tables import dead_letter
from streams.store.tables import outbox as outbox_table

_WATERMARKS = "govbus.watermarks"
_SOURCE = re.compile(r"^/(\d{2,12})/([A-Za-z0-9-]{1,40})$")
CONFLICT = Fault("conflict", "event_id", "another content was already applied under this id")
log = structlog.get_logger(__name__)


# --- decode ---------------------------------------------------------------------------------------


def decode_rows(carried: Sequence[Carried]) -> tuple[list[Event], list[Refused]]:
    """Decode record by record; what does not decode, or whose id, key or envelope disagree, is refused
    with its reason.
    """
    events: list[Event] = []
    refused: list[Refused] = []
    with inflight.marked(carried):
        for one in carried:
            try:
                _refuse_condemned(one)
                events.append(decode_row(one))
            except Rejected as error:
                refused.append(Refused(one, error.faults[0]))
    return events, refused


def _refuse_condemned(carried: Carried) -> None:
    """Raise ``Rejected`` for a record that is proven to kill whoever decodes it (``streams.store.quarantine``)."""
    if inflight.condemned and (carried.topic.name, carried.partition, carried.offset) in inflight.condemned:
        raise Rejected(Fault("kills_decoder", "", "decoding it ends the process; it was not decoded"))


def decode_row(carried: Carried) -> Event:
    """One record as an event; raises ``Rejected`` with the reason for which it cannot be one."""
    record = codec.decode(carried.value, carried.topic)
    _check_times(carried.topic, record)
    if faults := bounds.faults(carried.topic, record):
        raise Rejected(*faults)
    event_id = envelope.event_id(carried.topic, record)
    _check_id(carried, record, event_id)
    _check_envelope(carried, record)
    return Event(carried, event_id, envelope.digest(carried.value), record)


def _check_times(topic: Topic, record: Mapping[str, Any]) -> None:
    for name, (low, high) in time_bounds(topic).items():
        value = record.get(name)
        if value is not None and not low <= value <= high:
            years = "1970 to 9999" if low == 0 else "1900 to 9999"
            raise Rejected(Fault("bad_event_time", name, f"outside the years {years}"))


@cache
def time_bounds(topic: Topic) -> Mapping[str, tuple[int, int]]:
    """By field, the first and the last instant (epoch ms) that is taken; the envelope's have a day in Shanghai."""
    stamps = ("occurred_at", "received_at", "entered_at")
    others = (name for name in bounds.moments(topic) if name not in stamps)
    return dict.fromkeys(stamps, (0, bounds.LAST_MS)) | dict.fromkeys(others, (bounds.FIRST_MS, bounds.LAST_MS))


def _check_id(carried: Carried, record: Mapping[str, Any], event_id: uuid.UUID) -> None:
    text = str(event_id)
    if record["event_id"] != text or _header(carried, "ce_id") != text.encode():
        raise Rejected(Fault("id_mismatch", "event_id", "is not the id that the record's identity gives"))


def _check_envelope(carried: Carried, record: Mapping[str, Any]) -> None:
    expected = {
        "ce_source": f"/{record['region']}/{record['department']}".encode(),
        "ce_type": f"cn.govbus.{record['event_type']}.v1".encode(),
    }
    for name, value in expected.items():
        if _header(carried, name) != value:
            raise Rejected(Fault("envelope_mismatch", name, "the header is not what the record says"))
    names = [name for name, _ in carried.headers]
    if any(names.count(name) > 1 for name in ("ce_id", *expected)):  # readers differ in which of the two they take
        raise Rejected(Fault("envelope_mismatch", "ce_id", "a header of the envelope is there twice"))
    if carried.key != str(record[carried.topic.key]).encode():
        raise Rejected(Fault("envelope_mismatch", carried.topic.key, "the Kafka key is not the record's key"))
    if record["event_type"] not in event_types(carried.topic):
        raise Rejected(Fault("envelope_mismatch", "event_type", "not an event of this topic"))


@cache
def event_types(topic: Topic) -> frozenset[str]:
    """The event types that the topic's contract allows, as a set: each record is looked up."""
    return frozenset(contracts.event_types(topic))


def _header(carried: Carried, name: str) -> bytes | None:
    return next((value for key, value in carried.headers if key == name), None)


# --- keep -----------------------------------------------------------------------------------------


def keep_new(
    tx: sa.Connection, table: sa.Table, events: Sequence[Event], extra: Callable[[Event], dict[str, Any]]
) -> list[Event]:
    """Insert the events' rows into ``table``; the first-seen events come back, in the order given.

    ``extra`` gives the columns beyond the common ones. A repeated event changes nothing; an event with a
    known id and other bytes is buried with reason ``conflict``.
    """
    if not events:
        return []
    note_watermarks(tx, ((e.carried.partition, e.record["received_at"]) for e in events))
    rows = [{**common_columns(e), **extra(e)} for e in events]
    inserted = {row[0] for row in bulk.insert_new(tx, table, rows, ("event_id",))}
    new, repeated = [], []
    for event in events:
        if event.event_id in inserted:
            inserted.discard(event.event_id)
            new.append(event)
        else:
            repeated.append(event)
    bury(tx, _conflicts(tx, table, repeated))
    return new


def common_columns(event: Event) -> dict[str, Any]:
    """The columns that every table of events has."""
    record = event.record
    return {
        "event_id": event.event_id,
        "event_type": record["event_type"],
        "region": record["region"],
        "department": record["department"],
        "occurred_at": record["occurred_at"],
        "entered_at": record["entered_at"],
        "received_at": record["received_at"],
        "digest": event.digest,
        "partition": event.carried.partition,
        "offset": event.carried.offset,
    }


def _conflicts(tx: sa.Connection, table: sa.Table, repeated: Sequence[Event]) -> list[Refused]:
    if not repeated:
        return []
    ids = [e.event_id for e in repeated]
    known = {row.event_id: row.digest for row in tx.execute(_digests(table), {"ids": ids})}
    return [Refused(e.carried, CONFLICT, e) for e in repeated if known[e.event_id] != e.digest]


@cache
def _digests(table: sa.Table) -> sa.Select[Any]:
    return sa.select(table.c.event_id, table.c.digest).where(bulk.any_of(table.c.event_id, "ids"))


def note_watermarks(tx: sa.Connection, seen: Iterable[tuple[int, int]]) -> None:
    """Tell the applier the ``received_at`` (epoch ms) of accepted records, as ``(partition, received_at)``.

    ``keep_new`` does it; a projection that stores its events in another way must.
    """
    highest: dict[int, int] = tx.info.setdefault(_WATERMARKS, {})
    for partition, received_at in seen:
        if received_at > highest.get(partition, -1):
            highest[partition] = received_at


def take_watermarks(tx: sa.Connection) -> dict[int, int]:
    """What was noted in this transaction, by partition; forgets it."""
    noted: dict[int, int] = tx.info.pop(_WATERMARKS, {})
    return noted


# --- say ------------------------------------------------------------------------------------------


def say(tx: sa.Connection, saids: Sequence[Said]) -> None:
    """Put decisions into the outbox; one that was said before under the same id is not said again."""
    outcomes = outbox.enqueue(tx, [outbox.row(s.topic, s.record) for s in saids])
    for said, outcome in zip(saids, outcomes, strict=True):
        if outcome.outcome == "conflict":
            log.warning("said otherwise before", topic=said.topic.name, event_id=str(outcome.event_id))


# --- bury -----------------------------------------------------------------------------------------


def bury(tx: sa.Connection, refused: Sequence[Refused]) -> None:
    """Keep refused records whole in ``dead_letter`` and say so on ``bus.deadletter.v1``; each once, and once more
    where it lies after it was redriven.

    Raises ``Retryable`` if one of them is not to be refused but to be read by a newer release.
    """
    if not refused:
        return
    _await_upgrade(tx, refused)
    rows = [_dead_row(r) for r in refused]
    inserted = {row[0] for row in bulk.insert_new(tx, dead_letter, rows, ("dead_id",))}
    inserted |= _bury_again(tx, [row for row in rows if row["dead_id"] not in inserted])
    saids = []
    for one, row in zip(refused, rows, strict=True):
        if row["dead_id"] in inserted:
            inserted.discard(row["dead_id"])
            saids.append(_dead_said(one, row))
    say(tx, saids)


def _bury_again(tx: sa.Connection, rows: Sequence[dict[str, Any]]) -> set[uuid.UUID]:
    """Those of ``rows`` whose dead letter was redriven and is refused at another place now: a letter of their own,
    for the first one is closed. Gives them its id; returns the ids that are new.
    """
    if not rows:
        return set()
    asked = {"ids": [row["dead_id"] for row in rows]}
    at = {dead_id: (partition, offset) for dead_id, partition, offset in tx.execute(_REDRIVEN, asked)}
    again = [r for r in rows if r["dead_id"] in at and at[r["dead_id"]] != (r["partition"], r["offset"])]
    for row in again:
        row["dead_id"] = envelope.derived_id(row["dead_id"], row["partition"], row["offset"])
    return {found[0] for found in bulk.insert_new(tx, dead_letter, again, ("dead_id",))}


_REDRIVEN = sa.select(dead_letter.c.dead_id, dead_letter.c.partition, dead_letter.c.offset).where(
    bulk.any_of(dead_letter.c.dead_id, "ids"), dead_letter.c.redriven_at.is_not(None)
)


def _await_upgrade(tx: sa.Connection, refused: Sequence[Refused]) -> None:
    """Raise ``Retryable`` for a record that a newer release published: it is not wrong, this process is too old.

    Only the outbox makes it genuine; what anybody else puts under a schema id of the future is refused.
    """
    for one in refused:
        carried = one.carried
        if one.fault.reason == "unknown_schema" and _is_newer(carried) and _published(tx, one):
            where = f"{carried.topic.name}/{carried.partition} at {carried.offset}"
            raise Retryable(f"{where} is under a newer contract than this release knows: upgrade this process")


def _is_newer(carried: Carried) -> bool:
    written, ours = codec.schema_id_of(carried.value), carried.topic.schema_id
    return written > ours and written % contracts.VERSION_STEP == ours % contracts.VERSION_STEP


def _published(tx: sa.Connection, refused: Refused) -> bool:
    c = outbox_table.c
    found = sa.select(c.seq).where(
        c.topic == refused.carried.topic.name,
        c.event_id == _claimed_id(refused),
        c.digest == envelope.digest(refused.carried.value),
    )
    return tx.execute(found).first() is not None


def _dead_row(refused: Refused) -> dict[str, Any]:
    carried, fault = refused.carried, refused.fault
    digest = envelope.digest(carried.value)
    region, department = _claimed_source(carried)
    claimed = _claimed_id(refused)
    place = str(claimed) if claimed else f"{carried.partition}/{carried.offset}"
    return {
        "dead_id": envelope.derived_id(carried.topic.name, place, digest),
        "origin": "STREAM",
        "topic": carried.topic.name,
        "partition": carried.partition,
        "offset": carried.offset,
        "key": carried.key,
        "region": region,
        "department": department,
        "event_id": claimed,
        "occurred_at": _claimed_time(refused),
        "digest": digest,
        "reason": fault.reason,
        "field": fault.field,
        "text": fault.text,
        "original": carried.value,
        "headers": [[_plain(name.encode()), _plain(value)] for name, value in carried.headers],
    }


def _dead_said(refused: Refused, row: Mapping[str, Any]) -> Said:
    known_at = refused.event.record["received_at"] if refused.event else row["occurred_at"]
    original = row["original"] if len(row["original"]) <= bounds.CARRIED_BYTES else b""
    record = {
        "event_type": "deadletter.recorded",
        "region": row["region"],
        "department": row["department"],
        "occurred_at": row["occurred_at"],
        "occurred_text": "",
        "entered_at": None,
        "received_at": known_at,
        "dead_id": str(row["dead_id"]),
        "origin_code": row["origin"],
        "original_topic": row["topic"],
        "original_partition": row["partition"],
        "original_offset": row["offset"],
        "original_key": (row["key"] or b"")[:1024],
        "reason_code": row["reason"],
        "field": row["field"],
        "text": row["text"],
        "original": original,
        "original_event_id": str(row["event_id"] or ""),
        "original_digest": str(row["digest"]),
    }
    return Said(DEADLETTER, record)


def _claimed_source(carried: Carried) -> tuple[str, str]:
    match = _SOURCE.match(_plain(_header(carried, "ce_source") or b""))
    return (match[1], match[2]) if match else ("000000", "unknown")


def _claimed_id(refused: Refused) -> uuid.UUID | None:
    try:
        return uuid.UUID((_header(refused.carried, "ce_id") or b"").decode())
    except ValueError:
        return refused.event.event_id if refused.event else None


def _claimed_time(refused: Refused) -> int:
    """Epoch ms of the event, else of the ``ce_time`` header, else 0; never the wall clock."""
    if refused.event:
        return int(refused.event.record["occurred_at"])
    return envelope_time(_header(refused.carried, "ce_time") or b"")


def envelope_time(value: bytes) -> int:
    """Epoch ms of a ``ce_time`` header with a zone; 0 if it is none."""
    try:
        moment = datetime.fromisoformat(value.decode())
        stamp = int(moment.timestamp() * 1000) if moment.tzinfo else 0
    except (ValueError, OverflowError):
        return 0
    return stamp if 0 <= stamp <= bounds.LAST_MS else 0


def _plain(value: bytes) -> str:
    """Text of header bytes that a JSON column can hold."""
    return value.decode("utf-8", "backslashreplace").replace("\x00", "\\x00")
