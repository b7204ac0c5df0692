"""Three brokers, of which two die at once: nothing acknowledged is lost, and nothing is acknowledged by one alone.

The long form is `make chaos` (`--brokers`).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors import topics_admin
from connectors.local.broker import Cluster
from connectors.local.postgres import Postgres
from govbus.chaos.brokers import brokers
from govbus.chaos.ground import Ground
from govbus.chaos.stage import stage
from schemas.topics import RATING

CASES = 80


@pytest.fixture
def three(postgres: Postgres, stack_directory: Path) -> Iterator[Ground]:
    """A bus on three brokers, with the copies that ``topics apply`` gives."""
    name = f"three_{uuid.uuid4().hex[:8]}"
    home = stack_directory / name
    with Cluster(home / "kafka", 3, tied=True) as cluster:
        topics_admin.apply(cluster.bootstrap)
        url, province = postgres.create(name, template="govbus_template"), postgres.create(f"{name}_p", role=name)
        yield Ground(cluster.bootstrap, url, province, home, cluster, postgres)
        for node in cluster.nodes:
            node.kill()
    postgres.drop(name)
    postgres.drop(f"{name}_p")


@pytest.mark.stack
def test_two_brokers_die_and_nothing_is_lost_or_acknowledged_by_the_third_alone(three: Ground) -> None:
    with topics_admin._admin(three.kafka) as admin:
        assert topics_admin._describe(admin)[RATING.name] == (12, 3)
        assert {t["min.insync.replicas"] for t in topics_admin._configs(admin, [RATING]).values()} == {"2"}
    with stage(three, 12, CASES) as made:
        figures = brokers(made, ("two",))
        waited = made.fleet.log("relay").read_text(errors="replace")
        verdict = made.finish()
    assert figures["wrong"] == []
    assert figures["waited_while_two_were_away"] == 1
    assert '"event": "waiting for Kafka"' in waited, "the relay waited and did not say so"
    assert verdict["shown"] == {}
    assert verdict["clean"], verdict.get("failed")
