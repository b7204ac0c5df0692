"""The processes of the bus, real code inside: department, relay, worker, consumer, push, and the province.

Real are the publisher, the relay and its sender, Faust's transport in chunks, the lines with projections and rules,
the watchdog, the consumers' loop with their effects, and the push. Ours are what surrounds them: the brokers (``log``),
the little that Faust does between transport and line, and the province.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from unittest.mock import patch

import httpx
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

import connectors.intact
import connectors.relay
import consumers.alerts.desk
import consumers.loop
import streams.agents.line
import streams.app
import streams.rules.calendar
import streams.store.desk
import streams.transport
from connectors.province.push import Queue, Sender
from connectors.relay import Relay
from consumers.alerts.desk import DeskClock
from consumers.alerts.inbox import Inbox
from consumers.alerts.queue import Queue as Subscribed
from consumers.alerts.queue import Subscription
from consumers.alerts.quiet import Quiet
from consumers.directory.view import View
from consumers.province.keys import Signer
from govbus.chaos.sim.database import Connection
from govbus.chaos.sim.history import History, Stray
from govbus.chaos.sim.kinds import LATE, LOST, REFUSED, TWICE, UNRECEIPTED, ZOMBIE
from govbus.chaos.sim.log import MOST, Fetcher, Group, Log, Member, Producer, Reader
from govbus.chaos.sim.loop import Loop
from govbus.chaos.sim.schedule import FOREVER, Process, Schedule, Stop, Time, note, pause, reach
from govbus.district.model import Row
from govbus.district.publishing import Departments, Raw
from schemas import receipts
from schemas.errors import Retryable
from schemas.topics import HANDLING
from streams.agents import projections
from streams.agents.line import Line
from streams.app import Lines
from streams.store.horizon import Clock
from streams.store.tally import TallyProjection
from streams.transport import Chunk, ChunkConsumer

SETTLE_MS = 200
TICK_S, ASIDE_S, POLL_S, STRETCHED, MIRROR_S = 1.0, 2.0, 5.0, 20.0, 0.1
"""Paces of those who look again though nothing stirred: slower than in the product, for each look costs time. Only
offsets are mirrored more often, or there would be no commits to lose."""
RATHER_BEFORE_OTHERS = 0.7
"""How often a chunk that is to be lost is one behind which there is more: only then is there a gap to see."""
Dice = Callable[[], bool]


@contextmanager
def surroundings(schedule: Schedule, log: Log, fails: Dice) -> Iterator[None]:
    """While it lasts, the product's modules meet the simulated clock and the simulated brokers."""
    time = Time(schedule)
    with (
        patch.object(connectors.relay, "time", time),
        patch.object(streams.agents.line, "time", time),
        patch.object(streams.app, "time", time),
        patch.object(streams.transport, "time", time),
        patch.object(connectors.relay, "POLL_SECONDS", POLL_S),
        patch.object(streams.agents.line, "TICK_S", TICK_S),
        patch.object(TallyProjection, "aside_s", ASIDE_S),
        patch.object(connectors.relay, "Producer", lambda *_, **__: Producer(log, fails)),
        patch.object(connectors.intact, "ends", lambda _, places: {place: log.end(place) for place in places}),
        patch.object(consumers.loop, "reader", lambda *_: Reader(log, fails)),
        patch.object(consumers.alerts.desk, "reader", lambda *_: Reader(log, fails)),
        patch.object(consumers.alerts.desk, "EVERY_S", TICK_S),
        patch.object(streams.store.desk, "partition_of", lambda no: log.partition_of(HANDLING.name, no.encode())),
        patch.object(consumers.loop, "random", schedule.rng),
        patch.object(consumers.loop, "time", time),
        patch.object(driver.Consumer, "__init__", _without_services),
        patch.object(streams.rules.calendar, "_calendar", _calendar),
    ):
        yield


