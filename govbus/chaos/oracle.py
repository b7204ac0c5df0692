"""The judge, as a process of its own: what was answered to publishers against what came of it.

Knows every event from the answers alone (ok, refused, unknown); reads SQL, the topics and the province's
receipts; imports nothing of ``streams``, so that it and the product can only agree by both being right. Says
what was lost, doubled, wrong, phantom or out of order, and whether the ledgers are equal.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from confluent_kafka import Consumer, TopicPartition

from govbus.chaos import contents, notebook
from govbus.district import oracle as district
from schemas import codec, receipts
from schemas.topics import ALERT, DEADLETTER, ENTRY, INBOUND, ROLLUP, TOPICS, UPLOAD, Topic

Id = tuple[str, str]  # topic and event id
Place = tuple[str, int, int]
SHOWN = 10
FAR = 2**62
SILENT_S = 60.0
PLACES_MOVED, ORDER_NOT_KEPT = "--places-moved", "--order-not-kept"
FAULTS = ("lost", "doubled", "wrong", "phantom", "disordered")
OUTBOX_SQL = "SELECT topic, event_id::text, value, sent_partition, sent_offset FROM outbox"
DEAD_SQL = "SELECT topic, partition, \"offset\" FROM dead_letter WHERE partition IS NOT NULL"
LETTERS_SQL = "SELECT topic, partition, \"offset\", reason FROM dead_letter WHERE partition IS NOT NULL"
RECEIPTS_SQL = "SELECT batch_id::text, body, signature FROM receipt"
VIEW_SQL = "SELECT resource_code, entry_version FROM directory_view"
CARDS_SQL = "SELECT alert_id::text, CASE WHEN revoked_at IS NULL THEN 'ISSUED' ELSE 'REVOKED' END FROM card"
DESK_SQL = "SELECT alert_id::text, action FROM alert_inbox WHERE kind <> 'BAD_RATING'"
HANDLED_SQL = "SELECT said.key, said.value ->> 'action' FROM desk_check CROSS JOIN jsonb_each(said) AS said"
ENTRIES_SQL = "SELECT resource_code, entry_version FROM directory_entry"
RATED_SQL = "SELECT event_id::text, 1 FROM rating_event"
PROVINCE_SQL = "SELECT event_id::text FROM province_record"
QUEUE_SQL = "SELECT count(*) FROM push_queue"


@dataclass(slots=True)
class Verdict:
    """What is wrong, by kind, and the figures compared."""

    faults: dict[str, list[str]] = field(default_factory=lambda: {kind: [] for kind in FAULTS})
    ledgers: dict[str, int] = field(default_factory=dict)

    def say(self, kind: str, what: str, which: Iterable[Any]) -> None:
        """Note everything in ``which`` as a fault of ``kind``."""
        self.faults[kind] += [f"{what}: {one}" for one in sorted(map(str, which))]

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        counts = {kind: len(found) for kind, found in self.faults.items()}
        shown = {kind: found[:SHOWN] for kind, found in self.faults.items() if found}
        return {"clean": not any(counts.values()), "counts": counts, "shown": shown, "ledgers": self.ledgers}


@dataclass(slots=True)
class Answers:
    """What publishers know: accepted events in the order of publishing, and the keys they went under."""

    order: dict[Id, int] = field(default_factory=dict)
    keys: dict[Id, str] = field(default_factory=dict)
    unknown: int = 0
    surprises: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Seen:
    """One record of a topic."""

    place: Place
    event_id: str
    key: str
    digest: bytes
    value: bytes


# --- reading ---


def answers(home: Path) -> Answers:
    """The departments' file."""
    found, asked, got = Answers(), set(), set()
    for entry in notebook.entries(home):
        asked |= {entry["ask"]} if "ask" in entry else set()
        for topic, key, event_id, outcome in entry.get("rows", ()):
            if outcome in ("new", "same"):
                found.order.setdefault((topic, event_id), len(found.order))
                found.keys[topic, event_id] = key
        if "got" in entry:
            got.add(entry["got"])
            found.surprises.update(entry["surprises"])
    found.unknown = len(asked - got)
    return found


def records(bootstrap: str) -> Iterator[Seen]:
    """Every record of every topic from its beginning to its end now; in offset order within a partition."""
    settings = {"bootstrap.servers": bootstrap, "group.id": "oracle", "enable.auto.commit": False}
    consumer = Consumer({**settings, "auto.offset.reset": "earliest"})
    try:
        ends = {(t.name, p): _span(consumer, t.name, p) for t in TOPICS for p in range(t.partitions)}
        left = {place: high for place, (low, high) in ends.items() if low < high}
        consumer.assign([TopicPartition(*place, ends[place][0]) for place in left])
        yield from _until(consumer, left)
    finally:
        consumer.close()


