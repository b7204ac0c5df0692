"""A record whose decoding ends the process is dead-lettered after one death, its neighbours are applied; kill -9 from
outside condemns nobody. Real workers with a decoder that is made fragile from outside.
"""

from __future__ import annotations

import signal
import subprocess
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from confluent_kafka import Producer

from connectors.local.postgres import Postgres
from connectors.local.process import wait_until
from govbus.chaos.fleet import KINDS, Death, Fleet
from govbus.chaos.ground import Ground, command, environment
from govbus.chaos.planted import FRAGILE, KILLS, KILLS_COLUMNS, SLOW
from schemas import envelope, examples
from schemas.topics import ALERT, RATING, TICKET, Topic
from streams.store import outbox

START = 1_600_000_000_000
WORKERS = ("worker-1", "worker-2")
COUNTS_SQL = """SELECT (SELECT count(*) FROM ticket_event), (SELECT count(*) FROM rating_event),
                       (SELECT count(*) FROM alert_inbox)"""
CONDEMNED_SQL = "SELECT dead_id FROM dead_letter WHERE reason = 'kills_decoder'"


def ticket(number: int, content: bytes = b"") -> dict[str, Any]:
    return {
        "event_type": "ticket.opened", "region": "430903", "department": "HS-QZRXB", "occurred_at": START + number,
        "occurred_text": "", "entered_at": None, "received_at": START + number + 5, "ticket_no": f"T{number}",
        "event_no": 1, "content": content.decode(),
    }  # fmt: skip


def rating(number: int, comment: bytes = b"") -> dict[str, Any]:
    return {
        "event_type": "rating.given", "region": "430903", "department": "HS-SCJGJ", "occurred_at": START + number,
        "occurred_text": "", "entered_at": None, "received_at": START + number + 5, "case_no": f"C{number}",
        "service_no": 1, "assess_no": 1, "revision": 0, "item_code": "11430903MB1234567X4430125001000",
        "satisfaction_set": "platform.satisfaction", "satisfaction_code": "5",
        "channel_set": "platform.channel", "channel_code": "1", "comment": comment.decode(),
    }  # fmt: skip


def alert(number: int, summary: bytes = b"") -> dict[str, Any]:
    alert_id = str(uuid.uuid5(uuid.NAMESPACE_OID, str(number)))
    said = {**examples.load(ALERT)["yellow-card-one-working-day-before-due"], "alert_id": alert_id, "alert_seq": 1}
    return {**said, "summary": summary.decode() or "黄牌"}


def send(bootstrap: str, topic: Topic, records: list[dict[str, Any]]) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 50, "partitioner": "murmur2_random"})
    for record in records:
        row = outbox.row(topic, record)
        headers = envelope.headers(topic, row.record)
        producer.produce(topic.name, row.value, key=str(record[topic.key]).encode(), headers=headers)
    assert producer.flush(30) == 0


@pytest.fixture(scope="module")
def district(bus: Any, postgres: Postgres) -> Ground:
    return Ground(bus.kafka, bus.database_url, bus.province_database_url, bus.settings.home, bus.cluster, postgres)


@pytest.fixture(scope="module")
def fleet(district: Ground) -> Iterator[Fleet]:
    with Fleet(district, (*WORKERS, "consume")) as made:
        made.planted = {"worker": (FRAGILE,), "consume": (FRAGILE,)}
        yield made


@pytest.fixture(scope="module")
def store(district: Ground) -> Iterator[sa.Engine]:
    made = sa.create_engine(district.database_url)
    yield made
    made.dispose()


def numbers(store: sa.Engine) -> dict[str, int]:
    """Events applied by topic, dead letters by reason."""
    with store.connect() as tx:
        tickets, ratings, alerts = tx.execute(sa.text(COUNTS_SQL)).one()
        dead = tx.execute(sa.text("SELECT reason, count(*) AS n FROM dead_letter GROUP BY reason"))
        return {"tickets": tickets, "ratings": ratings, "alerts": alerts, **{row.reason: row.n for row in dead}}


def keep_running(fleet: Fleet, deaths: list[Death]) -> None:
    """What a supervisor does."""
    deaths += fleet.reap()
    for name in fleet.missing():
        fleet.start(name)


