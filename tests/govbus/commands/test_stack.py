"""``govbus status`` says what runs and what waits, and of a quorum that serves it does not say that it is stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner, Result

from connectors.publisher import Publisher
from govbus.cli import build
from schemas.topics import RATING
from streams.store.engine import connect

pytestmark = pytest.mark.stack
TALLY = "tally on service.rating.v1"


@pytest.fixture
def status(shared_bus: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """``govbus status`` of a configured bus."""

    def run(*options: str, kafka: str = shared_bus.kafka, database: str = shared_bus.database_url) -> Result:
        monkeypatch.setenv("GOVBUS_KAFKA", kafka)
        monkeypatch.setenv("GOVBUS_DATABASE_URL", database)
        return CliRunner().invoke(build(), ["status", *options])

    return run


def rating(case_no: str) -> dict[str, Any]:
    return {
        "case_no": case_no, "event_type": "rating.given", "occurred_at": "2020-09-25 16:50:00",
        "item_code": "11430903MBDEM0138T4000715002000", "satisfaction_set": "platform.satisfaction",
        "satisfaction_code": "5", "channel_set": "platform.channel", "channel_code": "4",
    }  # fmt: skip


def test_what_waits_is_counted_by_what_it_waits_for(status: Callable[..., Result], shared_bus: Any) -> None:
    before = json.loads(status("--json").stdout)["behind"]
    assert (before["unsent"], before["unsent_ms"]) == (0, 0)
    lag = before["lag"].get(TALLY, 0) + 7  # the log is shared with other tests
    engine = connect(shared_bus.database_url)
    Publisher(engine, "HS-ZRZYJ", "430903").publish(RATING, [rating(f"C{n}") for n in range(3)])
    with engine.begin() as tx:
        tx.execute(sa.text("INSERT INTO cursor (processor, topic, partition, next_offset) "
                           "VALUES ('tally', 'service.rating.v1', 0, -7)"))  # fmt: skip
    engine.dispose()
    after = json.loads(status("--json").stdout)["behind"]
    assert (after["unsent"], after["lag"][TALLY]) == (3, lag)
    assert after["unsent_ms"] > 0
    told = status().stdout
    assert "3 events wait for Kafka (govbus relay), the oldest for " in told
    assert f"{TALLY}: {lag} records behind" in told
    alarmed = status("--json", "--max-wait", "3600")
    assert (alarmed.exit_code, TALLY in json.loads(alarmed.stdout)["behind"]["late"]) == (1, True)


def test_a_broker_that_is_away_stops_nothing_while_another_answers(
    status: Callable[..., Result], shared_bus: Any
) -> None:
    one_of_two = status("--json", kafka=f"127.0.0.1:9,{shared_bus.kafka}")
    assert one_of_two.exit_code == 0, one_of_two.output
    assert json.loads(status("--json", "--alive").stdout)["behind"] is None
    none = status("--json", kafka="127.0.0.1:9")
    parts = {part["name"]: part["running"] for part in json.loads(none.stdout)["parts"]}
    assert (none.exit_code, parts, json.loads(none.stdout)["behind"]) == (1, {"kafka": False, "postgres": True}, None)


def test_a_database_that_does_not_let_us_in_is_not_said_to_be_stopped(
    status: Callable[..., Result], shared_bus: Any
) -> None:
    rotated = sa.make_url(shared_bus.database_url).set(password="known-to-nobody").render_as_string(hide_password=False)
    asked = status("--json", "--alive", database=rotated)
    (part,) = [part for part in json.loads(asked.stdout)["parts"] if part["name"] == "postgres"]
    assert (asked.exit_code, part["running"]) == (1, False)
    assert part["why"].startswith("GOVBUS_DATABASE_URL: ")
    assert part["why"].endswith('FATAL:  password authentication failed for user "govbus"')
    told = status("--alive", database=rotated).stdout
    assert part["why"] in told
    assert "stopped" not in told
    assert "known-to-nobody" not in asked.output + told