_calendar = lru_cache(maxsize=500)(streams.rules.calendar._calendar.__wrapped__)
"""As the product's, but for many histories in turn."""


# --- departments ----------------------------------------------------------------------------------


@dataclass
class Department:
    """A sender that publishes its rows in order, some at a time, until each is answered."""

    engine: sa.Engine
    rows: deque[Row]
    schedule: Schedule
    done: Callable[[Sequence[Row]], None]
    surprises: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Publish all; what was not answered is sent again, also by the next life of this process."""
        departments = Departments(self.engine, repeated=True)
        again = True
        while self.rows:
            some = list(self.rows)[: self.schedule.rng.choice((1, 5, 20))]
            try:
                departments.publish(some, again)
            except Retryable:
                again = True
                pause(0.1)
                continue
            self.surprises += departments.tally.surprises
            departments.tally.surprises.clear()
            again = False
            self.done(some)
            for _ in some:
                self.rows.popleft()
            pause(self.schedule.rng.choice((0, 0, 0.01, 0.4)))


def smuggle(log: Log, strays: Sequence[Stray]) -> None:
    """Somebody writes to the topics directly: each stray once, the repeated ones after the original."""
    for stray in strays:
        pause(log.rng.random(), None)
        if stray.after:
            pause(FOREVER, lambda a=stray.after: _carried(log, a))  # type: ignore[misc]
        log.append(stray.raw.topic.name, stray.raw.key, stray.raw.value, stray.raw.headers)


def _carried(log: Log, raw: Raw) -> bool:
    """Whether it is there as it is: a damaged record may bear the same id or the same bytes."""
    wanted = dict(raw.headers)["ce_id"].decode(), raw.value
    return any((r.event_id, r.value) == wanted for p in log.places([raw.topic]) for r in log.records(p))


# --- worker ---------------------------------------------------------------------------------------


def _without_services(self: Any, app: Any, fetcher: Fetcher) -> None:
    """What fetching needs of Faust's consumer, without the services around it."""
    self.app, self._thread = app, fetcher
    self._active_partitions, self._paused_partitions, self._buffered_partitions = set(), set(), set()
    self._read_offset = defaultdict(lambda: None)
    self._committed_offset = defaultdict(lambda: None)
    self.can_resume_flow, self.suspend_flow = asyncio.Event(), asyncio.Event()
    self.not_waiting_next_records = asyncio.Event()


class Consumer(ChunkConsumer):
    """The transport's consumer; it never stops by itself."""

    should_stop = False


@dataclass
class App:
    """What transport and watchdog ask of the Faust application."""

    intake: Lines
    consumer: Any = None
    consumer_generation_id: int = 0
    rebalancing: bool = False
    client_only: bool = False


