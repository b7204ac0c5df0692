"""The local stack: one Kafka and one PostgreSQL in an installation's home, started, stopped and described.

Decides which databases there are and that two starts do not race. Creates neither topics nor tables.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from connectors.local import jars
from connectors.local.broker import Cluster, serves
from connectors.local.postgres import Postgres
from connectors.local.process import LOOPBACK, Say, locked, silent, wait_until

DISTRICT, PROVINCE = "govbus", "province"
POSTGRES = "postgres"
ANSWER_S = 5.0
"""How long a part is asked again and again, since a busy one may not answer at once."""
OnDatabase = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the stack answers. The database URLs hold passwords: never print them."""

    kafka: str
    database_url: str
    province_database_url: str


@dataclass(frozen=True, slots=True)
class Part:
    """One process of the stack as ``govbus status`` shows it; ``address`` holds no password. ``why``: what else there
    is to say of one that does not run.
    """

    name: str
    running: bool
    pid: int | None
    address: str
    data: str
    log: str
    why: str = ""


class Stack:
    """Kafka (``brokers`` nodes) and PostgreSQL under ``home``; they outlive the process that starts them.

    ``say`` is told what an operator should know (a port changed); ``progress`` how many jars are fetched.
    """

    def __init__(
        self,
        home: Path,
        *,
        brokers: int = 1,
        heap_mb: int = 256,
        say: Say = silent,
        progress: jars.Progress | None = None,
    ) -> None:
        self.home = home.resolve()
        self.logs = self.home / "logs"
        self.kafka = Cluster(self.home / "kafka", brokers, heap_mb=heap_mb, logs=self.logs, say=say, progress=progress)
        self.postgres = Postgres(self.home / "postgres", logs=self.logs, say=say)

    def up(self, kafka: bool = True, postgres: bool = True, on_database: OnDatabase = silent) -> Addresses:
        """Starts what is asked for and does not run, waits until it serves, and says where.

        ``on_database`` is given the district's database URL while Kafka may still be starting.
        A part not asked for has empty addresses. Raises ``Misconfigured`` or ``Retryable`` with the
        part's log.
        """
        with locked(self.home / "stack.lock"), ThreadPoolExecutor(2) as pool:
            broker = pool.submit(self.kafka.start) if kafka else None
            server = pool.submit(self._start_postgres, on_database) if postgres else None
            district, province = server.result() if server else ("", "")
            return Addresses(broker.result() if broker else "", district, province)

    def down(self, only: Collection[str] | None = None) -> list[str]:
        """Stops what runs (of the parts ``only``, if given), in order; returns the names of the parts that ran.

        Finds also what no state file knows: parts that we were killed beside, or whose home was deleted.
        """
        with locked(self.home / "stack.lock") if self.home.exists() else contextlib.nullcontext():
            self.kafka.adopt()
            self.postgres.adopt()
            ran = [part.name for part in self.status() if part.running and (only is None or part.name in only)]
            if any(node.name in ran for node in self.kafka.nodes):
                self.kafka.stop()
            if POSTGRES in ran:
                self.postgres.stop()
        return ran

    def status(self) -> list[Part]:
        """The parts as they are now, by their processes; changes nothing."""
        nodes = [
            Part(
                node.name,
                node.running(),
                node.pid,
                f"{LOOPBACK}:{node.port}" if node.port else "",
                str(node.directory / "data"),
                str(self.logs / f"kafka-{node.number}.log"),
            )
            for node in self.kafka.nodes
        ]
        server = self.postgres
        address = f"{LOOPBACK}:{server.port}" if server.port else ""
        return [
            *nodes,
            Part(POSTGRES, server.running(), server.pid, address, str(server.data), str(server.log)),
        ]

    def asked(self, part: Part) -> Part:
        """``part`` of ``status``; if its process runs, asked whether it answers: it may hang, or still be starting."""
        answers = self.postgres.answers if part.name == POSTGRES else partial(serves, part.address)
        if not part.running or wait_until(answers, ANSWER_S):
            return part
        why = f"{part.name} ({part.pid}) runs and does not answer; look at {part.log}"
        return replace(part, running=False, why=why)

    def _start_postgres(self, on_database: OnDatabase) -> tuple[str, str]:
        self.postgres.start()
        district, province = self.postgres.create(DISTRICT), self.postgres.create(PROVINCE, role=PROVINCE)
        on_database(district)
        return district, province