def _span(consumer: Consumer, topic: str, partition: int) -> tuple[int, int]:
    low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=SILENT_S)
    return int(low), int(high)


def _until(consumer: Consumer, left: dict[tuple[str, int], int]) -> Iterator[Seen]:
    """What comes until every partition of ``left`` has been read to the offset given there."""
    heard = time.monotonic()
    while left:
        batch = [m for m in consumer.consume(500, timeout=0.2) if not m.error()]
        heard = time.monotonic() if batch else heard
        if time.monotonic() - heard > SILENT_S:
            raise TimeoutError(f"Kafka gave nothing for {SILENT_S:.0f} s; {len(left)} partitions are not at their end")
        for message in batch:
            place = (message.topic(), message.partition())
            if message.offset() < left.get(place, 0):
                yield _seen(message)
            if message.offset() + 1 >= left.get(place, FAR):
                del left[place]


def _seen(message: Any) -> Seen:
    value, headers = message.value() or b"", dict(message.headers() or ())
    place = (message.topic(), message.partition(), message.offset())
    event_id, key = headers.get("ce_id") or b"", message.key() or b""
    digest = hashlib.sha256(value).digest()
    return Seen(place, event_id.decode(errors="replace"), key.decode(errors="replace"), digest, value)


def _rows(engine: sa.Engine, query: str) -> list[Any]:
    with engine.connect() as tx:
        return list(tx.execute(sa.text(query)))


# --- judging ---


def judge(
    home: Path, kafka: str, engine: sa.Engine, province: sa.Engine, public_key: str, options: Set[str] = frozenset()
) -> Verdict:
    """Compare all of it, now; everything should have settled.

    ``options``: of a log that was lost and filled again one cannot ask that records lie where they were applied from
    (``--places-moved``); if something landed before the loss was noticed, not that all lie in order
    (``--order-not-kept``).
    """
    verdict, said = Verdict(), answers(home)
    carried: dict[Id, list[Seen]] = {}
    for seen in records(kafka):
        carried.setdefault((seen.place[0], seen.event_id), []).append(seen)
    inbound = {t.name for t in INBOUND}
    _published(verdict, said, engine, carried)
    if ORDER_NOT_KEPT not in options:
        _ordered(verdict, said, {i: s for i, s in carried.items() if i[0] in inbound})
    _applied(verdict, said, engine, {i: s for i, s in carried.items() if i[0] in inbound}, PLACES_MOVED in options)
    _acted(verdict, engine, carried)
    _decided(verdict, engine, carried)
    _acknowledged(verdict, engine, province, carried, public_key)
    expected = district.expect(notebook.load(home))
    _refused(verdict, engine, notebook.poisoned(home), expected["dead"])
    verdict.say("wrong", "state", district.compare(engine, expected))
    verdict.say("wrong", "answer", said.surprises)
    verdict.ledgers["unknown"] = said.unknown
    return verdict


def _published(verdict: Verdict, said: Answers, engine: sa.Engine, carried: Mapping[Id, list[Seen]]) -> None:
    """Accepted = in the outbox = on the topics, byte for byte, where the outbox says."""
    outbox = {(t, i): (hashlib.sha256(v).digest(), (t, p, o)) for t, i, v, p, o in _rows(engine, OUTBOX_SQL)}
    inbound = {t.name for t in INBOUND}
    verdict.say("lost", "accepted but not in the outbox", said.order.keys() - outbox.keys())
    verdict.say("lost", "published but not on its topic", outbox.keys() - carried.keys())
    if not said.unknown:
        verdict.say("phantom", "in the outbox, nobody published it",
                    {i for i in outbox if i[0] in inbound} - said.order.keys())  # fmt: skip
    both = outbox.keys() & carried.keys()
    verdict.say("wrong", "other bytes on the topic", (i for i in both if carried[i][0].digest != outbox[i][0]))
    verdict.say("wrong", "not where the outbox says",
                (i for i in both if outbox[i][1] not in {s.place for s in carried[i]}))  # fmt: skip
    verdict.ledgers.update(accepted=len(said.order), published=len(outbox), carried=len(both))
    verdict.ledgers["resent"] = sum(len(carried[i]) - 1 for i in both)


