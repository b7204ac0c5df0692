"""A database restored from a backup knows again what the log carries, on real Kafka and PostgreSQL."""

from __future__ import annotations

from typing import Any

import pytest

from consumers.adopt import adopt
from consumers.reconcile import reconcile
from schemas.topics import RATING

pytestmark = pytest.mark.stack
LOST = "SELECT event_id::text FROM outbox WHERE topic = :t AND key IN ('case-3', 'case-4')"


@pytest.fixture
def restored(line: Any, make_rating: Any) -> Any:
    """Six ratings carried and applied, two of which the outbox has lost with its last day, and a torn record."""
    line.publish(RATING, [make_rating(f"case-{i}") for i in range(6)])
    line.relay()
    line.send_raw(RATING, b"case-3", b"torn")
    line.apply()
    line.run(f"CREATE TABLE lost AS SELECT * FROM outbox WHERE event_id::text IN ({LOST})", t=RATING.name)
    assert line.run(f"DELETE FROM outbox WHERE event_id::text IN ({LOST})", t=RATING.name) == 2
    return line


def differing(line: Any) -> set[tuple[str, str]]:
    return {(d.event_id, d.place) for d in reconcile(line.engine, line.kafka, None).differences}


def test_what_was_carried_and_applied_after_the_backup_stands_in_the_outbox_again_as_it_was_sent(restored: Any) -> None:
    lost = {(event_id, "published") for event_id in restored.scalar("SELECT array_agg(event_id::text) FROM lost")}
    assert differing(restored) == lost
    assert adopt(restored.engine, restored.kafka, dry=True).taken == {RATING.name: 2}
    assert differing(restored) == lost
    assert adopt(restored.engine, restored.kafka).plain() == {"taken": {RATING.name: 2}, "published_again": {}}
    assert differing(restored) == set()
    same = "event_id, topic, key, region, department, occurred_at, received_at, digest, content_digest, value, headers"
    place = "sent_partition, sent_offset, sent_at IS NULL"
    both = f"SELECT {same}, {place} FROM lost EXCEPT SELECT {same}, {place} FROM outbox"
    assert restored.scalar(f"SELECT count(*) FROM ({both}) AS other") == 0
    assert adopt(restored.engine, restored.kafka).plain() == {"taken": {}, "published_again": {}}


def test_what_was_not_applied_here_is_not_taken_for_published(restored: Any) -> None:
    restored.run("DELETE FROM rating_event WHERE case_no = 'case-4'")
    assert adopt(restored.engine, restored.kafka).taken == {RATING.name: 1}


def test_what_was_published_anew_before_is_told_and_stays_a_difference(restored: Any, make_rating: Any) -> None:
    (anew,) = restored.publish(RATING, [make_rating("case-3", received_at=1_602_314_400_000)])
    assert anew.outcome == "new"
    restored.relay()
    assert adopt(restored.engine, restored.kafka).plain() == {
        "taken": {RATING.name: 1}, "published_again": {RATING.name: 1},
    }  # fmt: skip
    assert (str(anew.event_id), "published") in differing(restored)
