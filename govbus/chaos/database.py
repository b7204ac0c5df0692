"""PostgreSQL killed, read-only, out of connections, and with a full disk, while events flow.

The disk is a small file system of its own (tmpfs) with the server's data, filled to the last byte: that takes the
right to mount, and is left out, and said, where there is none. Everything else needs no rights.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa

from connectors.local.postgres import Postgres
from govbus.chaos.cycles import CASES_A_FAULT, ROUND, Fault, rounds
from govbus.chaos.ground import Ground, ground, scratch
from govbus.chaos.rounds import Tell
from govbus.chaos.stage import Stage, stage

DISK_MB = 640
SETTINGS = {"max_connections": "100", "max_wal_size": "96MB", "min_wal_size": "32MB"}
SILENT = "-c default_transaction_read_only=off"
WAITING = ("relay", "worker", "consume", "push")
FILLER = "filler"
OTHERS_SQL = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE pid <> pg_backend_pid() AND datname IS NOT NULL"""


def run(count: int, seed: int, tell: Tell) -> dict[str, Any]:
    """``count`` faults of the database, in rounds; ``disk`` says whether the disk was among them."""
    found = rounds(setting, "database", count, seed, tell, WAITING if count >= ROUND else ())
    return {**found, "disk": "filled" if mountable() else "not filled: no right to mount a file system"}


@contextlib.contextmanager
def setting(
    seed: int, count: int, planted: Mapping[str, Sequence[str]] | None = None
) -> Iterator[tuple[Stage, list[Fault]]]:
    """A round's bus and what can be done to its database."""
    with (
        scratch() as home, disk(home / "postgres") as small, ground(home, settings=SETTINGS) as bus,
        stage(bus, seed, CASES_A_FAULT * count, planted) as made,
    ):  # fmt: skip
        yield made, faults(bus, small)


def faults(bus: Ground, small: bool) -> list[Fault]:
    """Everything that can be done to the server of ``bus``; ``small``: its disk can be filled."""
    hoard = Hoard(bus.postgres)
    found = [
        Fault("killed", bus.postgres.kill, bus.postgres.start, (0.2, 3.0)),
        Fault("read-only", lambda: _read_only(bus.postgres, True), lambda: _read_only(bus.postgres, False)),
        Fault("out of connections", hoard.take, hoard.give),
    ]
    where = bus.postgres.directory / FILLER
    return [*found, Fault("disk full", lambda: _fill(where), lambda: _free(where, bus.postgres))] if small else found




def _admin(server: Postgres) -> psycopg.Connection[Any]:
    url = sa.engine.make_url(server.url("postgres"))
    return psycopg.connect(
        host=url.host, port=url.port, user=url.username, password=url.password, dbname=url.database, autocommit=True,
        options=SILENT, connect_timeout=5,
    )  # fmt: skip


def _read_only(server: Postgres, on: bool) -> None:
    with _admin(server) as connection:
        connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {'on' if on else 'off'}")
        connection.execute("SELECT pg_reload_conf()")


class Hoard:
    """Idle clients that hold every connection there is."""

    def __init__(self, server: Postgres) -> None:
        self._server = server
        self._held: list[psycopg.Connection[Any]] = []

    def take(self) -> None:
        """End everybody's connections and take them all."""
        first = _admin(self._server)
        first.execute(OTHERS_SQL)
        self._held = [first]
        with contextlib.suppress(psycopg.OperationalError):
            while True:
                self._held.append(_admin(self._server))

    def give(self) -> None:
        """Let them go."""
        held, self._held = self._held, []
        for connection in held:
            connection.close()


def mountable() -> bool:
    """Whether this process may mount a file system."""
    with scratch() as home, disk(home / "probe") as small:
        return small


@contextlib.contextmanager
def disk(place: Path) -> Iterator[bool]:
    """A file system of ``DISK_MB`` at ``place``; False, and an ordinary directory, without the right to mount."""
    place.mkdir(parents=True, exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m,mode=0755", "tmpfs", str(place)]
    able = os.geteuid() == 0 and shutil.which("mount") is not None
    mounted = able and subprocess.run(words, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(place)], capture_output=True, check=False)


def _fill(where: Path) -> None:
    """Write until there is no room."""
    with contextlib.suppress(OSError), where.open("wb", buffering=0) as out:
        while True:
            out.write(bytes(1 << 20))
    with contextlib.suppress(OSError), where.open("ab", buffering=0) as out:
        while True:
            out.write(bytes(512))


def _free(where: Path, server: Postgres) -> None:
    """Make room again; a server that gave up for want of it is started again, as its operator would."""
    where.unlink(missing_ok=True)
    server.start()