def _ordered(verdict: Verdict, said: Answers, carried: Mapping[Id, list[Seen]]) -> None:
    """Within a key the first copies stand in the order of publishing."""
    by_key: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for i, seen in carried.items():
        if i in said.order:
            by_key.setdefault((i[0], seen[0].key), []).append((seen[0].place[2], said.order[i]))
    wrong = [key for key, pairs in by_key.items() if [n for _, n in sorted(pairs)] != sorted(n for _, n in pairs)]
    verdict.say("disordered", "events of a key", wrong)


def _applied(
    verdict: Verdict, said: Answers, engine: sa.Engine, carried: Mapping[Id, list[Seen]], moved: bool
) -> None:
    """Carried = applied + dead, each event once, nothing that was not carried."""
    rows = [(topic, *row) for topic, table in district.EVENT_TABLES.items()
            for row in _rows(engine, f'SELECT event_id::text, partition, "offset", digest FROM {table}')]  # fmt: skip
    times = Counter((t, e) for t, e, _, _, _ in rows)
    dead = {tuple(row) for row in _rows(engine, DEAD_SQL)}
    verdict.say("doubled", "applied more than once", (i for i, n in times.items() if n > 1))
    verdict.say("lost", "accepted but not applied", said.order.keys() - times.keys())
    verdict.say("phantom", "applied, not carried", times.keys() - carried.keys())
    places = {s.place: i for i, seen in carried.items() for s in seen}
    if not moved:
        verdict.say("wrong", "applied from a place that holds another event",
                    ((t, p, o) for t, e, p, o, _ in rows if places.get((t, p, o)) != (t, e)))  # fmt: skip
    verdict.say("wrong", "applied with another content", ((t, e) for t, e, p, o, d in rows if (t, e) in carried and not
                any(s.digest[:16] == d.bytes for s in carried[t, e] if moved or s.place == (t, p, o))))  # fmt: skip
    unaccounted = [s.place for i, seen in carried.items() if i not in times for s in seen if s.place not in dead]
    verdict.say("lost", "carried, neither applied nor dead", unaccounted)
    verdict.say("phantom", "dead letter of a record that is not there", dead - places.keys())
    verdict.ledgers.update(applied=len(times), dead=len(dead))


def _refused(
    verdict: Verdict, engine: sa.Engine, poisoned: Sequence[notebook.Poisoned], expected: dict[str, int]
) -> None:
    """Every poisoned record is a dead letter for a right reason; adds them to the ``expected`` by reason."""
    letters = {(t, p, o): reason for t, p, o, reason in _rows(engine, LETTERS_SQL)}
    found = [(one, letters.get((one.topic, one.partition, one.offset))) for one in poisoned]
    verdict.say("lost", "poison that is no dead letter", (one for one, reason in found if reason is None))
    verdict.say("wrong", "poison refused for another reason",
                (f"{reason}: {one}" for one, reason in found if reason and reason not in one.reasons))  # fmt: skip
    for reason in (reason for _, reason in found if reason):
        expected[reason] = expected.get(reason, 0) + 1
    verdict.ledgers["poisoned"] = len(poisoned)


def _acted(verdict: Verdict, engine: sa.Engine, carried: Mapping[Id, list[Seen]]) -> None:
    """The supervisor's desk, the directory's view and the dead letters hold the last word of each, all of it."""
    for what, topic, ask in (("alert", ALERT, contents.desk), ("entry", ENTRY, contents.directory),
                             ("dead letter", DEADLETTER, contents.dead_letters)):  # fmt: skip
        last, shown = ask(engine, _words(carried, topic))
        verdict.say("lost", f"{what} not shown", last.keys() - shown.keys())
        verdict.say("phantom", f"{what} never said", shown.keys() - last.keys())
        verdict.say("wrong", f"{what} not as last said", (k for k in last.keys() & shown if shown[k] not in last[k]))


