"""Was anything lost, doubled or wrong? Judges a world that has come to rest, by knowledge of its own.

What was accepted is known from the history alone, what was carried from the simulated log, what was acknowledged from
the simulated province. What the events must add up to is known from a calm run: the same events, no process, no fault,
each topic applied at once.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import sqlalchemy as sa

from consumers.alerts.inbox import Inbox
from govbus.chaos.sim.database import empty
from govbus.chaos.sim.history import END, History
from govbus.chaos.sim.log import Log
from govbus.chaos.sim.members import EFFECTS, WANTED, Province
from govbus.district.publishing import Departments
from schemas import codec
from schemas.topics import ALERT, BY_NAME, CASE, DEADLETTER, ENTRY, INBOUND, ROLLUP, UPLOAD, Topic
from streams.agents import projections
from streams.store import tables
from streams.store.applier import apply_batch, aside, tick
from streams.store.desk import DeskReader, due
from streams.store.projection import Aside, Carried, Event, Projection, Ticking
from streams.store.tables import STATE_TABLES

LAST_WORD = (ROLLUP, ENTRY)
"""Topics that may say the same in fewer words: only the last word of a key must be the calm run's."""
EVENT_TABLES: Mapping[str, sa.Table] = {
    "service.item.v1": tables.item_event, "service.case.v1": tables.case_event,
    "service.rating.v1": tables.rating_event, "licence.record.v1": tables.licence_event,
    "directory.resource.v1": tables.resource_event, "oversight.handling.v1": tables.handling_event,
    "supervision.behaviour.v1": tables.behaviour_event, "hotline.ticket.v1": tables.ticket_event,
    "reference.calendar.v1": tables.calendar_event,
}  # fmt: skip
COMPARED = (*STATE_TABLES, tables.alert_life)
_STATE = " UNION ALL ".join(
    f"SELECT '{t.name}', (to_jsonb(t) - 'partition' - 'offset')::text FROM \"{t.name}\" AS t" for t in COMPARED
)
_APPLIED = " UNION ALL ".join(
    f"SELECT 'applied {topic}', event_id::text FROM \"{t.name}\"" for topic, t in EVENT_TABLES.items()
)
_REST = """
SELECT 'cursor', processor || ' ' || topic || ' ' || partition || ' ' || next_offset FROM cursor WHERE next_offset > 0
UNION ALL SELECT 'dead', event_id::text FROM dead_letter WHERE event_id IS NOT NULL
UNION ALL SELECT 'desk', alert_id || ' ' || alert_seq || ' ' || action FROM alert_inbox
UNION ALL SELECT 'view', resource_code || ' ' || entry_version FROM directory_view
UNION ALL SELECT 'told', event_id::text FROM delivery
UNION ALL SELECT 'queued', event_id::text FROM push_queue
UNION ALL SELECT 'receipt ' || (r ->> 'outcome'), (r ->> 'event_id') || ' ' || (r ->> 'digest')
FROM receipt, jsonb_array_elements(body -> 'records') AS r"""
_ALL = f"{_STATE} UNION ALL {_APPLIED} UNION ALL {_REST}"
_OUTBOX = sa.text(
    "SELECT topic, key, event_id, digest, content_digest, value, sent_partition, sent_offset FROM outbox ORDER BY seq"
)
_ALERTS_SAID = sa.text("SELECT event_id, digest, value FROM outbox WHERE topic = :topic ORDER BY seq")
ACTIONS = {"alert.issued": "ISSUED", "alert.revoked": "REVOKED", "alert.retracted": "RETRACTED"}
ABOUT_THE_TELLING = ("event_id", "alert_seq", "received_at", "occurred_at", "calendar_version", "evidence")
"""Fields of an alert that depend on when one looked, what one knew by then and how often one spoke."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a database holds: rows of text by table or question, and the outbox in order."""

    rows: Mapping[str, Sequence[str]]
    outbox: Sequence[Any]

    @property
    def state(self) -> list[tuple[str, str]]:
        """Every row of every table that is compared."""
        return sorted((t.name, row) for t in COMPARED for row in self.rows.get(t.name, ()))

    @property
    def digest(self) -> str:
        """Of all of it, whatever its place in the tables."""
        rows = sorted((name, row) for name, found in self.rows.items() for row in found)
        return hashlib.blake2b(repr((rows, [tuple(r) for r in self.outbox])).encode(), digest_size=8).hexdigest()

    def said(self, topic: Topic) -> list[Any]:
        """The outbox rows of ``topic`` in order."""
        return [row for row in self.outbox if row.topic == topic.name]


