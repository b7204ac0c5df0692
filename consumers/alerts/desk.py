"""The supervisor's desk at work: has marked and due cases looked at, and says what is overdue, irregular or repeated.

Decides how far timers may speak (``streams.store.horizon``): never beyond an act that is published and not yet applied,
nor beyond a word of an alert that the relay has not sent: it may take back what would be overdue.
Any number may run: a case's row is locked while it is looked at.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import sqlalchemy as sa
import structlog
from kafka import KafkaConsumer

from consumers.loop import FIRST_WAIT_S, LONGEST_WAIT_S, partitions, passes, reader, reason
from schemas.clock import wall_clock
from schemas.topics import ALERT, HANDLING
from streams.store import desk, horizon
from streams.store.engine import reading
from streams.store.horizon import Clock

log = structlog.get_logger(__name__)
EVERY_S = 0.25
ENDS_MS = 10_000
"""How long the brokers may take to say how far the log goes, before that is said and they are asked anew."""
FOLLOW = "follow"
"""The processor that applies ``oversight.handling.v1``."""


@dataclass
class DeskClock:
    """``run`` until told to stop; waits for a database or broker that is away."""

    engine: sa.Engine
    bootstrap: str
    clock: Clock = "wall"
    settle_ms: int = 200
    now_ms: Callable[[], int] = wall_clock
    _reader: desk.DeskReader = field(default_factory=desk.DeskReader)

    def run(self, stop: threading.Event) -> None:
        """Look at what is due, again and again."""
        wait = FIRST_WAIT_S
        while not stop.is_set():
            consumer: KafkaConsumer | None = None
            try:
                consumer = reader(self.bootstrap)
                while not stop.is_set():
                    self.tick(consumer)
                    wait = FIRST_WAIT_S
                    stop.wait(EVERY_S)
            except Exception as error:
                if not passes(error):
                    raise
                log.warning("desk.waits", why=reason(error), seconds=round(wait, 1))
                stop.wait(wait)
                wait = min(LONGEST_WAIT_S, wait * 2)
            finally:
                if consumer is not None:
                    consumer.close(autocommit=False)

    def tick(self, consumer: KafkaConsumer) -> None:
        """Look once at everything that is due."""
        with reading(self.engine).connect() as tx:
            top = horizon.ceiling(tx, self.clock, self.settle_ms, self.now_ms())
            due = desk.due(tx, top)
            if not due:
                return
            waiting = horizon.waiting(tx, ALERT)
        ends = _ends(consumer)  # asked after what waits was read, see streams.store.horizon
        with reading(self.engine).connect() as tx:
            at = horizon.places(tx, FOLLOW, HANDLING)
        for partition, until in horizon.horizons(at, ends, sorted(due & ends.keys()), top, waiting).items():
            self.look(partition, until)

    def look(self, partition: int, until: int) -> None:
        """Look at what is due in one partition up to ``until`` (epoch ms), block by block."""
        more = True
        while more:
            with self.engine.begin() as tx:
                more = self._reader.tick(tx, partition, until)


def _ends(consumer: KafkaConsumer) -> Mapping[int, int]:
    """End offsets of ``oversight.handling.v1`` by partition; raises ``KafkaError`` if the brokers do not say."""
    places = partitions(consumer, [HANDLING])
    return {place.partition: end for place, end in consumer.end_offsets(places, timeout_ms=ENDS_MS).items()}
