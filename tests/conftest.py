"""Real Kafka and PostgreSQL for tests, from the product's own packages; both die with the test session."""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa

from connectors.local.broker import Broker, Cluster
from connectors.local.postgres import Postgres
from govbus.settings import Settings

TEMPLATE = "govbus_template"
_numbers = itertools.count(1)
logging.getLogger("kafka").setLevel(logging.CRITICAL)  # says every refused connection of a broker that is starting


def make_schema(url: str) -> None:
    """Brings an empty database to the newest schema, the way the product does."""
    from streams.store import migrate

    migrate.upgrade(url)


@pytest.fixture(scope="session")
def stack_directory() -> Iterator[Path]:
    """A directory of this session's own, removed at its end; PostgreSQL's user must be able to enter it."""
    directory = Path(tempfile.mkdtemp(prefix="govbus-test-"))
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def broker(stack_directory: Path) -> Iterator[Cluster]:
    """One Kafka node for the whole session; tests must not stop it (make your own ``Broker`` for that)."""
    with Broker(stack_directory / "kafka", tied=True) as node:
        yield node


@pytest.fixture(scope="session")
def kafka(broker: Cluster) -> str:
    """Bootstrap servers of the session's Kafka; use topics of your own there."""
    return broker.bootstrap


@pytest.fixture(scope="session")
def postgres(stack_directory: Path) -> Iterator[Postgres]:
    """One PostgreSQL server for the whole session, with a template database that has the schema."""
    with Postgres(stack_directory / "postgres", tied=True) as server:
        make_schema(server.create(TEMPLATE))
        yield server


@pytest.fixture
def database(postgres: Postgres) -> Iterator[str]:
    """URL of a fresh database with the schema, dropped after the test."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    yield postgres.create(name, template=TEMPLATE)
    postgres.drop(name)


@pytest.fixture
def engine(database: str) -> Iterator[sa.Engine]:
    """SQLAlchemy engine on ``database``."""
    made = sa.create_engine(database)
    yield made
    made.dispose()


@dataclass(frozen=True, slots=True)
class Bus:
    """A fresh broker with the topics applied, and fresh databases of the district and of the province."""

    kafka: str
    database_url: str
    province_database_url: str
    settings: Settings
    cluster: Cluster


@pytest.fixture(scope="module")
def bus(postgres: Postgres, stack_directory: Path) -> Iterator[Bus]:
    """A whole empty bus of a module's own; its broker may be killed and started again."""
    from connectors import topics_admin

    name = f"bus_{uuid.uuid4().hex[:8]}"
    home = stack_directory / name
    with Broker(home / "kafka", tied=True) as cluster:
        topics_admin.apply(cluster.bootstrap, replication=1)
        url = postgres.create(name, template=TEMPLATE)
        province = postgres.create(f"{name}_province")
        settings = Settings(
            kafka=cluster.bootstrap, database_url=url, province_database_url=province, home=home
        )
        yield Bus(cluster.bootstrap, url, province, settings, cluster)
    postgres.drop(name)
    postgres.drop(f"{name}_province")
