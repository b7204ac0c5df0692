"""The peers, and how each is started. Adding one is adding a row and a program that speaks ``bench.peers.protocol``."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.peers import tools
from bench.process import python

JVM = ("-Xmx1g", "-XX:+UseSerialGC")
EXACTLY_ONCE = "kafka_streams_exactly_once"
FAUST = "stock_faust"


@dataclass(frozen=True, slots=True)
class Peer:
    """``command`` takes the tools' directory and raises ``NotRun``; ``most``: so many events at most, for the slow."""

    name: str
    says: str
    command: Callable[[Path], Sequence[str]]
    most: int | None = None

    def count(self, events: int) -> int:
        """How many of ``events`` it counts."""
        return min(events, self.most or events)


def _kafka_streams(guarantee: str) -> Callable[[Path], Sequence[str]]:
    def command(home: Path) -> Sequence[str]:
        java = tools.program("java")
        threads = str(os.cpu_count() or 1)
        words = ["cn.govbus.bench.Peer", "--guarantee", guarantee, "--threads", threads]
        return [java, *JVM, "-cp", tools.jars(home, "kafka-streams"), *words]

    return command


def _own_environment(name: str) -> Callable[[Path], Sequence[str]]:
    return lambda home: [str(tools.environment(home, name).absolute()), "-m", f"bench.peers.{name}.peer"]


PEERS = (
    Peer(FAUST, "faust-streaming, one agent, a table", lambda _: python("bench.peers.faust_peer"), 60_000),
    Peer("kafka_streams", "Kafka Streams, RocksDB, at least once", _kafka_streams("at_least_once")),
    Peer(EXACTLY_ONCE, "Kafka Streams, RocksDB, exactly_once_v2", _kafka_streams("exactly_once_v2")),
    Peer("quixstreams", "Quix Streams, group_by, RocksDB, at least once", _own_environment("quixstreams")),
    Peer("pathway", "Pathway, groupby, input persisted", _own_environment("pathway")),
)


NAMES = tuple([peer.name for peer in PEERS])


def named(*names: str) -> list[Peer]:
    """The peers of these names."""
    return [p for p in PEERS if p.name in names]
