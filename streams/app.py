"""The application factory: one agent per inbound topic, one line per processor, and a watchdog over all of
them.

Decides how Faust is configured and when the process must end. Truth and offsets live in SQL (DESIGN §2.2),
so Faust keeps no tables, no transactions and no web server here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import faust
import sqlalchemy as sa
import structlog
from aiokafka.errors import KafkaError
from faust.tables.manager import TableManager
from faust.types import TP

from schemas import access
from schemas.clock import wall_clock
from schemas.errors import Retryable
from streams.agents.line import Line
from streams.fault import die
from streams.store import heap, inflight, quarantine, revision
from streams.store.applier import cursors
from streams.store.bulk import driver
from streams.store.engine import is_transient, reading, why
from streams.store.horizon import Clock
from streams.store.projection import Projection
from streams.transport import Transport

GROUP = "govbus"
SESSION_S, HEARTBEAT_S, REQUEST_S = 6.0, 0.5, 60.0
"""6 s is the least that a broker allows by default. A worker hears at its next heartbeat that another one is back, and
until then nobody has that one's partitions.
"""
FETCH_BYTES = 2 * 1024 * 1024
"""What one fetch brings of a partition at most: to read it by column costs the same however much it is."""
METADATA_MS = 3_000
"""How often the broker is asked about the topics. The client does not repeat a question that failed: whoever becomes
the group's leader without an answer gives nobody a partition, and the group idles until it asks again."""
SCHEMA_EVERY_S = 5.0
"""How long a worker may write on under a schema that was changed beneath it."""
WATCH_EVERY_S, SEEK_AFTER_S, END_AFTER_S = 2.0, 4.0, 60.0
log = structlog.get_logger(__name__)


class NoTables(TableManager):  # type: ignore[misc]
    """Faust's tables, of which we have none: nobody needs to wait for them a second at every start."""

    async def sleep(self, *_: object, **__: object) -> None:
        """Do not."""


class Lines:
    """All lines of this worker; what the transport asks about them (``streams.transport.Intake``)."""

    def __init__(self, engine: sa.Engine, lines: Sequence[Line]) -> None:
        self.by_topic = {line.projection.topic.name: line for line in lines}
        self._engine = engine

    def cursors(self) -> Mapping[tuple[str, int], int]:
        """SQL cursors of all processors; waits, and says so, while the database is away."""
        wait = 0.1
        while True:
            try:
                with reading(self._engine).connect() as tx:
                    found = cursors(tx, [line.projection.name for line in self.by_topic.values()])
                inflight.settle(found)
                quarantine.dismiss()
                return found
            except Exception as error:
                if not is_transient(error):
                    raise
                log.warning("cursors: waiting for PostgreSQL", why=why(error))
            time.sleep(wait)
            wait = min(wait * 2, 5.0)

    def saturated(self, topic: str) -> bool:
        """True while no more chunks of ``topic`` should be fetched."""
        return self.by_topic[topic].saturated

    def committed(self) -> Mapping[tuple[str, int], int]:
        """``next_offset`` by (topic, partition), as this worker last committed it."""
        return {(t, p): o for t, line in self.by_topic.items() for p, o in line.committed.items()}


def create_app(
    bootstrap: str,
    engine: sa.Engine,
    projections: Sequence[Projection],
    home: Path,
    clock: Clock = "wall",
    settle_ms: int = 200,
    name: str = "",
    wall_ms: Callable[[], int] = wall_clock,
) -> faust.App:
    """A Faust application that applies ``projections``; ``bootstrap`` is ``host:port[,host:port]``.

    ``name`` makes the worker a static member of its group: started again within the session timeout it has
    its partitions back at once. No two workers may bear the same name; without one, others take over first.
    Nothing is connected before the application starts.
    """
    app = _configured(bootstrap, home, name)
    lines = Lines(engine, [Line(engine, p, clock, settle_ms, wall_ms) for p in projections])
    app.intake = lines
    for line in lines.by_topic.values():
        _add(app, line)
    _add_task(app, "watchdog", lambda: _watch(app, lines))
    _add_task(app, "heap", _give_back)
    _add_task(app, "schema", lambda: _same_schema(engine))
    return app


def _configured(bootstrap: str, home: Path, name: str) -> faust.App:
    url = ";".join(f"govbus://{server}" for server in bootstrap.split(","))
    app = faust.App(
        GROUP,
        broker=url,
        broker_credentials=access.current().faust(),
        store="memory://",
        datadir=str(home / "worker"),
        autodiscover=False,
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        value_serializer="raw",
        key_serializer="raw",
        stream_wait_empty=False,
        stream_buffer_maxsize=64,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=FETCH_BYTES,
        consumer_metadata_max_age_ms=METADATA_MS,
        consumer_group_instance_id=name or None,
        broker_session_timeout=SESSION_S,
        broker_heartbeat_interval=HEARTBEAT_S,
        broker_rebalance_timeout=SESSION_S,
        broker_request_timeout=REQUEST_S,
        broker_commit_interval=2.0,
        worker_redirect_stdouts=False,
        TableManager=NoTables,
    )
    app.transport = Transport(app.conf.broker, app, app.loop)
    return app


