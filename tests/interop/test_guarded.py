"""A Kafka that demands TLS and a password, as a town's does: everything crosses it, and whoever is not let in is told
which setting to look at.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiokafka
import pytest
import sqlalchemy as sa
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth
from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from connectors.local.broker import Cluster
from connectors.local.postgres import Postgres
from connectors.local.process import free_port, wait_until
from schemas import access
from schemas.access import Access

pytestmark = pytest.mark.stack
ROOT = Path(__file__).parents[2]
USER, PASSWORD = "govbus", "never-to-be-shown"
SECONDS = 120.0
PATIENCE_S, TRIES = 30.0, 4
SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
PLAIN = f'org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'


RIGHTS = {
    (ResourceType.TOPIC, "*"): "DESCRIBE READ WRITE DESCRIBE_CONFIGS CREATE ALTER ALTER_CONFIGS",
    (ResourceType.GROUP, "govbus"): "READ",
    (ResourceType.BROKER, "kafka-cluster"): "DESCRIBE",
}
"""What docs/operate.md asks a town for."""


@dataclass(frozen=True, slots=True)
class Town:
    """A broker with a listener for TLS, user and password, and one for client certificates; and a database."""

    cluster: Cluster
    guarded: str
    mutual: str
    ca: Path
    other_ca: Path
    ours: tuple[Path, Path]
    database_url: str
    home: Path

    @property
    def scram(self) -> Access:
        return Access("SASL_SSL", self.ca, None, None, "SCRAM-SHA-512", USER, PASSWORD)

    def enrol(self) -> None:
        """The user may come in from now on."""
        told = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        self._alter(UserScramCredentialUpsertion(USER, told, PASSWORD.encode()))

    def expel(self) -> None:
        """The user is not known any more, from its next connection on."""
        self._alter(UserScramCredentialDeletion(USER, ScramMechanism.SCRAM_SHA_512))

    def entitle(self) -> None:
        """The user may do what it needs, and nothing else."""
        rights = [
            AclBinding(kind, name, ResourcePatternType.LITERAL, f"User:{USER}", "*", AclOperation[right],
                       AclPermissionType.ALLOW)
            for (kind, name), told in RIGHTS.items() for right in told.split()
        ]  # fmt: skip
        admin = self._admin()
        for done in admin.create_acls(rights).values():
            done.result(10)

    def _alter(self, change: Any) -> None:
        admin = self._admin()  # its answer dies with it
        admin.alter_user_scram_credentials([change])[USER].result(10)

    def _admin(self) -> Any:
        return AdminClient({"bootstrap.servers": self.cluster.bootstrap, "log_level": 0})

    def env(self, **more: str) -> dict[str, str]:
        given = {
            "KAFKA": self.guarded, "KAFKA_SECURITY": "SASL_SSL", "KAFKA_CA": str(self.ca),
            "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512", "KAFKA_USER": USER, "KAFKA_PASSWORD": PASSWORD,
            "DATABASE_URL": self.database_url, "HOME": str(self.home), **more,
        }  # fmt: skip
        return {**os.environ, "COLUMNS": "300", **{f"GOVBUS_{name}": value for name, value in given.items()}}


@pytest.fixture(scope="module")
def town(postgres: Postgres, stack_directory: Path, authority: Callable[[str], Any]) -> Iterator[Town]:
    home, ours = stack_directory / "town", authority("town")
    home.mkdir()
    certificate, key = ours.certificate("broker")
    store = home / "broker.pem"
    store.write_bytes(key.read_bytes() + certificate.read_bytes())
    ports = {"GUARDED": free_port(), "MUTUAL": free_port()}
    tls = {"ssl.keystore.type": "PEM", "ssl.keystore.location": store, "ssl.truststore.type": "PEM",
           "ssl.truststore.location": ours.ca}  # fmt: skip
    settings: dict[str, object] = {
        "listener.security.protocol.map": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT,GUARDED:SASL_SSL,MUTUAL:SSL",
        **{f"listener.name.{name}.{key}": value for name in ("guarded", "mutual") for key, value in tls.items()},
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "listener.name.mutual.ssl.client.auth": "required",
        "listener.name.guarded.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
        "listener.name.guarded.scram-sha-512.sasl.jaas.config": SCRAM,
        "listener.name.guarded.plain.sasl.jaas.config": PLAIN,
    }
    name = f"town_{os.getpid()}"
    with Cluster(home / "kafka", tied=True, settings=settings, listeners=ports) as cluster:
        made = Town(
            cluster, f"127.0.0.1:{ports['GUARDED']}", f"127.0.0.1:{ports['MUTUAL']}", ours.ca,
            authority("elsewhere").ca, ours.certificate("govbus"), postgres.create(name, "govbus_template"), home,
        )  # fmt: skip
        made.enrol()
        made.entitle()
        yield made
    postgres.drop(name)


@pytest.fixture(autouse=True)
def quick_and_plain_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process asks twice without a rest, and speaks PLAINTEXT when a test is over."""
    monkeypatch.setattr(access, "AGAIN_S", 0.0)
    monkeypatch.setattr(access, "_current", Access())


