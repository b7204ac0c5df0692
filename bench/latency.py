"""``govbus bench latency``: from Kafka's acknowledgement of a bad rating to its alert at a consumer, at 500 ratings a
second and at 10, 50 and 80 % of what worker, relay and the load's own sender were measured to carry together.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from math import inf
from typing import Any

import sqlalchemy as sa

from bench import load, log, ours
from bench.chain import relay
from bench.given import Given
from bench.load import Message
from bench.measure import Round, Target, percentile, report
from bench.publishing import UNSENT
from bench.ratings import UNMERGED
from bench.stand import Stand, stand
from schemas import codec
from schemas.errors import GovbusError
from schemas.topics import ALERT, RATING
from streams.store.engine import connect
from streams.store.tables import outbox

STEADY = 500
SHARES = (10, 50, 80)
FIRST_S = 3.0
"""Left out: the beginning of each load."""
LOAD_S = 20.0
"""At 500 a second some 340 alerts: the 99th percentile of 140 would be their second worst."""
LINGER_MS = 5
"""How long the sender gathers: librdkafka's default. With 1 ms it sends batches of one to three records, and broker and
sender take 88 to 92 % of a core instead of 70 at half load (docs/decisions/0017)."""
DRAIN_S = 60.0
QUIET_S = 120.0
WARM = 1_000
"""Ratings before all others: imports, plans and group join are over then."""
BAD = "1", "2"
UNSENT_ALERTS = f"SELECT EXISTS (SELECT FROM outbox WHERE sent_at IS NULL AND topic = '{ALERT.name}')"
TARGETS = (
    Target("p99 under 60 ms at 500 ev/s", figure="p99_ms_at_500", most=60),
    Target("p99 under 150 ms at 50 % load", figure="p99_ms_at_50_percent", most=150),
)


def run(given: Given) -> dict[str, Any]:
    """The report of ``given.rounds`` rounds.

    ``rate`` is the capacity: ``events`` ratings, sent as fast as the sender can, a second from the first of them until
    the last alert is in its topic. A backlog is carried faster, for it comes in larger pieces and nobody is sending.
    The worker says no single ratings for the province, as in ``bench ratings``; all ratings are of one day, as live
    ones are.
    """
    with stand() as place:
        rounds = [_round(place, given, number) for number in range(given.rounds)]
        return report("latency", rounds, TARGETS, events=given.events, seconds=LOAD_S, linger_ms=LINGER_MS)


def _round(place: Stand, given: Given, number: int) -> Round:
    with place.database() as url, place.directory(f"latency-{number}") as home, ExitStack() as stack:
        engine = connect(url)
        stack.callback(engine.dispose)
        relay(place, url, home, stack).wait_leading(engine)
        workers = ours.start(place, url, home, stack, 1, ("--without-uploads",))
        keys = count(10_000_000 * (1 + number * (len(SHARES) + 3)), 10_000_000)
        _load(place.kafka, STEADY, _made(WARM, next(keys)))
        _quiet(place, engine, workers)
        capacity = _capacity(place, engine, workers, given, next(keys))
        watch = stack.enter_context(watching(place.kafka))
        figures = {"rate": capacity}
        loads = {f"{STEADY}": float(STEADY), **{f"{s}_percent": capacity * s / 100 for s in SHARES}}
        for step, (name, rate) in enumerate(loads.items()):
            given.tell(f"{rate:,.0f} ratings a second", step, len(loads))
            found = _measured(place, engine, rate, next(keys), watch)
            figures |= {f"{k}_at_{name}": v for k, v in found.items()}
            _quiet(place, engine, workers)
    return Round(figures)


def _capacity(place: Stand, engine: sa.Engine, workers: ours.Workers, given: Given, first: int) -> float:
    """Ratings a second from the first that is sent until all are applied and all alerts are sent."""
    given.tell("capacity", 0, given.events)
    made = _made(given.events, first)
    began = time.monotonic()
    _load(place.kafka, inf, made)
    ends = log.ends(place.kafka, RATING)
    while (left := ours.behind(engine, RATING, ends)) or ours.ask(engine, UNSENT_ALERTS):
        given.tell("capacity", given.events - left, given.events)
        workers.must_live()
        time.sleep(0.05)
    rate = given.events / (time.monotonic() - began)
    _quiet(place, engine, workers)
    return rate


def _quiet(place: Stand, engine: sa.Engine, workers: ours.Workers) -> None:
    """Return when nothing is under way, rollups included (those are given two minutes)."""
    deadline = time.monotonic() + QUIET_S
    while ours.behind(engine, RATING, log.ends(place.kafka, RATING)) or (
        time.monotonic() < deadline and any(ours.ask(engine, open_) for open_ in (UNSENT, UNMERGED))
    ):
        workers.must_live()
        time.sleep(0.2)


@dataclass
class Watch:
    """When each alert came (epoch seconds), and its own event id, by the event id of its rating."""

    seen: dict[str, tuple[float, str]]


@contextmanager
def watching(kafka: str) -> Iterator[Watch]:
    """Reads alerts from now on, from a thread, as a supervisor's desk would."""
    watch, stop, ready = Watch({}), threading.Event(), threading.Event()
    thread = threading.Thread(target=_watch, args=(kafka, watch, stop, ready), daemon=True)
    thread.start()
    try:
        if not ready.wait(30):
            raise GovbusError("the alerts cannot be read")
        yield watch
    finally:
        stop.set()
        thread.join(10)