class Worker:
    """A worker process: the transport's consumer, buffers as Faust's streams have them, and the lines."""

    def __init__(
        self,
        process: Process,
        engine: sa.Engine,
        log: Log,
        group: Group,
        history: History,
        clock: Clock,
        wall_ms: Callable[[], int],
    ) -> None:
        self.process = process
        self.member = Member(process.name)
        self.buffers: dict[str, deque[Chunk]] = defaultdict(deque)
        self._mishap = ""
        """What becomes of the chunk that it hands over next: ``LOST``, ``TWICE`` or ``LATE``."""
        self._once_more: Chunk | None = None
        self.fetcher = Fetcher(log, group, self.member)
        self._group = group
        self._log = log
        self._rng = log.rng
        self._loop = Loop(process)
        process.on_durable = self._count_zombie
        mine = [p for p in projections() if p.topic in history.topics]
        self.lines = Lines(engine, [Line(engine, p, clock, SETTLE_MS, wall_ms) for p in mine])
        self._app: Any = App(self.lines)
        self._app.consumer = self._consumer = Consumer(self._app, self.fetcher)
        self._consumer.flow_active = False

    def mislay(self, mishap: str) -> None:
        """Let this become of the chunk that it hands over next; one to be lost is small, with more behind."""
        self._mishap = mishap
        self.fetcher.most = 1 if mishap == LOST else MOST

    def _count_zombie(self) -> None:
        """What a worker commits though others have taken over, and it does not know."""
        if self._group.stale(self.member):
            note(ZOMBIE)

    def start(self) -> None:
        """Begin to live; a member of the group at the next rebalance."""
        self._loop.start(self._join())
        self._loop.start(self._drain())
        self._loop.start(self._mirror())
        self._loop.start(streams.app._watch(self._app, self.lines))
        for line in self.lines.by_topic.values():
            self._loop.start(self._agent(line))
            self._loop.start(line.run(self._ends, self._seek_back))
            if line.speaks_aside:
                self._loop.start(line.run_aside())
        self.process.spawn(self._loop.live)

    async def _join(self) -> None:
        while True:
            await self._loop.until(lambda: self._group.stale(self.member))
            await self._rebalance()

    async def _rebalance(self) -> None:
        """As Faust does: the flow stops, buffers may be emptied, and reading begins at what is committed."""
        app, consumer = self._app, self._consumer
        app.rebalancing = True
        consumer.stop_flow()
        if self._rng.random() < 0.7:
            self.buffers.clear()
        self._group.sync(self.member)
        app.consumer_generation_id = self.member.generation
        consumer._set_active_tps(set(self.fetcher.assignment()))
        await consumer.perform_seek()
        consumer.resume_flow()
        app.rebalancing = False

    async def _drain(self) -> None:
        """Faust's conductor: what lies at or below its mark is dropped in silence, the rest goes to the streams."""
        consumer = self._consumer
        while True:
            while not (consumer.flow_active and consumer._active_partitions):
                await self._loop.until(lambda: consumer.flow_active and consumer._active_partitions)
            async for tp, message in consumer.getmany(1.0):
                mark = consumer._read_offset[tp]
                if mark is None or message.offset > mark:
                    for chunk in message.value:
                        self._hand_over(chunk)
                    consumer._read_offset[tp] = message.offset

    def _hand_over(self, chunk: Chunk) -> None:
        """To the stream of its topic, unless the seed has something else in mind: the chunk is gone, so that the next
        one starts above the cursor; it comes twice at once; it comes once more after the next one.
        """
        place = (chunk.topic, chunk.partition)
        if self._mishap == LOST and self._log.end(place) == chunk.end and self._rng.random() < RATHER_BEFORE_OTHERS:
            return self.buffers[chunk.topic].append(chunk)
        mishap = self._mishap
        self.mislay("")
        if mishap:
            note(mishap)
        if mishap != LOST:
            self.buffers[chunk.topic].append(chunk)
        if mishap == TWICE:
            self.buffers[chunk.topic].append(chunk)
        elif self._once_more:
            self.buffers[self._once_more.topic].append(self._once_more)
        self._once_more = chunk if mishap == LATE else None
        return None

    async def _agent(self, line: Line) -> None:
        topic = line.projection.topic.name
        while True:
            while not self.buffers[topic]:
                await self._loop.until(lambda: self.buffers[topic])
            await line.put(self.buffers[topic].popleft())

    async def _mirror(self) -> None:
        """Faust commits now and then."""
        while True:
            await asyncio.sleep(MIRROR_S)
            await self._consumer.commit()

    async def _ends(self, topic: str) -> Mapping[int, int]:
        return await streams.app.end_offsets(self._app, topic)

    async def _seek_back(self, topic: str, offsets: Mapping[int, int]) -> None:
        await streams.app.seek_back(self._app, topic, offsets)


# --- relay, consumers, push -----------------------------------------------------------------------


def relay(engine: sa.Engine, batch_rows: int) -> Callable[[], None]:
    """The relay process."""
    return lambda: Relay(engine, "simulated", batch_rows).run(Stop())  # type: ignore[arg-type]


