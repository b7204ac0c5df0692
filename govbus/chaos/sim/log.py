"""Kafka's semantics in memory: partitions with offsets, a group with generations, and the three clients that the
product uses (confluent's producer, kafka-python's consumer, aiokafka under Faust's).

Kept: appends are ordered per partition; a fetch needs no membership, a commit needs the current generation; a
position is the reader's own affair; a record that was sent may be in the log though nobody was told.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from aiokafka.errors import KafkaConnectionError as FetchError
from confluent_kafka import KafkaError, KafkaException
from kafka.errors import KafkaConnectionError
from kafka.partitioner.default import murmur2
from kafka.structs import TopicPartition

from govbus.chaos.sim.kinds import CARRIED_AGAIN, HOLE, UNHEARD, UNTOLD
from govbus.chaos.sim.schedule import FOREVER, note, pause, reach
from schemas.topics import TOPICS, Topic

PARTITIONS = 2
MOST = 50
LOST = 0.7
"""Share of a group's commits that are lost together."""
POSITIVE = 0x7FFFFFFF
Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Record:
    """One record as every client hands it over."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: Sequence[tuple[str, bytes]]
    timestamp: int = 0
    timestamp_type: int = 0

    @property
    def event_id(self) -> str:
        """What the CloudEvents header says."""
        return dict(self.headers)["ce_id"].decode()


class Log:
    """The brokers: every partition's records; None is an offset that holds none, as after a transaction's marker."""

    def __init__(self, rng: random.Random, holes: float = 0.0) -> None:
        self.rng = rng
        self._holes = holes
        self._slots: dict[Place, list[Record | None]] = {
            (t.name, p): [] for t in TOPICS for p in range(min(t.partitions, PARTITIONS))
        }
        self.appended = 0
        """So many records were appended, anywhere."""
        self.known: set[tuple[str, str]] = set()
        """(topic, event id) of every record."""
        self.away = False
        """While set, no client gets an answer."""
        self.unanswered = False
        """The next producer that sends is not told so."""

    def append(self, topic: str, key: bytes | None, value: bytes, headers: Iterable[tuple[str, bytes]]) -> Record:
        """Put a record where the Java client would."""
        place = (topic, self.partition_of(topic, key))
        slots = self._slots[place]
        if self._holes and self.rng.random() < self._holes:
            note(HOLE)
            slots.append(None)
        record = Record(*place, len(slots), key, value, tuple(headers))
        slots.append(record)
        self.appended += 1
        if (topic, record.event_id) in self.known:
            note(CARRIED_AGAIN)
        self.known.add((topic, record.event_id))
        return record

    def partition_of(self, topic: str, key: bytes | None) -> int:
        """Where the key's records go: as in Kafka, but of fewer partitions."""
        count = sum(1 for name, _ in self._slots if name == topic)
        return int(murmur2(key or b"") & POSITIVE) % count

    def end(self, place: Place) -> int:
        """The offset after the last record."""
        return len(self._slots[place])

    def growth(
        self, places: Iterable[Place], positions: Mapping[Place, int], moved: Callable[[], int] = lambda: 0
    ) -> Callable[[], bool]:
        """Whether one of ``places`` goes on after its position, for somebody who asks before every turn: looks only
        if the log has grown or a position has ``moved``.
        """
        looked, found = (-1, -1), False

        def grown() -> bool:
            nonlocal looked, found
            now = self.appended, moved()
            if looked != now:
                looked, found = now, any(positions[p] < self.end(p) for p in places)
            return found

        return grown

    def records(self, place: Place) -> list[Record]:
        """All of them."""
        return [r for r in self._slots[place] if r]

    def at(self, place: Place, offset: int) -> Record | None:
        """The record there, if there is one."""
        slots = self._slots.get(place, [])
        return slots[offset] if offset < len(slots) else None

    def read(self, place: Place, offset: int, most: int) -> list[Record]:
        """Some of the records from ``offset`` on, at least one if there is one."""
        waiting = min(self.end(place) - offset, most)
        if waiting <= 0:
            return []
        count = self.rng.choice((waiting, self.rng.randint(1, waiting)))
        found = [r for r in self._slots[place][offset : offset + count] if r]
        return found or [r for r in self._slots[place][offset:] if r][:1]

    @property
    def numbers(self) -> list[Place]:
        """Every partition there is."""
        return list(self._slots)

    def places(self, topics: Iterable[Topic]) -> list[Place]:
        """All partitions of ``topics``."""
        names = {t.name for t in topics}
        return [place for place in self._slots if place[0] in names]


