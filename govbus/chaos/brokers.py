"""Brokers of three die or stand still while events flow: one of them, or two, so that too few are left to acknowledge.

With one away everything goes on. With two away nothing may be acknowledged: the relay waits, and so do its rows.
Decides whom it strikes and when; a cycle ends when every partition has all its copies again.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from connectors.local.broker import Node
from govbus.chaos.stage import Stage
from govbus.chaos.watch import BROKER

BROKERS = 3
STRIKES = ("kill", "stop", "two", "kill", "stop", "kill", "stop", "kill", "stop", "kill")
"""What befalls them, cycle by cycle."""
AWAY_S, STOPPED_S, TWO_AWAY_S = 1.0, 4.0, 6.0
"""How long a killed broker stays away, a stopped one (longer than its session of 3 s), and two: longer than the relay
waits before it says so (``connectors.relay.SAY_EVERY_SECONDS``).
"""
IN_FLIGHT_S = 1.0
"""So long after the second broker died a mark may still be made of what was acknowledged before."""
MARKED_SQL = "SELECT count(*) FILTER (WHERE sent_at IS NOT NULL), count(*) FILTER (WHERE sent_at IS NULL) FROM outbox"


@dataclass(slots=True)
class Brokers:
    """``wrong``: acknowledgements that came although too few brokers had the record. ``seconds``: of each cycle."""

    stage: Stage
    wrong: list[str] = field(default_factory=list)
    waited: int = 0
    """Cycles in which rows were seen waiting while two brokers were away."""
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def cycle(self, way: str) -> None:
        """One cycle, from the blow until every copy is there again. Raises ``Stalled``."""
        began = time.monotonic()
        nodes = self.stage.rng.sample(self.stage.ground.cluster.nodes, 2 if way == "two" else 1)
        self.stage.watch.died(BROKER)
        self._stop(nodes[0]) if way == "stop" else self._kill(nodes)
        self.stage.look_until(self._whole, f"copies after {way}")
        self.seconds.setdefault(way, []).append(time.monotonic() - began)

    def _kill(self, nodes: list[Node]) -> None:
        for node in nodes:
            node.kill()
        self._two_away() if len(nodes) > 1 else self._flow(AWAY_S + self.stage.rng.uniform(0.0, 1.0))
        for node in nodes:
            self.stage.ground.cluster.start_node(node)

    def _stop(self, node: Node) -> None:
        identity = node.identity
        process = identity.process() if identity else None
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        self._flow(STOPPED_S + self.stage.rng.uniform(0.0, 1.0))
        process.send_signal(signal.SIGCONT)

    def _two_away(self) -> None:
        self._flow(IN_FLIGHT_S)
        before, _ = self._marks()
        self._flow(TWO_AWAY_S)
        after, waiting = self._marks()
        self.waited += waiting > 0
        if not waiting:
            self.wrong.append("nothing waited while two brokers were away: nothing was there to acknowledge")
        if after != before:
            self.wrong.append(f"{after - before} records were acknowledged by one broker alone")

    def _marks(self) -> tuple[int, int]:
        """Rows that Kafka acknowledged, and rows that wait."""
        with self.stage.watch.engine.connect() as tx:
            sent, unsent = tx.execute(sa.text(MARKED_SQL)).one()
        return int(sent), int(unsent)

    def _flow(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.stage.flow()
            self.stage.look()

    def _whole(self) -> bool:
        """Whether each broker by itself says that every partition has all its copies."""
        self.stage.flow()
        return all(_whole(server) for server in self.stage.ground.kafka.split(","))


def brokers(stage: Stage, ways: Sequence[str]) -> dict[str, Any]:
    """Strike in each of ``ways`` while events flow; the figures of it."""
    struck = Brokers(stage)
    for way in ways:
        struck.cycle(way)
    return {"cycles": len(ways), "wrong": struck.wrong, "waited_while_two_were_away": struck.waited,
            "seconds": struck.seconds}  # fmt: skip


def _whole(server: str) -> bool:
    client = AdminClient({"bootstrap.servers": server, "log_level": 0, "socket.timeout.ms": 2000})
    try:
        found = client.list_topics(timeout=2.0)
    except KafkaException:
        return False
    return len(found.brokers) == BROKERS and all(
        len(p.isrs) == BROKERS for topic in found.topics.values() for p in topic.partitions.values()
    )