def _watch(kafka: str, watch: Watch, stop: threading.Event, ready: threading.Event) -> None:
    consumer = log.tail(kafka, ALERT)
    ready.set()
    while not stop.is_set():
        message = consumer.poll(0.1)
        if message is not None and not message.error():
            alert = codec.decode(message.value(), ALERT)
            for rating in alert["evidence"]:
                watch.seen.setdefault(rating, (time.time(), alert["event_id"]))
    consumer.close()


def _measured(place: Stand, engine: sa.Engine, rate: float, first: int, watch: Watch) -> dict[str, float]:
    """Latencies of the bad ratings among ``rate`` a second for some seconds; raises if an alert does not come."""
    acked = _load(place.kafka, rate, _made(int(rate * (FIRST_S + LOAD_S)), first))
    deadline = time.monotonic() + DRAIN_S
    while missing := acked.keys() - watch.seen.keys():
        if time.monotonic() > deadline:
            raise GovbusError(f"{len(missing)} of {len(acked)} alerts did not come within {DRAIN_S:.0f} s")
        time.sleep(0.1)
    waits = [1000 * (watch.seen[rating][0] - at) for rating, at in acked.items()]
    found = {"p50_ms": percentile(waits, 0.5), "p99_ms": percentile(waits, 0.99), "alerts": float(len(waits))}
    return found | _stages(engine, acked, watch)


def _stages(engine: sa.Engine, acked: Mapping[str, float], watch: Watch) -> dict[str, float]:
    """Medians of the parts of the way: until the alert stands in the outbox (but for its commit), until the relay has
    marked it as sent, until the consumer has it since it was put into the outbox.
    """
    rating = {watch.seen[r][1]: r for r in acked}
    query = sa.select(outbox.c.event_id, outbox.c.queued_at, outbox.c.sent_at).where(outbox.c.topic == ALERT.name)
    with engine.connect() as tx:
        rows = [(rating[str(i)], queued, sent) for i, queued, sent in tx.execute(query) if str(i) in rating]
    parts = {
        "to_outbox_p50_ms": [queued - 1000 * acked[r] for r, queued, _ in rows],
        "outbox_to_marked_p50_ms": [float(sent - queued) for _, queued, sent in rows if sent],
        "outbox_to_consumer_p50_ms": [1000 * watch.seen[r][0] - queued for r, queued, _ in rows],
    }
    return {name: percentile(values, 0.5) for name, values in parts.items()}


def _load(kafka: str, rate: float, made: Sequence[tuple[Message, str]]) -> dict[str, float]:
    """Send ``made`` at ``rate``; when each bad one was acknowledged (epoch seconds), the beginning left out."""
    sender: Any = load.producer(kafka, linger_ms=LINGER_MS)
    acked: dict[str, float] = {}
    began = time.monotonic()
    for number, (message, bad) in enumerate(made):
        while len(sender) >= load.SECTION or number > (time.monotonic() - began) * rate:
            sender.poll(0.001)
        key, value, headers = message
        told = _recorder(acked, bad) if bad and number > rate * FIRST_S else None
        sender.produce(RATING.name, value, key, headers=headers, on_delivery=told)
        sender.poll(0)
    if sender.flush(60):
        raise GovbusError("the broker did not take the load")
    return acked


def _recorder(acked: dict[str, float], rating: str) -> Any:
    def told(error: Any, _: Any) -> None:
        if error is None:
            acked[rating] = time.time()

    return told


def _made(ratings: int, first: int) -> Sequence[tuple[Message, str]]:
    """Messages, each with its event id if the rating is bad, else with nothing."""
    made = []
    for section in load.ratings(ratings, seed=first, first=first, days=1):
        bad = section["satisfaction_code"].is_in(BAD).to_list()
        for message, is_bad in zip(load.messages(RATING, section), bad, strict=True):
            made.append((message, dict(message[2])["ce_id"].decode() if is_bad else ""))
    return made