def _decided(verdict: Verdict, engine: sa.Engine, carried: Mapping[Id, list[Seen]]) -> None:
    """What the tables say was decided has been said, and nothing else: a decision may be lost between the two."""
    cards, desk = dict(_rows(engine, CARDS_SQL) + _rows(engine, HANDLED_SQL)), dict(_rows(engine, DESK_SQL))
    verdict.say("lost", "card never said", cards.keys() - desk.keys())
    verdict.say("wrong", "card last said otherwise", (c for c in cards.keys() & desk.keys() if cards[c] != desk[c]))
    verdict.say("wrong", "said, neither derived nor retracted",
                (c for c in desk.keys() - cards.keys() if desk[c] != "RETRACTED"))  # fmt: skip
    verdict.say("doubled", "one card under several ids", _repeated(carried))
    entries, view = dict(_rows(engine, ENTRIES_SQL)), dict(_rows(engine, VIEW_SQL))
    verdict.say("lost", "entry's last word not said", (e for e in entries if view.get(e) != entries[e]))
    rated = dict(_rows(engine, RATED_SQL)).keys()
    uploaded = {str(w["source_event_id"]) for w in _words(carried, UPLOAD) if w["event_type"] == "rating.uploaded"}
    verdict.say("lost", "rating never uploaded", rated - uploaded)
    verdict.say("phantom", "uploaded, never applied", uploaded - rated)
    told, out = contents.standings(engine, _words(carried, UPLOAD))
    verdict.say("wrong", "whether a rating counts is not as last said",
                (place for place in told.keys() | out if told.get(place) != out.get(place)))  # fmt: skip
    rolled, counted = contents.rollups(engine, _words(carried, ROLLUP))
    verdict.say("lost", "rollup's last word not said", (s for s in counted if rolled.get(s) != counted[s]))
    verdict.say("phantom", "rollup of nothing", (s for s in rolled.keys() - counted.keys() if any(rolled[s])))


def _words(carried: Mapping[Id, list[Seen]], topic: Topic) -> Iterator[Mapping[str, Any]]:
    """What was said on ``topic``."""
    return (codec.decode(seen[0].value, topic) for (name, _), seen in carried.items() if name == topic.name)


def _repeated(carried: Mapping[Id, list[Seen]]) -> set[tuple[str, ...]]:
    """Case, rule, colour and moment of cards that were said under more than one id."""
    ids: dict[tuple[str, ...], set[str]] = {}
    for r in _words(carried, ALERT):
        if r["kind_code"] == "CARD":
            what = (r["case_no"], r["rule_id"], r["colour_code"], str(r["issued_at"]))
            ids.setdefault(what, set()).add(r["alert_id"])
    return {what for what, found in ids.items() if len(found) > 1}


def _acknowledged(
    verdict: Verdict, engine: sa.Engine, province: sa.Engine, carried: Mapping[Id, list[Seen]], public_key: str
) -> None:
    """Uploads and rollups = what genuine receipts name = what the province stored, each once."""
    said = {i: (t, seen[0]) for (t, i), seen in carried.items() if t in (UPLOAD.name, ROLLUP.name)}
    pushed = said.keys()
    words: Counter[str] = Counter()
    stored: Counter[str] = Counter()
    for batch, body, signature in _rows(engine, RECEIPTS_SQL):
        if not receipts.signed_by(body, signature, public_key):
            verdict.say("wrong", "receipt without a genuine signature", [batch])
        words.update(r["event_id"] for r in body["records"])
        stored.update(r["event_id"] for r in body["records"] if r["outcome"] == "STORED")
        verdict.say("wrong", "acknowledged with another digest", (e for e, digest in receipts.acknowledged(body)
                    if str(e) in said and digest.bytes != said[str(e)][1].digest[:16]))  # fmt: skip
    kept = {e for (e,) in _rows(province, PROVINCE_SQL)}
    verdict.say("wrong", "at the province with another content",
                contents.garbled(province, {i: (t, s.value) for i, (t, s) in said.items()}))  # fmt: skip
    verdict.say("lost", "not acknowledged by the province", pushed - words.keys())
    verdict.say("phantom", "acknowledged, never said", words.keys() - pushed)
    verdict.say("doubled", "acknowledged as stored more than once", (e for e, n in stored.items() if n > 1))
    verdict.say("lost", "acknowledged, not in the province's database", words.keys() - kept)
    verdict.say("phantom", "in the province's database, never acknowledged", kept - words.keys())
    ((queued,),) = _rows(engine, QUEUE_SQL)
    verdict.say("lost", "still queued for the province", range(queued))
    verdict.ledgers.update(pushed=len(pushed), acknowledged=len(words), stored=len(kept))


def main() -> None:
    """``python -m govbus.chaos.oracle``: judges the bus of the settings; prints the verdict as JSON."""
    from govbus.settings import load

    settings = load()
    published = json.loads((settings.home / "province" / "address.json").read_text())
    engine, province = sa.create_engine(settings.database_url), sa.create_engine(settings.province_database_url)
    verdict = judge(settings.home, settings.kafka, engine, province, published["public_key"], set(sys.argv[1:]))
    if any(name.partition(".")[0] == "streams" for name in sys.modules):
        verdict.say("wrong", "the oracle is not independent", ["it imported streams"])
    print(json.dumps(verdict.plain()))


if __name__ == "__main__":
    main()