# --- the group ---


class Fenced(Exception):
    """The member's generation is over."""


@dataclass(eq=False, slots=True)
class Member:
    """One member's own idea of its membership; it learns of a new generation when it does."""

    name: str
    generation: int = 0
    assignment: frozenset[Place] = frozenset()


class Group:
    """A consumer group: who owns which partition in this generation, and what was committed."""

    def __init__(self, log: Log, places: Sequence[Place]) -> None:
        self.generation = 0
        self.committed: dict[Place, int] = {}
        self._log = log
        self._places = places
        self._owned: dict[Member, frozenset[Place]] = {}

    def rebalance(self, members: Sequence[Member]) -> None:
        """A new generation of ``members``; whom they are is all that decides, and the dice."""
        self.generation += 1
        shares: dict[Member, set[Place]] = {m: set() for m in members}
        for place in self._places:
            if members:
                shares[self._log.rng.choice(members)].add(place)
        self._owned = {m: frozenset(share) for m, share in shares.items()}

    def stale(self, member: Member) -> bool:
        """Whether ``member`` lives in an old generation."""
        return member in self._owned and member.generation != self.generation

    def sync(self, member: Member) -> None:
        """``member`` learns what is its own now."""
        member.generation, member.assignment = self.generation, self._owned.get(member, frozenset())

    def commit(self, member: Member, offsets: Mapping[Place, int]) -> None:
        """Keep ``offsets``; raises ``Fenced``."""
        if member.generation != self.generation or member not in self._owned:
            raise Fenced
        self.committed.update(offsets)

    def forget_commits(self) -> bool:
        """Some commits are lost, others go back; False if there was none."""
        lost = [place for place in self.committed if self._log.rng.random() < LOST]
        for place in lost:
            self.committed[place] = self._log.rng.choice((0, self.committed[place] // 2))
        return bool(lost)


# --- clients ---


class Message(NamedTuple):
    """A delivery report's message."""

    record: Record

    def topic(self) -> str:
        """Its topic."""
        return self.record.topic

    def partition(self) -> int:
        """Its partition."""
        return self.record.partition

    def offset(self) -> int:
        """Its offset."""
        return self.record.offset


Report = Callable[[KafkaError | None, Any], None]


@dataclass
class _Queued:
    topic: str
    key: bytes
    value: bytes
    headers: Sequence[tuple[str, bytes]]
    report: Report


class Producer:
    """confluent's producer: idempotent, in order, and after a failed record it sends nothing more."""

    def __init__(self, log: Log, fails: Callable[[], bool]) -> None:
        self._log = log
        self._fails = fails
        self._queue: deque[_Queued] = deque()

    def produce(self, topic: str, value: bytes, key: bytes, headers: Any, on_delivery: Report) -> None:
        """Queue a record."""
        self._queue.append(_Queued(topic, key, value, headers, on_delivery))

    def poll(self, _timeout: float) -> None:
        """Send some of what is queued; tell the results of what was sent."""
        pause()
        if self._log.away:
            return pause(1.0)
        sent = [(q, self._send(q)) for q in self._some()]
        pause()  # sent, and nobody told
        if sent and (self._log.unanswered or self._fails()):
            self._log.unanswered = False
            note(UNTOLD)
            self._queue.clear()
            raise KafkaException(KafkaError(KafkaError._FATAL))
        for queued, record in sent:
            queued.report(None, Message(record))
        if sent:
            reach("after a durable step", "log")
        return None

    def purge(self) -> None:
        """Forget what is queued."""
        self._queue.clear()

    def _some(self) -> list[_Queued]:
        return [self._queue.popleft() for _ in range(self._log.rng.randint(0, len(self._queue)))]

    def _send(self, queued: _Queued) -> Record:
        return self._log.append(queued.topic, queued.key, queued.value, queued.headers)


@dataclass
class Reader:
    """kafka-python's consumer without a group."""

    log: Log
    fails: Callable[[], bool]
    positions: dict[Place, int] = field(default_factory=dict)

    def partitions_for_topic(self, topic: str) -> set[int]:
        """Their numbers."""
        return {n for name, n in self.log.numbers if name == topic}

    def assign(self, places: Iterable[TopicPartition]) -> None:
        """Read these."""
        self.positions = {(p.topic, p.partition): 0 for p in places}

    def beginning_offsets(self, places: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Nothing is ever deleted here."""
        return dict.fromkeys(places, 0)

    def end_offsets(self, places: Iterable[TopicPartition], timeout_ms: int) -> dict[TopicPartition, int]:  # noqa: ARG002
        """How far each goes now."""
        self._ask()
        return {place: self.log.end((place.topic, place.partition)) for place in places}

    def seek(self, place: TopicPartition, offset: int) -> None:
        """Read on from ``offset``."""
        self.positions[place.topic, place.partition] = offset

    def poll(self, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Record]]:  # noqa: ARG002
        """Something of what waits, in some of the partitions; waits until there is something."""
        pause(FOREVER, self.log.growth(self.positions, self.positions))
        self._ask()
        found = {}
        for place, offset in self.positions.items():
            if self.log.rng.random() < 0.9 and (records := self.log.read(place, offset, max_records)):
                self.positions[place] = records[-1].offset + 1
                found[TopicPartition(*place)] = records
        return found

    def close(self, autocommit: bool) -> None:
        """Nothing to give back."""

    def _ask(self) -> None:
        """The brokers may not answer."""
        if self.log.away or self.fails():
            note(UNHEARD)
            pause(1.0)
            raise KafkaConnectionError("the simulated broker is away")


class Fetcher:
    """What Faust's consumer asks of the thread that owns the aiokafka consumer."""

    def __init__(self, log: Log, group: Group, member: Member) -> None:
        self.positions: dict[Place, int] = defaultdict(int)
        self.most = MOST
        """Records of one partition that one fetch brings."""
        self.member = member
        self._moved = 0
        self._log = log
        self._group = group

    def assignment(self) -> frozenset[Any]:
        """The partitions that this member believes to be its own."""
        from faust.types import TP

        return frozenset(TP(*place) for place in self.member.assignment)

    async def getmany(self, places: Iterable[Any], timeout: float) -> dict[Any, list[list[Record]]]:
        """Some records of some of ``places``, in parts as they were fetched; waits until there are some.

        At most ``timeout`` seconds.
        """
        mine = sorted(places)
        loop: Any = asyncio.get_running_loop()
        await loop.until(self._log.growth(mine, self.positions, lambda: self._moved), timeout)
        return self.fetch(mine)

    def fetch(self, places: Iterable[Any]) -> dict[Any, list[list[Record]]]:
        """Some records of some of ``places``, now."""
        found = {}
        for place in places:
            if not self._log.away and (records := self._log.read(place, self.positions[place], self.most)):
                self.positions[place] = records[-1].offset + 1
                found[place] = [records]
        return found

    def highwater(self, place: Place) -> int:
        """The end of the log."""
        return self._log.end((place[0], place[1]))

    async def seek_wait(self, offsets: Mapping[Any, int]) -> None:
        """Read on from ``offsets``."""
        if self._log.away or not offsets.keys() <= self.assignment():
            raise FetchError("the simulated broker is away")
        self._move({(tp[0], tp[1]): offset for tp, offset in offsets.items()})

    def fall_back(self) -> bool:
        """Positions fall back to the beginning, unnoticed; False if all are there."""
        moved = [place for place, position in self.positions.items() if position]
        self._move(dict.fromkeys(moved, 0))
        return bool(moved)

    def _move(self, offsets: Mapping[Place, int]) -> None:
        self.positions.update(offsets)
        self._moved += 1

    async def highwaters(self, *places: Any) -> dict[Any, int]:
        """The ends of the log."""
        if self._log.away:
            raise FetchError("the simulated broker is away")
        return {place: self.highwater(place) for place in places}

    async def commit(self, offsets: Mapping[Any, int]) -> bool:
        """Mirror ``offsets`` into the group; False if this member is fenced."""
        try:
            self._group.commit(self.member, {(tp[0], tp[1]): o for tp, o in offsets.items()})
        except Fenced:
            return False
        return True