def look(engine: sa.Engine) -> Found:
    """Read all of it."""
    rows: dict[str, list[str]] = defaultdict(list)
    with engine.connect() as tx:
        for name, text in tx.exec_driver_sql(_ALL):
            rows[name].append(text)
        return Found(rows, tx.execute(_OUTBOX).all())


# --- the calm run ---------------------------------------------------------------------------------


def calm(engine: sa.Engine, history: History) -> Found:
    """What the same events come to where nothing ever goes wrong."""
    empty(engine)
    Departments(engine).publish(history.rows)
    log = Log(None)  # type: ignore[arg-type]
    for row in look(engine).outbox:
        log.append(row.topic, row.key.encode(), row.value, _headers(row))
    for stray in history.strays:
        log.append(stray.raw.topic.name, stray.raw.key, stray.raw.value, stray.raw.headers)
    with engine.begin() as tx:
        tx.exec_driver_sql("UPDATE outbox SET sent_at = 1")
    for projection in projections():
        places = log.places([projection.topic])
        records = [r for place in places for r in log.records(place)]
        apply_batch(engine, projection, [_carried(projection.topic, r) for r in records])
        _settle(engine, projection, log)
    heard = 0
    for _ in range(2):  # what one said of another's, and what the desk made of alerts
        heard = _look_at_desk(engine, heard)
        for projection in projections():
            _settle(engine, projection, log)
    _look_at_desk(engine, heard)
    return look(engine)


def _look_at_desk(engine: sa.Engine, heard: int) -> int:
    """Bring every alert after the first ``heard`` to the desk and have it look at them, until it says nothing more; how
    many it heard of.
    """
    inbox, reader = Inbox(lambda: 0), DeskReader()
    while True:
        words = _alerts_said(engine)
        new = [Event(None, w.event_id, w.digest, codec.decode(w.value, ALERT)) for w in words[heard:]]  # type: ignore[arg-type]
        heard = len(words)
        with engine.begin() as tx:
            inbox.apply(tx, new)
            partitions = due(tx, END)
        if not partitions:
            return heard
        for partition in sorted(partitions):
            more = True
            while more:
                with engine.begin() as tx:
                    more = reader.tick(tx, partition, END)


def _alerts_said(engine: sa.Engine) -> Sequence[Any]:
    """The outbox rows of alerts in order."""
    with engine.connect() as tx:
        return tx.execute(_ALERTS_SAID, {"topic": ALERT.name}).all()


def _settle(engine: sa.Engine, projection: Projection, log: Log) -> None:
    """Let it speak until it has nothing more to say."""
    if hasattr(projection, "tick"):
        for _, partition in log.places([projection.topic]):
            while tick(engine, cast(Ticking, projection), partition, END):
                pass
    while isinstance(projection, Aside) and aside(engine, projection.speak):
        pass


def _headers(row: Any) -> list[tuple[str, bytes]]:
    return [("ce_id", str(row.event_id).encode()), *_source(row)]


def _source(row: Any) -> list[tuple[str, bytes]]:
    from schemas import envelope

    topic = BY_NAME[row.topic]
    return [h for h in envelope.headers(topic, codec.decode(row.value, topic)) if h[0] != "ce_id"]


def _carried(topic: Topic, record: Any) -> Carried:
    return Carried(topic, record.partition, record.offset, record.key, record.value, record.headers)


# --- the verdict ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Case:
    """Everything the judge looks at."""

    history: History
    log: Log
    province: Province
    found: Found
    wanted: Found


def judge(case: Case) -> list[str]:
    """Every complaint; each begins with ``lost``, ``doubled``, ``phantom``, ``wrong`` or ``order``."""
    judges = (_published, _carried_once, _applied, _state, _said, _alerts, _cursors, _consumed, _acknowledged)
    return [complaint for one in judges for complaint in one(case)]


