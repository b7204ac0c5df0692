"""Where a benchmark runs: a Kafka and a PostgreSQL of its own in a temporary directory, gone at the end."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from connectors import topics_admin
from connectors.local.broker import Cluster
from connectors.local.postgres import Postgres
from streams.store import migrate

DATABASE = "bench"
HEAP_MB = 1024


@dataclass(frozen=True, slots=True)
class Stand:
    """A running Kafka with all topics, and a PostgreSQL server. ``home`` is the directory of all of it."""

    broker: Cluster
    server: Postgres
    home: Path

    @property
    def kafka(self) -> str:
        """Bootstrap servers."""
        return self.broker.bootstrap

    @contextmanager
    def database(self, template: str = "template0", name: str = DATABASE) -> Iterator[str]:
        """URL of a fresh database with the schema (or a copy of ``template``), dropped at the end."""
        url = self.server.create(name, template)
        try:
            migrate.upgrade(url)
            yield url
        finally:
            self.server.drop(name)

    @contextmanager
    def directory(self, name: str) -> Iterator[Path]:
        """A fresh directory, removed at the end: states of millions of keys add up."""
        place = self.home / name
        place.mkdir(parents=True)
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def cpu(self) -> dict[str, float]:
        """Seconds of CPU that ``kafka`` and ``postgres`` (with all its children) have used so far."""
        return {"kafka": cpu_of(self.broker.nodes[0].pid), "postgres": cpu_of(self.server.pid)}

    def forget(self, prefix: str) -> None:
        """Delete the topics that a peer made: those whose names hold ``prefix``."""
        from confluent_kafka.admin import AdminClient

        admin: Any = AdminClient({"bootstrap.servers": self.kafka})
        names = [name for name in admin.list_topics(timeout=10).topics if prefix in name]
        for done in (admin.delete_topics(names) if names else {}).values():
            done.result(30)


@contextmanager
def stand() -> Iterator[Stand]:
    """A fresh stand."""
    with tempfile.TemporaryDirectory(prefix="govbus-bench-") as directory:
        home = Path(directory)
        home.chmod(0o711)  # PostgreSQL's own user must be able to enter
        with (
            Cluster(home / "kafka", heap_mb=HEAP_MB, tied=True) as broker,
            Postgres(home / "postgres", tied=True) as server,
        ):
            topics_admin.apply(broker.bootstrap, replication=1)
            yield Stand(broker, server, home)


def cpu_of(pid: int | None) -> float:
    """Seconds of CPU of a process and its children, those that have ended included; 0 if it is gone."""
    try:
        top = psutil.Process(pid) if pid else None
    except psutil.NoSuchProcess:
        top = None
    return sum(_spent(p) for p in (top, *top.children(recursive=True))) if top else 0.0


def _spent(process: psutil.Process) -> float:
    try:
        spent: Any = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(spent.user + spent.system + spent.children_user + spent.children_system)