def _add(app: faust.App, line: Line) -> None:
    topic = app.topic(
        line.projection.topic.name, value_serializer="raw", key_serializer="raw", internal=False,
        acks=False,  # cursors say what is done; Faust's own account would grow by every chunk for ever
    )  # fmt: skip

    async def hand_over(messages: Any) -> None:
        async for chunks in messages:
            for chunk in chunks:
                await line.put(chunk)

    app.agent(topic, name=line.projection.name)(hand_over)
    _add_task(
        app,
        line.projection.name,
        lambda: line.run(lambda t: end_offsets(app, t), lambda t, o: seek_back(app, t, o)),
    )
    if line.speaks_aside:
        _add_task(app, f"{line.projection.name}-aside", line.run_aside)


def _add_task(app: faust.App, name: str, work: Callable[[], Awaitable[None]]) -> None:
    async def task() -> None:
        try:
            await work()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # a panic of a decoder is no Exception
            die(name, error)

    app.task(task)


async def end_offsets(app: faust.App, topic: str) -> Mapping[int, int]:
    """End offsets of this worker's partitions of ``topic``, asked now; empty if the broker does not
    answer.
    """
    consumer: Any = app.consumer
    try:
        tps = {tp for tp in consumer.assignment() if tp.topic == topic}
        ends = await consumer.end_offsets(tps) if tps and not app.rebalancing else {}
    except (KafkaError, RuntimeError):
        return {}
    return {tp.partition: offset for tp, offset in ends.items()}


async def seek_back(app: faust.App, topic: str, offsets: Mapping[int, int]) -> None:
    """Read ``topic`` again from ``offsets`` (by partition)."""
    consumer: Any = app.consumer
    consumer.reposition({TP(topic, p): offset for p, offset in offsets.items()})


async def _give_back() -> None:
    """Once a minute, what was freed and is not used again; tens of milliseconds, in a thread of its own."""
    while True:
        await asyncio.sleep(heap.EVERY_S)
        await asyncio.to_thread(heap.give_back)


async def _same_schema(engine: sa.Engine) -> None:
    """Raise ``Misconfigured`` once the database was migrated beneath this worker; its connections live on."""
    while True:
        await asyncio.sleep(SCHEMA_EVERY_S)
        await asyncio.to_thread(_check_schema, engine)


def _check_schema(engine: sa.Engine) -> None:
    try:
        with reading(engine).connect() as tx:
            revision.check(driver(tx))
    except Exception as error:
        if not is_transient(error):
            raise


async def _watch(app: faust.App, lines: Lines) -> None:
    """Read again from the cursor where a partition's lag stands though its line has nothing to do; end the
    process if that does not help: Faust can idle without an error (DESIGN §2, traps).
    """
    consumer: Any = app.consumer
    since: dict[TP, tuple[int, float]] = {}
    while True:
        await asyncio.sleep(WATCH_EVERY_S)
        stand, beyond = await _astray(app, lines)
        now = time.monotonic()
        if beyond:
            places = [f"{tp.topic}/{tp.partition}: ends at {end}, cursor at {at}" for tp, (end, at) in beyond.items()]
            log.error("the log ends before the cursor: it has lost records", partitions=places, mend="govbus resend")
        since = {tp: s if (s := since.get(tp, (at, now)))[0] == at else (at, now) for tp, at in stand.items()}
        stuck = {tp: at for tp, (at, when) in since.items() if now - when >= SEEK_AFTER_S}
        if any(now - since[tp][1] >= END_AFTER_S for tp in stuck):
            raise Stuck(f"{len(stuck)} partitions have lag and no cursor moved for {END_AFTER_S:.0f} s")
        if stuck:
            log.warning("lag stands; reading again from the cursors", partitions=len(stuck))
            consumer.reposition(stuck)


class Stuck(Exception):
    """Lag stands and offsets do not move."""


async def _astray(app: faust.App, lines: Lines) -> tuple[dict[TP, int], dict[TP, tuple[int, int]]]:
    """Of this worker's partitions, the cursors of those that are behind the log while their line is idle, and (end,
    cursor) of those whose log ends before the cursor; nothing if broker or database do not answer. A partition that
    waits for a damaged batch to be mended is neither.
    """
    consumer: Any = app.consumer
    try:
        tps = {tp for tp in consumer.assignment() - consumer.damaged if lines.by_topic[tp.topic].idle}
        at = await asyncio.get_running_loop().run_in_executor(None, lines.cursors)
        ends = await asyncio.wait_for(consumer.end_offsets(tps), REQUEST_S) if tps else {}
    except (KafkaError, RuntimeError, TimeoutError, Retryable):
        return {}, {}
    places = {TP(tp.topic, tp.partition): (end, at.get(tuple(tp), 0)) for tp, end in ends.items()}
    behind = {tp: cursor for tp, (end, cursor) in places.items() if end > cursor}
    return behind, {tp: place for tp, place in places.items() if place[0] < place[1]}
