"""Topics on the broker, as ``schemas.topics`` declares them: made, brought into line, and compared.

Never deletes a topic and never takes partitions away: both would lose events. Never gives an inbound topic more
of them: a key's events would lie in two.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import structlog

from schemas import access
from schemas.errors import Misconfigured, Retryable
from schemas.topics import BY_NAME, FOREVER, TOPICS, Topic

MAX_MESSAGE_BYTES = 1_048_576
"""More than a record may be (256 KiB), so that the broker is never the one that refuses."""
KEEPS = {"retention.bytes": "-1", "unclean.leader.election.enable": "false"}
"""Of a topic that is kept for ever: no broker's default may drop its oldest records, nor let a replica lead that lacks
the newest."""


log = structlog.get_logger(__name__)
WAIT_S = 2.0
ANSWER_MS = 10_000
"""How long to wait for a broker that does not answer, in milliseconds."""
UNDECLARED = ": not declared"
MOST_COPIES = 3


def wanted_config(topic: Topic, replication: int) -> dict[str, str]:
    """The topic's configuration as Kafka writes it; of three copies two must have a record to count it."""
    return {
        "cleanup.policy": topic.cleanup,
        "retention.ms": str(topic.retention_ms),
        "min.insync.replicas": "2" if replication >= 3 else "1",
        "max.message.bytes": str(MAX_MESSAGE_BYTES),
        "message.timestamp.type": "CreateTime",
        **(KEEPS if topic.retention_ms == FOREVER else {}),
    }


def apply(bootstrap: str, replication: int = 0) -> list[str]:
    """Creates what is missing and mends what drifted and can be mended; returns what it did, in order.

    ``replication`` 0: new topics get as many copies as there are brokers, three at most; old ones keep theirs.
    Raises ``Misconfigured`` for drift that only an operator can mend, ``Retryable`` if no broker answers.
    """
    with _admin(bootstrap) as admin:
        found = _describe(admin)
        copies = replication or min(MOST_COPIES, len(admin.describe_cluster()["brokers"]))
        known = [t for t in TOPICS if t.name in found]
        short = [t for t in known if found[t.name][0] < t.partitions]
        _refuse_growth([f"{t.name}: {found[t.name][0]} partitions" for t in short if t.direction == "in"])
        done = _create(admin, [t for t in TOPICS if t.name not in found], copies)
        done += _grow(admin, short)
        done += _configure(admin, {t: found[t.name][1] for t in known})
    beyond = _left(bootstrap, replication, seconds=10.0 if done else 0.0)
    if beyond:
        raise Misconfigured(*beyond)
    return done


def await_topics(bootstrap: str) -> None:
    """Return once every declared topic is there; says what it waits for, and what would mend it. Raises ``Denied`` if
    Kafka does not let us in.
    """
    from confluent_kafka import KafkaException

    admin = _confluent(bootstrap)
    while True:
        try:
            found = admin.list_topics(timeout=ANSWER_MS / 1000).topics
        except KafkaException as error:
            why = access.ask(bootstrap) or error.args[0].name()
            log.warning("waiting for Kafka", kafka=bootstrap, why=str(why))
            time.sleep(WAIT_S)
            continue
        missing = [t.name for t in TOPICS if t.name not in found]
        if not missing:
            return
        log.warning("waiting for topics", kafka=bootstrap, missing=missing, mend="govbus topics apply")
        time.sleep(WAIT_S)


def wake_groups(bootstrap: str) -> None:
    """Ask after a consumer group, so that a new broker makes its topic of groups before a worker needs it."""
    from confluent_kafka import KafkaException

    admin = _confluent(bootstrap)
    with suppress(KafkaException):
        admin.describe_consumer_groups(["govbus"], request_timeout=ANSWER_MS / 1000)["govbus"].result()


def _confluent(bootstrap: str) -> Any:
    from confluent_kafka.admin import AdminClient

    return AdminClient({"bootstrap.servers": bootstrap, "log_level": 0, **access.current().confluent()})


