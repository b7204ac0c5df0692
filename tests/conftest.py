"""Real Kafka and PostgreSQL for tests, from the product's own packages; both die with the test session."""

from __future__ import annotations

import datetime
import ipaddress
import itertools
import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from connectors.local.broker import Cluster
from connectors.local.postgres import Postgres
from govbus.settings import Settings
from schemas.topics import BY_NAME

hypothesis.settings.register_profile("govbus", deadline=None)  # speed is for benchmarks: this machine may be busy
hypothesis.settings.load_profile("govbus")
TEMPLATE = "govbus_template"
NO_POWER_CUTS = {"fsync": "off", "full_page_writes": "off"}
LONG = (
    "tests/streams/test_replay_all.py", "tests/faults/", "tests/test_readme.py",
    "tests/connectors/local/test_broker.py", "tests/connectors/test_relay.py", "tests/streams/test_worker.py",
    "tests/govbus/commands/test_bench.py", "tests/streams/store/test_rebuild.py",
    "tests/interop/", "tests/streams/store/", "tests/connectors/local/",
    "tests/consumers/", "tests/bench/",
)  # fmt: skip
"""Files that take longest, in this order."""
_numbers = itertools.count(1)
logging.getLogger("kafka").setLevel(logging.CRITICAL)  # says every refused connection of a broker that is starting


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, so that no worker is left alone with one at the end (Makefile: --no-loadscope-reorder)."""
    items.sort(key=lambda item: next((n for n, path in enumerate(LONG) if item.nodeid.startswith(path)), len(LONG)))


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
    """One Kafka node for the whole session; tests must not stop it (make your own ``Cluster`` for that)."""
    with Cluster(stack_directory / "kafka", tied=True) as node:
        yield node


@pytest.fixture(scope="session")
def kafka(broker: Cluster) -> str:
    """Bootstrap servers of the session's Kafka; use topics of your own there."""
    return broker.bootstrap


@pytest.fixture(scope="session")
def postgres(stack_directory: Path) -> Iterator[Postgres]:
    """One PostgreSQL server for the whole session, with a template database that has the schema.

    It survives kill -9 like any other, but no power cut: hundreds of databases are made here.
    """
    with Postgres(stack_directory / "postgres", tied=True, settings=NO_POWER_CUTS) as server:
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
    home = stack_directory / f"bus_{uuid.uuid4().hex[:8]}"
    with Cluster(home / "kafka", tied=True) as cluster:
        yield from _bus(cluster, postgres, home)


@pytest.fixture(scope="module")
def shared_bus(broker: Cluster, postgres: Postgres, stack_directory: Path) -> Iterator[Bus]:
    """An empty bus on the session's broker, for modules that neither kill it nor run a worker."""
    home = stack_directory / f"bus_{uuid.uuid4().hex[:8]}"
    empty(broker.bootstrap)
    yield from _bus(broker, postgres, home)


def _bus(cluster: Cluster, postgres: Postgres, home: Path) -> Iterator[Bus]:
    from connectors import topics_admin

    topics_admin.apply(cluster.bootstrap, replication=1)
    url, province = postgres.create(home.name, template=TEMPLATE), postgres.create(f"{home.name}_province")
    settings = Settings(kafka=cluster.bootstrap, database_url=url, province_database_url=province, home=home)
    yield Bus(cluster.bootstrap, url, province, settings, cluster)
    postgres.drop(home.name)
    postgres.drop(f"{home.name}_province")


def empty(kafka: str, names: Container[str] = BY_NAME) -> None:
    """Take away what earlier tests left in the declared topics (of ``names``): records, and whole topics where Kafka
    keeps records.
    """
    from kafka import KafkaAdminClient, TopicPartition

    from consumers.loop import reader

    admin, consumer = KafkaAdminClient(bootstrap_servers=kafka), reader(kafka)
    try:
        known = [name for name in admin.list_topics() if name in names and name in BY_NAME]
        places = [TopicPartition(name, n) for name in known for n in range(BY_NAME[name].partitions)]
        ends = {p: end for p, end in consumer.end_offsets(places).items() if end} if places else {}
        compacted = {p.topic for p in ends if BY_NAME[p.topic].compacted}
        if compacted:
            admin.delete_topics(sorted(compacted))
        if left := {p: end for p, end in ends.items() if p.topic not in compacted}:
            admin.delete_records(left)
    finally:
        admin.close()
        consumer.close(autocommit=False)


@pytest.fixture(scope="session")
def emptied() -> Callable[..., None]:
    """``empty``, for the fixtures of other directories."""
    return empty


class Authority:
    """A certificate authority of a test's own; what it makes are PEM files in ``directory``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir()
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _called(directory.name)
        made = _signed(self._name, self._key, self._name, self._key, x509.BasicConstraints(ca=True, path_length=0))
        self.ca = self._write("ca.pem", made.public_bytes(serialization.Encoding.PEM))

    def certificate(self, name: str, address: str = "127.0.0.1", passphrase: bytes = b"") -> tuple[Path, Path]:
        """A certificate for ``name`` at an IP address, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = _signed(_called(name), key, self._name, self._key,
                       x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]))  # fmt: skip
        hidden = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
        pem = serialization.Encoding.PEM
        held = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, hidden)
        return self._write(f"{name}.pem", made.public_bytes(pem)), self._write(f"{name}.key", held)

    def _write(self, name: str, content: bytes) -> Path:
        path = self._directory / name
        path.write_bytes(content)
        return path


def _called(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


def _signed(
    name: x509.Name, key: ec.EllipticCurvePrivateKey, by: x509.Name, signing: ec.EllipticCurvePrivateKey, what: Any
) -> x509.Certificate:
    begins, signer = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC), signing.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(by)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + datetime.timedelta(days=36_500))
        .add_extension(what, critical=name == by)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)
        .sign(signing, hashes.SHA256())
    )


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Authority]:
    """Makes an authority of that name."""
    return lambda name: Authority(tmp_path_factory.mktemp("certificates") / name)


@pytest.fixture
def untimely() -> str:
    """Lines for the head of a program: SIGTERM comes at every moment at which its main thread holds the lock of a
    Condition (an Event has one), from when on it handles that signal.
    """
    return """
import os, signal, threading

real = threading.Condition.__enter__

def enter(lock):
    held = real(lock)
    if threading.get_ident() == threading.main_thread().ident and callable(signal.getsignal(signal.SIGTERM)):
        os.kill(os.getpid(), signal.SIGTERM)
    return held

threading.Condition.__enter__ = enter
"""