def govbus(env: Mapping[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """A command of ours to its end."""
    command = [sys.executable, "-m", "govbus.cli", *words]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=SECONDS)


@contextmanager
def running(town: Town, name: str) -> Iterator[Path]:
    """A process of ours; where it logs."""
    log = town.home / f"{name}.log"
    with log.open("w") as out:
        command = [sys.executable, "-m", "govbus.cli", name]
        process = subprocess.Popen(command, cwd=ROOT, env=town.env(), stdout=out, stderr=out)
        try:
            yield log
            assert process.poll() is None, log.read_text()
        finally:
            process.terminate()
            process.wait(30)


def alerts(town: Town) -> int:
    """How many alerts stand on the supervisor's desk."""
    engine = sa.create_engine(town.database_url)
    with engine.connect() as tx:
        found = tx.execute(sa.text("SELECT count(*) FROM alert_inbox")).scalar_one()
    engine.dispose()
    return int(found)


def behind(town: Town) -> tuple[int, set[str]]:
    """How many events are not sent yet, and which processors have not read everything."""
    told = govbus(town.env(), "status", "--json")
    assert told.returncode == 0, told.stdout + told.stderr
    waiting = json.loads(told.stdout)["behind"]
    return waiting["unsent"], {name.partition(" on ")[0] for name in waiting["lag"]}


def bad_rating(town: Town, case_no: str) -> None:
    """A department publishes one."""
    one = (ROOT / "docs" / "one-bad-rating.jsonl").read_text()
    file = town.home / f"{case_no}.jsonl"
    file.write_text(one.replace("11430903MBDEM011134000117024000202103010001", case_no))
    done = govbus(town.env(), "publish", "service.rating.v1", str(file), "--dept", "HS-ZJJ")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_bad_rating_reaches_the_desk_over_tls_with_a_password_and_who_is_expelled_is_told_and_waits(
    town: Town,
) -> None:
    applied = govbus(town.env(), "topics", "apply")
    assert applied.returncode == 0, applied.stderr
    with ExitStack() as stack:
        logs = [stack.enter_context(running(town, name)) for name in ("relay", "worker", "consume")]
        bad_rating(town, "C1")
        assert wait_until(lambda: alerts(town) == 1, SECONDS), [log.read_text()[-3000:] for log in logs]
        assert wait_until(lambda: behind(town) == (0, {"province-queue"}), SECONDS), behind(town)  # nobody pushes here
        expelled_and_enrolled_again(town, logs)
        assert wait_until(lambda: alerts(town) == 2, SECONDS), [log.read_text()[-3000:] for log in logs]
    assert PASSWORD not in "".join(log.read_text() for log in logs) + applied.stdout + applied.stderr


def expelled_and_enrolled_again(town: Town, logs: list[Path]) -> None:
    """Every process says what to look at, and none ends."""
    (node,) = town.cluster.nodes
    town.expel()
    node.kill()  # who is connected stays so until then
    town.cluster.start()
    bad_rating(town, "C2")
    told = wait_until(lambda: all("GOVBUS_KAFKA_PASSWORD" in log.read_text() for log in logs), SECONDS)
    assert told, [log.read_text()[-3000:] for log in logs]
    town.enrol()


def test_who_is_not_let_in_ends_and_is_told_what_to_look_at(town: Town) -> None:
    wrong = town.env(KAFKA_PASSWORD="wrong-and-never-shown"), "GOVBUS_KAFKA_USER, GOVBUS_KAFKA_PASSWORD"
    foreign = town.env(KAFKA_CA=str(town.other_ca)), "GOVBUS_KAFKA_CA"
    asked = [(*wrong, words.split()) for words in ("topics check", "relay", "worker", "consume", "alerts watch")]
    asked += [(*foreign, words.split()) for words in ("topics check", "status")]
    with ThreadPoolExecutor(len(asked)) as pool:
        done = list(pool.map(lambda one: govbus(one[0], *one[2]), asked))
    for (_, look, words), told in zip(asked, done, strict=True):
        said = told.stdout + told.stderr
        assert f"does not let us in: sasl_ssl://{town.guarded}" in said, (words, said)
        assert f"; look at {look}" in said, (words, said)
        assert told.returncode == (1 if words == ["status"] else 78), (words, said)
        assert "never" not in said


def test_each_client_is_let_in_by_password_of_either_kind_and_by_certificate(town: Town) -> None:
    plain = Access("SASL_SSL", town.ca, None, None, "PLAIN", USER, PASSWORD)
    mutual = Access("SSL", town.ca, *town.ours)
    for server, ours in ((town.guarded, town.scram), (town.guarded, plain), (town.mutual, mutual)):
        for client in (confluent, kafka_python, through_faust):
            assert client(server, ours, PATIENCE_S) >= 0, (client, ours)


def test_no_client_takes_a_certificate_that_is_made_out_to_another_host(town: Town) -> None:
    elsewhere = town.guarded.replace("127.0.0.1", "localhost")
    access.use(town.scram)
    told = access.refusal(elsewhere)
    assert told
    assert (told.look, told.sure) == ("GOVBUS_KAFKA, which must name the hosts as their certificates do", True)
    for client in (confluent, kafka_python, through_faust):
        with pytest.raises(Exception, match=r"transport failure|Unable to bootstrap"):
            client(elsewhere, town.scram, 1.0)


@pytest.mark.parametrize(
    ("server", "change", "look"),
    [
        ("guarded", {"security": "PLAINTEXT"}, "GOVBUS_KAFKA_SECURITY"),
        ("guarded", {"security": "SASL_PLAINTEXT"}, "GOVBUS_KAFKA_SECURITY"),
        ("guarded", {"security": "SSL"}, "GOVBUS_KAFKA_SECURITY"),
        ("plain", {}, "GOVBUS_KAFKA_SECURITY"),
        ("plain", {"security": "SASL_PLAINTEXT"}, "GOVBUS_KAFKA_SECURITY"),
        ("guarded", {"mechanism": "SCRAM-SHA-256"}, "GOVBUS_KAFKA_SASL_MECHANISM"),
        ("guarded", {"user": "nobody"}, "GOVBUS_KAFKA_USER, GOVBUS_KAFKA_PASSWORD"),
        ("mutual", {"security": "SSL"}, "GOVBUS_KAFKA_CERTIFICATE, GOVBUS_KAFKA_CERTIFICATE_KEY"),
        ("guarded", {}, ""),
        ("away", {}, ""),
    ],
)
def test_why_kafka_lets_nobody_in_is_told_by_the_setting(
    town: Town, server: str, change: dict[str, Any], look: str
) -> None:
    access.use(replace(town.scram, **change))
    servers = {"guarded": town.guarded, "mutual": town.mutual, "plain": town.cluster.bootstrap, "away": "127.0.0.1:9"}
    for _ in range(TRIES):  # a broker that is slow to answer sounds like one that hangs up
        told = access.refusal(servers[server])
        if (told.look if told else "") == look:
            return
    assert (told.look if told else "") == look


def confluent(server: str, ours: Access, seconds: float) -> int:
    """How many topics each client sees."""
    admin: Any = AdminClient({"bootstrap.servers": server, "log_level": 0, **ours.confluent()})
    return len(admin.list_topics(timeout=seconds).topics)


def kafka_python(server: str, ours: Access, seconds: float) -> int:
    patience = int(1_000 * seconds)
    try:
        admin = KafkaAdminClient(bootstrap_servers=server, bootstrap_timeout_ms=patience, **ours.kafka_python())
    except KafkaError as error:
        raise AssertionError(str(error)) from error
    try:
        return len(admin.list_topics())
    finally:
        admin.close()


def through_faust(server: str, ours: Access, _: float) -> int:
    async def ask() -> int:
        consumer = aiokafka.AIOKafkaConsumer(
            bootstrap_servers=server, **credentials_to_aiokafka_auth(ours.faust())
        )
        try:
            await consumer.start()
            return len(await consumer.topics())
        finally:
            await consumer.stop()

    return asyncio.run(ask())
