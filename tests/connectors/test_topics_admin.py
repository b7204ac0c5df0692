"""Topics applied to a real broker, and drift made on purpose."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import TopicAuthorizationFailedError

from connectors import topics_admin
from connectors.local.broker import Cluster
from connectors.local.process import wait_until
from govbus import outages
from schemas.errors import Misconfigured, Retryable
from schemas.topics import ALERT, CALENDAR, RATING, ROLLUP, TOPICS


@pytest.fixture(scope="module")
def own_kafka(stack_directory: Path) -> Iterator[str]:
    with Cluster(stack_directory / "topics-admin", tied=True) as cluster:
        yield cluster.bootstrap


@pytest.fixture
def applied(own_kafka: str) -> Iterator[str]:
    topics_admin.apply(own_kafka, replication=1)
    yield own_kafka
    with topics_admin._admin(own_kafka) as admin:
        admin.delete_topics(_names(admin))
        assert wait_until(lambda: not _names(admin), 60)


def _names(admin: KafkaAdminClient) -> list[str]:
    return [name for name in admin.list_topics() if not name.startswith("__")]


def test_an_empty_broker_lacks_all_fourteen_topics(own_kafka: str) -> None:
    assert topics_admin.check(own_kafka) == [f"{t.name}: missing" for t in TOPICS]


def test_applied_topics_show_no_drift_and_applying_again_does_nothing(applied: str) -> None:
    assert topics_admin.check(applied, replication=1) == []
    assert topics_admin.apply(applied, replication=1) == []


def test_the_broker_has_the_declared_partitions_retention_and_cleanup(applied: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=applied)
    partitions = {t["name"]: len(t["partitions"]) for t in admin.describe_topics()}
    configs = topics_admin._configs(admin, [ROLLUP, RATING])
    admin.close()
    assert (partitions[RATING.name], partitions[CALENDAR.name]) == (12, 1)
    assert (configs[ROLLUP.name]["cleanup.policy"], configs[RATING.name]["cleanup.policy"]) == (
        "compact",
        "delete",
    )
    assert configs[RATING.name]["retention.ms"] == "-1"


def test_a_changed_setting_is_reported_and_mended(applied: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=applied)
    short = ConfigResource(ConfigResourceType.TOPIC, ALERT.name, configs={"retention.ms": "60000"})
    admin.alter_configs([short])
    assert wait_until(
        lambda: topics_admin._configs(admin, [ALERT])[ALERT.name]["retention.ms"] == "60000", 60
    )
    admin.close()
    assert topics_admin.check(applied) == [f"{ALERT.name}: retention.ms is 60000, declared -1"]
    assert topics_admin.apply(applied) == [f"{ALERT.name}: retention.ms set to -1"]
    assert topics_admin.check(applied) == []


def test_a_topic_that_a_brokers_own_defaults_let_forget_is_reported_and_mended(stack_directory: Path) -> None:
    forgetful: dict[str, object] = {"log.retention.bytes": 1_000_000, "unclean.leader.election.enable": "true"}
    with Cluster(stack_directory / "forgetful", tied=True, settings=forgetful) as cluster:
        admin = KafkaAdminClient(bootstrap_servers=cluster.bootstrap)
        said = {k: v for k, v in topics_admin.wanted_config(ALERT, 1).items() if k not in topics_admin.KEEPS}
        made = {"num_partitions": ALERT.partitions, "replication_factor": 1, "configs": said}
        admin.create_topics({ALERT.name: made}, wait_for_metadata=True)
        admin.close()
        assert [line for line in topics_admin.check(cluster.bootstrap) if line.startswith(ALERT.name)] == [
            f"{ALERT.name}: retention.bytes is 1000000, declared -1",
            f"{ALERT.name}: unclean.leader.election.enable is true, declared false",
        ]
        assert f"{ALERT.name}: retention.bytes set to -1" in topics_admin.apply(cluster.bootstrap)
        assert topics_admin.check(cluster.bootstrap) == []


def test_too_many_partitions_are_refused_because_none_can_be_taken_away(applied: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=applied)
    admin.create_partitions({CALENDAR.name: 2})
    assert wait_until(lambda: topics_admin._describe(admin)[CALENDAR.name][0] == 2, 60)
    admin.close()
    with pytest.raises(Misconfigured, match="2 partitions, declared 1"):
        topics_admin.apply(applied)


def test_a_topic_nobody_declared_is_drift(applied: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=applied)
    admin.create_topics(
        {"somebody.else.v1": {"num_partitions": 1, "replication_factor": 1}}, wait_for_metadata=True
    )
    admin.close()
    assert topics_admin.check(applied) == ["somebody.else.v1: not declared"]


def test_a_missing_topic_is_drift_and_is_made_again(applied: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=applied)
    admin.delete_topics([ALERT.name])
    assert wait_until(lambda: ALERT.name not in admin.list_topics(), 60)
    admin.close()
    assert topics_admin.check(applied) == [f"{ALERT.name}: missing"]
    assert topics_admin.apply(applied) == [f"{ALERT.name}: created with 12 partitions, copies: 1"]


def test_what_kafka_does_not_allow_is_not_taken_for_a_broker_that_is_away(
    applied: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(_: Any) -> None:
        raise TopicAuthorizationFailedError

    monkeypatch.setattr(topics_admin, "_describe", forbidden)
    with pytest.raises(TopicAuthorizationFailedError) as told:
        topics_admin.check(applied)
    assert isinstance(outages.explained(told.value), Misconfigured)


def test_a_replication_other_than_asked_for_is_drift_and_changes_no_setting(applied: str) -> None:
    """With one copy and two wanted in sync nobody could write any more."""
    drift = [f"{t.name}: replication 1, asked for 3" for t in TOPICS]
    assert topics_admin.check(applied, replication=3) == drift
    with pytest.raises(Misconfigured) as told:
        topics_admin.apply(applied, replication=3)
    assert str(told.value) == str(Misconfigured(*drift))
    assert topics_admin.check(applied) == []


def test_a_broker_that_is_not_there_is_a_wait_not_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topics_admin, "ANSWER_MS", 500)
    with pytest.raises(Retryable, match="does not answer"):
        topics_admin.check("127.0.0.1:1")


def test_an_inbound_topic_with_events_is_given_no_more_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    class Admin:
        """Every topic is there; two of them were made with fewer partitions."""

        def describe_topics(self) -> list[dict[str, Any]]:
            small = {RATING.name: 3, ALERT.name: 3}
            return [
                {"name": t.name, "partitions": [{"replica_nodes": [1]}] * small.get(t.name, t.partitions)}
                for t in TOPICS
            ]

        def describe_cluster(self) -> dict[str, Any]:
            return {"brokers": [1]}

        def create_partitions(self, grown: dict[str, int]) -> None:
            raise AssertionError(f"grown: {grown}")

    monkeypatch.setattr(topics_admin, "_admin", lambda _: nullcontext(Admin()))
    with pytest.raises(Misconfigured, match=f"{RATING.name}: 3 partitions, and more would part") as refused:
        topics_admin.apply("kafka:9092")
    assert ALERT.name not in str(refused.value)
