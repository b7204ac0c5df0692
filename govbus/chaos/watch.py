"""How far everything is, read from Kafka's ends and SQL alone; recoveries after kills; waiting on progress.

Waiting never fails because a machine is slow: only when nothing at all has moved for ``STALL_S``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import sqlalchemy as sa
from confluent_kafka import KafkaException

from connectors import intact
from govbus.behind import processors
from govbus.chaos.ground import Ground
from govbus.district.bus import Settling
from schemas.topics import INBOUND, TOPICS
from streams.store.engine import connect

STALL_S = 120.0
BROKER = "broker"
"""Kind of recovery after a broker: what was published when it was struck has been sent."""
Place = tuple[str, int]
CURSORS_SQL = "SELECT processor, topic, partition, next_offset FROM cursor"
PUBLISHED_SQL = "SELECT coalesce(max(seq), 0) FROM outbox"
NOTHING = 2**63 - 1
UNSENT_SQL = f"SELECT coalesce(min(seq), {NOTHING}) FROM outbox WHERE sent_at IS NULL"
QUEUED_SQL = "SELECT coalesce(max(seq), 0) FROM push_queue"
UNPUSHED_SQL = f"SELECT coalesce(min(seq), {NOTHING}) FROM push_queue WHERE refused_reason IS NULL"
MOVED_SQL = """SELECT (SELECT sum(next_offset) FROM cursor), (SELECT max(seq) FROM outbox),
                      (SELECT count(*) FROM outbox WHERE sent_at IS NULL), (SELECT count(*) FROM receipt)"""


class Stalled(Exception):
    """Nothing moved for ``STALL_S`` though something was left to do."""


@dataclass(slots=True)
class Recovery:
    """A killed process and what had to be done when it died: ``ends`` of topics, or a sequence number."""

    kind: str
    at: float
    ends: Mapping[Place, int]
    seq: int
    seconds: float | None = None


class Watch:
    """One database connection pool; use as a context manager."""

    def __init__(self, ground: Ground) -> None:
        self.engine = connect(ground.database_url)
        self.recoveries: list[Recovery] = []
        self.patience = STALL_S
        self._kafka = ground.kafka
        self._places = [(topic.name, number) for topic in TOPICS for number in range(topic.partitions)]
        self._settling = Settling(self.engine, ground.kafka)
        known = list(processors())
        inbound = {name for name, topic in known if topic in INBOUND}
        owners = {"worker": inbound, "consume": {"alerts", "directory"}, "push": {"province-queue"}}
        self._owners = {kind: {(n, t.name) for n, t in known if n in names} for kind, names in owners.items()}

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self._settling.__exit__()
        self.engine.dispose()

    def ends(self) -> dict[Place, int]:
        """End offsets of every partition of every topic."""
        return intact.ends(self._kafka, self._places)

    def died(self, kind: str) -> None:
        """Begin to measure how long it takes until what stood to be done now is done."""
        if kind == "feed":
            return
        at = time.monotonic()
        query = {"relay": PUBLISHED_SQL, BROKER: PUBLISHED_SQL, "province": QUEUED_SQL}.get(kind)
        seq = self._number(query) if query else 0
        try:
            ends = self.ends() if kind in self._owners else {}
        except KafkaException:
            return  # nobody says how far the log goes: nothing to measure
        self.recoveries.append(Recovery(kind, at, ends, seq))

    def look(self) -> None:
        """Close the recoveries that are complete."""
        left = [r for r in self.recoveries if r.seconds is None]
        if not left:
            return
        cursors, unsent, unpushed = self._cursors(), self._number(UNSENT_SQL), self._number(UNPUSHED_SQL)
        for one in left:
            if self._recovered(one, cursors, unsent if one.kind in ("relay", BROKER) else unpushed):
                one.seconds = time.monotonic() - one.at

    def settle(self, meanwhile: Callable[[], object]) -> None:
        """Return when nothing is left to do; ``meanwhile`` is called between looks. Raises ``Stalled``."""
        seen, since = None, time.monotonic()
        while left := self._settling.unsettled():
            moved = (tuple(left), self.moved())
            if moved != seen:
                seen, since = moved, time.monotonic()
            if time.monotonic() - since > self.patience:
                raise Stalled("; ".join(left))
            meanwhile()
            time.sleep(0.2)

    def sent(self) -> bool:
        """Whether the relay has sent all that is published."""
        return self._number(UNSENT_SQL) == NOTHING

    def moved(self) -> tuple[object, ...]:
        """Figures that change whenever anything is done."""
        with self.engine.connect() as tx:
            return tuple(tx.execute(sa.text(MOVED_SQL)).one())

    def _recovered(self, one: Recovery, cursors: Mapping[tuple[str, str, int], int], first_open: int) -> bool:
        if one.seq or not one.ends:
            return first_open > one.seq
        return all(
            cursors.get((name, topic, p), 0) >= end
            for name, topic in self._owners[one.kind]
            for (t, p), end in one.ends.items()
            if t == topic
        )

    def _cursors(self) -> dict[tuple[str, str, int], int]:
        with self.engine.connect() as tx:
            return {(n, t, p): o for n, t, p, o in tx.execute(sa.text(CURSORS_SQL))}

    def _number(self, query: str) -> int:
        with self.engine.connect() as tx:
            return int(tx.execute(sa.text(query)).scalar_one())