def _left(bootstrap: str, replication: int, seconds: float) -> list[str]:
    """Drift that stays; a broker shows a change only some milliseconds after it has confirmed it."""
    deadline = time.monotonic() + seconds
    while (drift := _declared_drift(bootstrap, replication)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return drift


def _declared_drift(bootstrap: str, replication: int) -> list[str]:
    return [line for line in check(bootstrap, replication) if not line.endswith(UNDECLARED)]


def check(bootstrap: str, replication: int = 0) -> list[str]:
    """Every difference between declaration and broker, one sentence each; empty when there is none.

    ``replication`` 0 compares no replication factor; ``min.insync.replicas`` must suit the one found.
    """
    with _admin(bootstrap) as admin:
        found = _describe(admin)
        configs = _configs(admin, [t for t in TOPICS if t.name in found])
    drift = [line for topic in TOPICS for line in _compare(topic, found.get(topic.name), configs, replication)]
    extra = sorted(name for name in found if name not in BY_NAME and not name.startswith("__"))
    return drift + [f"{name}{UNDECLARED}" for name in extra]


def _compare(
    topic: Topic, found: tuple[int, int] | None, configs: dict[str, dict[str, str]], replication: int
) -> Iterator[str]:
    if found is None:
        yield f"{topic.name}: missing"
        return
    partitions, copies = found
    if partitions != topic.partitions:
        yield f"{topic.name}: {partitions} partitions, declared {topic.partitions}"
    if replication and copies != replication:
        yield f"{topic.name}: replication {copies}, asked for {replication}"
    for key, value in wanted_config(topic, copies).items():
        if configs[topic.name].get(key) != value:
            yield f"{topic.name}: {key} is {configs[topic.name].get(key)}, declared {value}"


@contextmanager
def _admin(bootstrap: str) -> Iterator[Any]:
    from kafka import KafkaAdminClient
    from kafka.errors import AuthorizationError, KafkaError

    access.ask(bootstrap)  # at once: kafka-python would try for as long as it may
    try:
        admin = KafkaAdminClient(
            bootstrap_servers=bootstrap,
            client_id="govbus-topics",
            bootstrap_timeout_ms=ANSWER_MS,
            **access.current().kafka_python(),
        )
    except KafkaError as error:
        refused = access.refusal(bootstrap)
        raise Retryable(str(refused or f"Kafka does not answer at {bootstrap}: {error}")) from error
    try:
        yield admin
    except AuthorizationError:
        raise
    except KafkaError as error:
        raise Retryable(f"Kafka at {bootstrap} refused: {error}") from error
    finally:
        admin.close()


def _describe(admin: Any) -> dict[str, tuple[int, int]]:
    """Topic name to (partitions, replication factor)."""
    return {
        t["name"]: (len(t["partitions"]), min((len(p["replica_nodes"]) for p in t["partitions"]), default=0))
        for t in admin.describe_topics()
    }


def _configs(admin: Any, topics: list[Topic]) -> dict[str, dict[str, str]]:
    """Topic name to every configuration value in force."""
    from kafka.admin import ConfigResource, ConfigResourceType

    if not topics:
        return {}
    resources = [ConfigResource(ConfigResourceType.TOPIC, t.name) for t in topics]
    answer = admin.describe_configs(resources, config_filter="all")["topic"]
    return {name: {key: _value(entry) for key, entry in entries.items()} for name, entries in answer.items()}


def _value(entry: Any) -> str:
    return str(entry["value"] if isinstance(entry, dict) else entry)


def _create(admin: Any, topics: list[Topic], replication: int) -> list[str]:
    """Create what is missing; what somebody else who applies too has just created is not told as ours."""
    from kafka.errors import NoError, TopicAlreadyExistsError, for_code

    if not topics:
        return []
    wanted = {
        t.name: {
            "num_partitions": t.partitions,
            "replication_factor": replication,
            "configs": wanted_config(t, replication),
        }
        for t in topics
    }
    made = set()
    for said in admin.create_topics(wanted, raise_errors=False)["topics"]:
        error = for_code(said["error_code"])
        if error is NoError:
            made.add(said["name"])
        elif error is not TopicAlreadyExistsError:
            raise error(f"{said['name']}: {said['error_message']}")
    admin.wait_for_topics(list(wanted))
    mine = (t for t in topics if t.name in made)
    return [f"{t.name}: created with {t.partitions} partitions, copies: {replication}" for t in mine]


def _refuse_growth(inbound: list[str]) -> None:
    """Raise ``Misconfigured`` for topics that hold what departments told: a key's later events would lie in another
    partition than its earlier ones, where another worker may apply them at the same time.
    """
    if inbound:
        raise Misconfigured(
            *(f"{line}, and more would part a key's events: an inbound topic is not grown" for line in inbound),
            "docs/operate.md, a topic with too few partitions",
        )


def _grow(admin: Any, topics: list[Topic]) -> list[str]:
    if topics:
        admin.create_partitions({t.name: t.partitions for t in topics})
    return [f"{t.name}: grown to {t.partitions} partitions" for t in topics]


def _configure(admin: Any, copies: Mapping[Topic, int]) -> list[str]:
    from kafka.admin import ConfigResource, ConfigResourceType

    now = _configs(admin, list(copies))
    changes = {
        t.name: {k: v for k, v in wanted_config(t, n).items() if now[t.name].get(k) != v} for t, n in copies.items()
    }
    changes = {name: change for name, change in changes.items() if change}
    if changes:
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, n, configs=c) for n, c in changes.items()])
    return [f"{name}: {key} set to {value}" for name, change in changes.items() for key, value in change.items()]