def _published(case: Case) -> Iterator[str]:
    """What was accepted stands in the outbox, once."""
    inbound = [(r.topic, str(r.event_id)) for r in case.found.outbox if BY_NAME[r.topic] in INBOUND]
    yield from _compared("published event", case.history.accepted, inbound)


def _carried_once(case: Case) -> Iterator[str]:
    """What stands in the outbox is in the log where the outbox says, each key in order, and nothing else is."""
    for topic in BY_NAME:
        rows = [r for r in case.found.outbox if r.topic == topic]
        ours = {(str(r.event_id), r.value) for r in rows}
        strays = {(dict(s.raw.headers)["ce_id"].decode(), s.raw.value) for s in case.history.strays} - ours
        everything = [r for place in case.log.places([BY_NAME[topic]]) for r in case.log.records(place)]
        landed = [r for r in everything if (r.event_id, r.value) not in strays]
        yield from _compared(f"record of {topic}", ours, dict.fromkeys((r.event_id, r.value) for r in landed))
        if topic != DEADLETTER.name:  # of one topic's, publishers and several workers write at once: they have no order
            yield from _ordered(topic, rows, landed)
        for row in rows:
            if row.sent_offset is None or not _lies(case.log, row):
                yield f"wrong: {topic} {row.event_id} does not lie where the outbox says"


def _lies(log: Log, row: Any) -> bool:
    record = log.at((row.topic, row.sent_partition), row.sent_offset)
    return record is not None and record.event_id == str(row.event_id)


def _ordered(topic: str, rows: Sequence[Any], landed: Sequence[Any]) -> Iterator[str]:
    places: dict[str, int] = {}
    for place, record in enumerate(landed):
        places.setdefault(record.event_id, place)
    last: dict[str, int] = {}
    for row in rows:
        place = places.get(str(row.event_id), -1)
        if place < last.get(row.key, -1):
            yield f"order: {topic} {row.event_id} was first sent before its predecessor"
        last[row.key] = place


def _applied(case: Case) -> Iterator[str]:
    """What was accepted stands in its event table once, or is dead-lettered."""
    dead = set(case.found.rows.get("dead", ()))
    for topic in EVENT_TABLES:
        accepted = {event_id for name, event_id in case.history.accepted if name == topic}
        rows = case.found.rows.get(f"applied {topic}", ())
        yield from _compared(f"applied event of {topic}", accepted - (dead - set(rows)), rows)


def _state(case: Case) -> Iterator[str]:
    """Every row of every table that is compared is the calm run's."""
    wanted, found = Counter(case.wanted.state), Counter(case.found.state)
    for name, row in (wanted - found).elements():
        yield f"wrong: {name} lacks {row[:300]}"
    for name, row in (found - wanted).elements():
        yield f"wrong: {name} has {row[:300]}"


def _said(case: Case) -> Iterator[str]:
    """Uploads and dead letters are said once each; of rollups and entries the last word is the calm run's."""
    for topic in (UPLOAD, DEADLETTER):
        words = [[r.event_id for r in side.said(topic)] for side in (case.wanted, case.found)]
        yield from _compared(f"word on {topic.name}", *words)
    for topic in LAST_WORD:
        wanted, found = ({r.key: r.content_digest for r in side.said(topic)} for side in (case.wanted, case.found))
        yield from _compared(f"last word on {topic.name}", wanted.items(), found.items())


def _alerts(case: Case) -> Iterator[str]:
    """Each alert is told in order; its last word is the calm run's, or takes back what the calm run never said."""
    wanted, found = _told(case.wanted), _told(case.found)
    for alert_id in sorted(wanted.keys() | found.keys()):
        words = found.get(alert_id, [])
        numbers = [w["alert_seq"] for w in words]
        if numbers != _numbers(words, wanted.get(alert_id, [])):
            yield f"wrong: alert {alert_id} was told in another order: {numbers}"
        if alert_id not in wanted:
            if words[-1]["event_type"] != "alert.retracted":
                yield f"phantom: alert {alert_id} stands: {_content(words[-1])}"
        elif not words:
            yield f"lost: alert {alert_id}"
        elif _content(words[-1]) != _content(wanted[alert_id][-1]):
            yield f"wrong: alert {alert_id} says {_content(words[-1])}, not {_content(wanted[alert_id][-1])}"


