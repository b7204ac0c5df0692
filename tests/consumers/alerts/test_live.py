"""The live tail of alerts: a broker that is away is no quiet day."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from connectors import topics_admin
from connectors.local.broker import Cluster
from consumers.alerts.live import tail


@pytest.mark.stack
def test_that_no_broker_answers_is_said_and_that_one_does_again(stack_directory: Path) -> None:
    said: list[bool] = []
    end = time.monotonic() + 120
    with Cluster(stack_directory / "watched", tied=True) as cluster:
        topics_admin.apply(cluster.bootstrap, replication=1)

        def over() -> bool:
            if said == [True]:
                cluster.start()
            return said == [True, False] or time.monotonic() > end

        assert list(tail(cluster.bootstrap, None, over, cluster.nodes[0].kill, said.append)) == []
    assert said == [True, False]
