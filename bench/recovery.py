"""``govbus bench recovery``: kill -9 of the worker under load; seconds until what stood in the log then is applied,
beside the start of a worker that nobody killed.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import ExitStack
from typing import Any

import sqlalchemy as sa

from bench import load, log, ours
from bench.given import Given
from bench.measure import Round, Target, percentile, report
from bench.stand import Stand, stand
from govbus.supervisor import Child, Supervisor
from schemas.errors import GovbusError
from schemas.topics import RATING
from streams.store.engine import connect

NAME = "worker"
RATE = 2_000
"""Ratings a second that go on flowing all the time."""
KILLS = 3
"""In one round."""
SEEN_S = 0.2
LONGEST_S = 120.0
TARGETS = (Target("recovery to lag 0 under 8 s", figure="worst_s", most=8.0),)


def run(given: Given) -> dict[str, Any]:
    """The report of ``given.rounds`` rounds of three kills each; ``events`` is how many ratings lay there before."""
    with stand() as place:
        for done in load.fill(place.kafka, RATING, given.events):
            given.tell("fill Kafka", done, given.events)
        rounds = [_round(place, given, number) for number in range(given.rounds)]
        return report("recovery", rounds, TARGETS, figure="median_s", events=given.events, rate_under_load=RATE)


def _round(place: Stand, given: Given, number: int) -> Round:
    with place.database() as url, place.directory(f"recovery-{number}") as home, ExitStack() as stack:
        engine = connect(url)
        stack.callback(engine.dispose)
        words = ["--kafka", place.kafka, "--database-url", url, "--home", str(home), "--name", f"recovery-{number}"]
        child = Child(NAME, [sys.executable, "-m", "streams", *words])
        began = time.monotonic()
        running = stack.enter_context(Supervisor([child], home / "logs", backoff=(0.1, 1.0)))
        given.tell("catch up", 0, 1)
        _until(engine, log.ends(place.kafka, RATING))
        started = time.monotonic() - began
        flow = stack.enter_context(Flow(place.kafka, RATE, 10_000_000 * (number + 1)))
        spans = [_killed(place, engine, running, given, kill) for kill in range(KILLS)]
        flow.must_live()
    figures = {"median_s": percentile(spans, 0.5), "worst_s": max(spans), "start_and_catch_up_s": started}
    return Round(figures)


def _killed(place: Stand, engine: sa.Engine, running: Supervisor, given: Given, kill: int) -> float:
    """Seconds from the kill until all that stood in the log just after it is applied."""
    given.tell("kill -9", kill, KILLS)
    time.sleep(3)
    pid = running.pid(NAME)
    if pid is None:
        raise GovbusError("the worker does not run")
    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    time.sleep(SEEN_S)
    _until(engine, log.ends(place.kafka, RATING))
    return time.monotonic() - began


def _until(engine: sa.Engine, ends: dict[int, int]) -> None:
    """Return when the cursors have passed ``ends``."""
    deadline = time.monotonic() + LONGEST_S
    while ours.behind(engine, RATING, ends):
        if time.monotonic() > deadline:
            raise GovbusError(f"the worker did not recover within {LONGEST_S:.0f} s")
        time.sleep(0.02)


class Flow:
    """Ratings flowing into Kafka at a steady rate, from a thread."""

    def __init__(self, kafka: str, rate: int, first: int) -> None:
        self._kafka, self._rate, self._first = kafka, rate, first
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._failure: BaseException | None = None

    def __enter__(self) -> Flow:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def must_live(self) -> None:
        """Raise if it ended by itself."""
        if self._failure is not None or not self._thread.is_alive():
            raise GovbusError("the load ended by itself") from self._failure

    def _run(self) -> None:
        try:
            sender: Any = load.producer(self._kafka)
            began, sent = time.monotonic(), 0
            for section in load.ratings(100_000_000, seed=self._first, first=self._first, days=1):
                for key, value, headers in load.messages(RATING, section):
                    while sent > (time.monotonic() - began) * self._rate:
                        sender.poll(0.005)
                        if self._stop.is_set():
                            sender.flush(10)
                            return
                    sender.produce(RATING.name, value, key, headers=headers)
                    sent += 1
        except BaseException as error:
            self._failure = error