def consumer(engine: sa.Engine, effect: Any) -> Callable[[], None]:
    """A consumer's process."""
    return lambda: consumers.loop.Loop(engine, "simulated", effect).run(Stop())  # type: ignore[arg-type]


def desk(engine: sa.Engine, clock: Clock, wall_ms: Callable[[], int]) -> Callable[[], None]:
    """The desk's process, which looks at what is due."""
    return lambda: DeskClock(engine, "simulated", clock, SETTLE_MS, wall_ms).run(Stop())  # type: ignore[arg-type]


WANTED = frozenset({"CARD", "BAD_RATING"})
"""Kinds of alerts that the subscriber wants."""
EFFECTS: tuple[Callable[[], Any], ...] = (
    lambda: Inbox(lambda: 0),
    View,
    Queue,
    lambda: Subscribed([Subscription("subscriber", WANTED)], Quiet(), 0, lambda: 0),
)


@dataclass
class Province:
    """The other organisation: keeps each record once, signs, and answers when it likes."""

    rng: Any
    fails: Dice
    signer: Signer = field(default_factory=lambda: Signer(Ed25519PrivateKey.from_private_bytes(b"province" * 4)))
    stored: dict[tuple[str, str], str] = field(default_factory=dict)
    """By (event id, digest): the batch that brought it first."""
    answers: dict[str, tuple[bytes, dict[str, Any]]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    mishap: str = ""
    """What goes wrong with the next batch."""

    def answer(self, request: httpx.Request) -> httpx.Response:
        """Take a batch; it may refuse before, and the answer may be lost after."""
        pause()
        if self._goes_wrong(REFUSED):
            return httpx.Response(503, headers={"Retry-After": "1"})
        signed = self._take(json.loads(request.content), request.content)
        reach("after a durable step", "province")
        pause()
        if self._goes_wrong(UNRECEIPTED):
            raise httpx.ReadTimeout("the simulated answer is lost")
        return httpx.Response(200, stream=httpx.ByteStream(json.dumps(signed).encode()))  # read as it comes

    def _goes_wrong(self, how: str) -> bool:
        wrong = self.mishap == how or self.fails()
        if wrong:
            self.mishap = ""
            note(how)
        return wrong

    def _take(self, batch: Mapping[str, Any], content: bytes) -> dict[str, Any]:
        """The receipt; the same for the same batch."""
        batch_id = batch["batch_id"]
        if batch_id not in self.answers:
            body = {"batch_id": batch_id, "records": [self._keep(batch_id, r) for r in batch["records"]]}
            signed = {"receipt": body, "signature": self.signer.sign(receipts.canonical(body))}
            self.answers[batch_id] = (content, signed)
        known, answer = self.answers[batch_id]
        if known != content:
            self.problems.append(f"batch {batch_id} came again with other content")
        return answer

    def _keep(self, batch_id: str, record: Mapping[str, Any]) -> dict[str, str]:
        place = (record["event_id"], record["digest"])
        outcome = "KNOWN" if place in self.stored else "STORED"
        self.stored.setdefault(place, batch_id)
        return {"event_id": place[0], "digest": place[1], "outcome": outcome}


def push(engine: sa.Engine, province: Province) -> Callable[[], None]:
    """The push process."""
    client = httpx.Client(transport=httpx.MockTransport(province.answer), trust_env=False)
    key = province.signer.public_key

    def run() -> None:
        sender = Sender(engine, lambda: ("http://province", key), "430903", client, lambda: 0.0, lambda: 0.5)
        sender.run(Stop(lambda: Connection.commits["push_queue"], STRETCHED))  # type: ignore[arg-type]

    return run


__all__ = [
    "EFFECTS", "TP", "WANTED", "Department", "Province", "Worker", "consumer", "desk", "push", "relay", "smuggle",
    "surroundings",
]  # fmt: skip