def last_words(fleet: Fleet, deaths: list[Death]) -> str:
    """The ends of the logs of those that died."""
    logs = {death.name: fleet.log(death.name).read_text(errors="replace")[-3_000:] for death in deaths}
    return "\n".join(f"{death}\n{logs[death.name]}" for death in deaths)


def settled(fleet: Fleet, store: sa.Engine, wanted: dict[str, int], seconds: float = 90) -> list[Death]:
    """Let the processes run until SQL holds what is wanted; how they ended meanwhile."""
    deaths: list[Death] = []

    def there() -> bool:
        keep_running(fleet, deaths)
        return numbers(store) == wanted

    assert wait_until(there, seconds, every=0.2), f"{numbers(store)} instead of {wanted}; {deaths}"
    return deaths


@pytest.mark.stack
def test_a_record_that_kills_its_decoder_is_set_aside_and_its_neighbours_are_applied(
    district: Ground, fleet: Fleet, store: sa.Engine
) -> None:
    send(district.kafka, TICKET, [ticket(n, KILLS if n == 150 else b"") for n in range(300)])
    send(district.kafka, RATING, [rating(n, KILLS if n == 1_200 else b"") for n in range(2_000)])
    send(district.kafka, ALERT, [alert(n, KILLS if n == 7 else b"") for n in range(20)])
    deaths = settled(fleet, store, {"tickets": 299, "ratings": 1_999, "alerts": 19, "kills_decoder": 3})
    assert {death.code for death in deaths} == {-signal.SIGSEGV}, last_words(fleet, deaths)
    assert Counter(KINDS[death.name] for death in deaths)["consume"] == 1
    by_worker = Counter(death.name for death in deaths)
    assert max(by_worker[name] for name in WORKERS) <= 2, "a worker died twice of one record"


@pytest.mark.stack
def test_a_record_that_kills_only_the_reading_by_column_is_read_by_row(
    district: Ground, fleet: Fleet, store: sa.Engine
) -> None:
    before = numbers(store)
    more = [rating(n, KILLS_COLUMNS if n == 5_500 else b"") for n in range(5_000, 6_000)]
    send(district.kafka, RATING, more)
    deaths = settled(fleet, store, {**before, "ratings": before["ratings"] + len(more)})
    assert {death.code for death in deaths} == {-signal.SIGSEGV}, last_words(fleet, deaths)
    assert len({death.name for death in deaths}) == len(deaths), "a worker died twice of one record"


@pytest.mark.stack
def test_a_worker_killed_three_times_while_it_decodes_condemns_nobody(
    district: Ground, fleet: Fleet, store: sa.Engine
) -> None:
    before = numbers(store)
    deaths: list[Death] = []
    send(district.kafka, TICKET, [ticket(900, SLOW)])
    for times in range(3):  # what the life before left stands beside the new mark

        def decodes(times: int = times) -> bool:
            keep_running(fleet, deaths)
            return len(decoding(district)) > times

        found = wait_until(decodes, 60)
        assert found, f"nobody decodes for the time {times + 1}: {numbers(store)}, {last_words(fleet, deaths)}"
        for name in set(decoding(district)):
            fleet.kill(name)
            fleet.lives[name].process.wait()
    settled(fleet, store, {**before, "tickets": before["tickets"] + 1})


def decoding(district: Ground) -> list[str]:
    """The workers that are decoding a ticket now, as their marks say."""
    found = []
    for name in WORKERS:
        for path in (district.home / "worker").glob(f"{name}.*.inflight"):
            whole = path.read_bytes()
            slots = (whole[n : n + 2_048] for n in range(0, len(whole), 2_048))
            found += [name for slot in slots if slot[:1] == b"\x01" and TICKET.name.encode() in slot]
    return found


@pytest.mark.stack
def test_a_condemned_record_is_shown_and_redriven_without_decoding_it(
    district: Ground, store: sa.Engine
) -> None:
    env = environment(district.env())
    with store.connect() as tx:
        dead_id = str(tx.execute(sa.text(CONDEMNED_SQL)).scalars().first())
    for words in (("show", dead_id), ("redrive", dead_id)):
        asked = command("govbus.chaos.planted", FRAGILE, "--", "govbus.cli", "dlq", *words)
        done = subprocess.run(asked, env=env, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode in (0, 1), f"{words} ended with {done.returncode}"
        assert ("kills_decoder" in done.stdout) or words[0] == "show"
