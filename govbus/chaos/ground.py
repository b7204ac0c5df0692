"""A bus of the rig's own: fresh Kafka, fresh databases, topics, tables; gone with the process that made it."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from connectors import topics_admin
from connectors.local.broker import Cluster
from connectors.local.postgres import Postgres

DISTRICT, PROVINCE = "district", "province"


@dataclass(frozen=True, slots=True)
class Ground:
    """Where everything answers, and what may be broken. ``home`` holds logs and the rig's own files."""

    kafka: str
    database_url: str
    province_database_url: str
    home: Path
    cluster: Cluster
    postgres: Postgres

    @property
    def logs(self) -> Path:
        """Where the processes write."""
        return self.home / "logs"

    def env(self) -> dict[str, str]:
        """The settings of every process on this bus."""
        return {
            "GOVBUS_KAFKA": self.kafka,
            "GOVBUS_DATABASE_URL": self.database_url,
            "GOVBUS_PROVINCE_DATABASE_URL": self.province_database_url,
            "GOVBUS_HOME": str(self.home),
            "GOVBUS_CLOCK": "watermark",
        }


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A directory that PostgreSQL's user can enter; removed at the end, unless GOVBUS_HOME's logs are wanted."""
    home = Path(tempfile.mkdtemp(prefix="govbus-chaos-"))
    home.chmod(0o711)
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def ground(
    home: Path, brokers: int = 1, settings: Mapping[str, str] | None = None, kafka: Mapping[str, object] | None = None
) -> Iterator[Ground]:
    """A bus of ``brokers`` Kafka nodes (with the settings ``kafka``) and one PostgreSQL (with ``settings``) below
    ``home``.
    """
    from streams.store import migrate

    cluster = Cluster(home / "kafka", brokers, tied=True, settings=dict(kafka or {}))
    with cluster, Postgres(home / "postgres", tied=True, settings=settings) as server:
        topics_admin.apply(cluster.bootstrap)
        district, province = server.create(DISTRICT), server.create(PROVINCE, role=PROVINCE)
        migrate.upgrade(district)
        yield Ground(cluster.bootstrap, district, province, home, cluster, server)
        for node in cluster.nodes:  # nobody wants what it holds, and an orderly end takes seconds
            node.kill()


def command(*words: str) -> list[str]:
    """A command of ours by this interpreter."""
    return [sys.executable, "-m", *words]


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child: ours without settings of ours, and ``extra``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GOVBUS_")}
    return {**kept, **extra}