def _numbers(words: Sequence[Mapping[str, Any]], calm: Sequence[Mapping[str, Any]]) -> list[int]:
    """How ``words`` must be numbered: from one on; about a rating by its revisions, so as in the calm run."""
    if words and words[0]["kind_code"] == "BAD_RATING":
        return [w["alert_seq"] for w in calm]
    return list(range(1, len(words) + 1))


def _told(found: Found) -> dict[str, list[Mapping[str, Any]]]:
    told: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in found.said(ALERT):
        record = codec.decode(row.value, ALERT)
        told[record["alert_id"]].append(record)
    return told


def _content(record: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in record.items() if k not in ABOUT_THE_TELLING}


def followers() -> list[tuple[str, Topic]]:
    """Who follows which topic: processors and consumers."""
    return [(p.name, p.topic) for p in projections()] + [(e().name, t) for e in EFFECTS for t in e().topics]


def _cursors(case: Case) -> Iterator[str]:
    """Every cursor stands at the end of its partition."""
    ends = [
        f"{name} {place[0]} {place[1]} {end}"
        for name, topic in followers()
        for place in case.log.places([topic])
        if (end := case.log.end(place))
    ]
    yield from _compared("cursor", ends, case.found.rows.get("cursor", ()))


def _consumed(case: Case) -> Iterator[str]:
    """The desk and the view hold the last word of each alert and resource, by number."""
    last = {i: max(words, key=lambda w: w["alert_seq"]) for i, words in _told(case.found).items()}
    desk = [f"{alert_id} {word['alert_seq']} {ACTIONS[word['event_type']]}" for alert_id, word in last.items()]
    yield from _compared("alert on the desk", desk, case.found.rows.get("desk", ()))
    entries = {r.key: codec.decode(r.value, ENTRY)["entry_version"] for r in case.found.said(ENTRY)}
    view = [f"{key} {version}" for key, version in entries.items()]
    yield from _compared("entry in the view", view, case.found.rows.get("view", ()))
    yield from _compared("alert for a subscriber", _subscribed(case.found), case.found.rows.get("told", ()))


def _subscribed(found: Found) -> Iterator[str]:
    """What must be queued for the subscriber: the alerts that it wants, and what appeals decided of them."""
    told = [(str(row.event_id), codec.decode(row.value, ALERT)) for row in found.said(ALERT)]
    wanted = {word["alert_id"] for _, word in told if word["kind_code"] in WANTED}
    for event_id, word in told:
        about = word["evidence"][0] if word["kind_code"] == "RULING" else word["alert_id"]
        if about in wanted:
            yield event_id


def _acknowledged(case: Case) -> Iterator[str]:
    """The province has every upload and rollup, each stored by one receipt, and the queue is empty.

    A record that was carried twice may be pushed again after it was acknowledged; then it must be known there.
    """
    pushed = [f"{r.event_id} {r.digest}" for topic in (UPLOAD, ROLLUP) for r in case.found.said(topic)]
    yield from _compared("record at the province", pushed, (" ".join(place) for place in case.province.stored))
    yield from _compared("receipt", pushed, case.found.rows.get("receipt STORED", ()))
    yield from _compared("receipt", pushed, dict.fromkeys([*case.found.rows.get("receipt KNOWN", ()), *pushed]))
    yield from (f"lost: {event_id} is still queued" for event_id in case.found.rows.get("queued", ()))
    yield from (f"wrong: {problem}" for problem in case.province.problems)


def _compared(what: str, wanted: Iterable[Any], found: Iterable[Any]) -> Iterator[str]:
    """Complaints about the difference of two collections, ``wanted`` once each."""
    counts, needed = Counter(iter(found)), dict.fromkeys(wanted)
    for one in needed:
        if not counts[one]:
            yield f"lost: {what} {_text(one)}"
    for one, count in counts.items():
        if one not in needed:
            yield f"phantom: {what} {_text(one)}"
        elif count > 1:
            yield f"doubled: {what} {_text(one)}, {count} times"


def _text(one: Any) -> str:
    parts = one if isinstance(one, tuple) else (one,)
    return " ".join(str(part) for part in parts if not isinstance(part, bytes))


__all__ = ["CASE", "Case", "Found", "calm", "judge", "look"]
