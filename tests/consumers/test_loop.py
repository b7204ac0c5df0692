"""The consumer loop on real Kafka and PostgreSQL: once each, whatever repeats, fails or stands by."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import structlog
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.errors import OffsetOutOfRangeError, TopicAuthorizationFailedError

from connectors import redrive
from connectors.local.broker import Cluster
from consumers import loop
from consumers.alerts import desk
from consumers.reconcile import reconcile
from schemas import examples
from schemas.errors import Fault, Rejected, Retryable
from schemas.topics import ALERT, HANDLING, RATING, Topic
from streams.store import rebuild, unfit
from streams.store.projection import Event

pytestmark = pytest.mark.stack


class Notes:
    """An effect that counts in SQL: a doubled effect is seen as a 2."""

    name = "notes"
    topics: tuple[Topic, ...] = (RATING,)
    patience_ms = 0

    def __init__(self, fails: Sequence[Exception] = (), hates: str = "", breaks: str = "") -> None:
        self.fails, self.hates, self.breaks, self.calls = list(fails), hates, breaks, 0

    def apply(self, tx: sa.Connection, events: Sequence[Event]) -> None:
        self.calls += 1
        if self.fails:
            raise self.fails.pop(0)
        for event in events:
            case = event.record["case_no"]
            if case == self.hates:
                raise Rejected(Fault("missing_field", "case_no", "cannot be stored"))
            if self.breaks and case.startswith(self.breaks):
                raise KeyError(case)
            change = "INSERT INTO note VALUES (:c, 1) ON CONFLICT (c) DO UPDATE SET n = note.n + 1"
            tx.execute(sa.text(change), {"c": case})


@pytest.fixture
def notes(line: Any) -> Any:
    line.run("CREATE TABLE note (c text PRIMARY KEY, n int)")
    return line


def running(line: Any, effect: Notes) -> tuple[threading.Event, threading.Thread]:
    stop = threading.Event()
    thread = threading.Thread(
        target=loop.Loop(line.engine, line.kafka, effect).run, args=(stop,), daemon=True
    )
    thread.start()
    return stop, thread


def noted(line: Any) -> tuple[int, int]:
    return line.scalar("SELECT count(*) FROM note"), line.scalar("SELECT coalesce(max(n), 0) FROM note")


def publish(line: Any, make_rating: Any, cases: Sequence[str]) -> None:
    line.publish(RATING, [make_rating(c) for c in cases])
    line.relay()


def test_the_end_of_a_log_is_told_soon_after_its_leader_has_moved(stack_directory: Path, wait_until: Any) -> None:
    place = TopicPartition(HANDLING.name, 0)
    with Cluster(stack_directory / "moving", 2, tied=True) as cluster:
        admin = KafkaAdminClient(bootstrap_servers=cluster.bootstrap)
        admin.create_topics({HANDLING.name: {"assignments": {0: [1, 2]}}}, wait_for_metadata=True)

        def leader() -> int:
            return int(admin.describe_topics([HANDLING.name])[0]["partitions"][0]["leader_id"])

        wait_until(lambda: leader() == 1)
        consumer = loop.reader(cluster.bootstrap)
        assert desk._ends(consumer) == {0: 0}
        admin.alter_partition_reassignments({place: [2, 1]})
        wait_until(lambda: not admin.list_partition_reassignments())
        admin.elect_leaders(0, {HANDLING.name: [0]})  # the preferred one is the first
        wait_until(lambda: leader() == 2)
        producer = KafkaProducer(bootstrap_servers=cluster.bootstrap)
        producer.send(HANDLING.name, b"one").get(20)
        assert desk._ends(consumer) == {0: 1}
        for client in (producer, consumer, admin):
            client.close()


@pytest.mark.parametrize(
    ("error", "waits_for", "mend"),
    [
        (TopicAuthorizationFailedError({"oversight.alert.v1"}), "Kafka to allow it", "access lists"),
        (OffsetOutOfRangeError({}), "the log to be mended", "govbus resend"),
    ],
)
def test_what_an_operator_has_to_mend_is_waited_for_and_said(error: Exception, waits_for: str, mend: str) -> None:
    one = loop.Loop(sa.create_engine("postgresql+psycopg://"), "127.0.0.1:1", Notes())
    with structlog.testing.capture_logs() as said:
        assert one._told(error)
    assert loop.passes(error)
    assert [(line["event"], line["waits_for"], mend in line["mend"]) for line in said] == [
        ("consumer.waits", waits_for, True)
    ]


class Patient(Notes):
    patience_ms = 3_000


def test_a_patient_effect_takes_all_that_came_meanwhile_in_one_transaction(
    notes: Any, make_rating: Any, wait_until: Any
) -> None:
    effect = Patient()
    stop, thread = running(notes, effect)
    for i in range(10):
        publish(notes, make_rating, [f"c{i}"])
    wait_until(lambda: noted(notes)[0] == 10)
    stop.set()
    thread.join(10)
    assert effect.calls < 5
    assert noted(notes) == (10, 1)


def test_an_effect_that_fails_nowhere_needs_no_savepoint(notes: Any, make_rating: Any, wait_until: Any) -> None:
    told: list[str] = []

    def note(*args: Any) -> None:
        told.append(args[2])

    publish(notes, make_rating, ["a", "b"])
    sa.event.listen(notes.engine, "before_cursor_execute", note)
    stop, thread = running(notes, Notes())
    wait_until(lambda: noted(notes) == (2, 1))
    stop.set()
    thread.join(10)
    sa.event.remove(notes.engine, "before_cursor_execute", note)
    assert any("INSERT INTO note" in statement for statement in told)
    assert not [statement for statement in told if "SAVEPOINT" in statement]


def test_two_instances_at_once_make_every_effect_once(notes: Any, make_rating: Any, wait_until: Any) -> None:
    first, second = running(notes, Notes()), running(notes, Notes())
    for i in range(5):
        publish(notes, make_rating, [f"c{i}-{n}" for n in range(40)])
    wait_until(lambda: noted(notes)[0] == 200)
    for stop, thread in (first, second):
        stop.set()
        thread.join(10)
    assert noted(notes) == (200, 1)


def test_a_restarted_consumer_goes_on_where_the_cursor_stands(
    notes: Any, make_rating: Any, wait_until: Any
) -> None:
    publish(notes, make_rating, ["a", "b"])
    stop, thread = running(notes, Notes())
    wait_until(lambda: noted(notes)[0] == 2)
    stop.set()
    thread.join(10)
    publish(notes, make_rating, ["c"])
    stop, thread = running(notes, Notes())
    wait_until(lambda: noted(notes)[0] == 3)
    stop.set()
    thread.join(10)
    assert noted(notes) == (3, 1)


def test_what_passes_is_waited_for_and_nothing_is_lost(notes: Any, make_rating: Any, wait_until: Any) -> None:
    publish(notes, make_rating, ["a"])
    effect = Notes(fails=[Retryable("not now"), Retryable("not yet")])
    stop, thread = running(notes, effect)
    wait_until(lambda: noted(notes) == (1, 1))
    stop.set()
    thread.join(10)
    assert effect.calls == 3


def test_a_record_that_is_refused_or_that_breaks_the_effect_is_buried_and_its_neighbours_are_not(
    notes: Any, make_rating: Any, wait_until: Any
) -> None:
    publish(notes, make_rating, ["good1", "bad", "good2", "secret", "good3"])
    notes.send_raw(RATING, b"x", b"torn")
    stop, thread = running(notes, Notes(hates="bad", breaks="secret"))
    wait_until(lambda: noted(notes)[0] == 3 and notes.scalar("SELECT count(*) FROM dead_letter") == 3)
    stop.set()
    thread.join(10)
    with notes.engine.connect() as tx:
        told = {str(r): str(t) for r, t in tx.execute(sa.text("SELECT reason, text FROM dead_letter"))}
    assert told.keys() == {"missing_field", "rule_failed", "bad_framing"}
    assert told["rule_failed"].startswith("notes: KeyError in test_loop.py")
    assert "secret" not in told["rule_failed"]


class Single(Notes):
    """Fails at many together."""

    def apply(self, tx: sa.Connection, events: Sequence[Event]) -> None:
        if len(events) > 1:
            raise ValueError("secret")
        super().apply(tx, events)


def test_an_effect_that_fails_only_at_many_together_is_told(notes: Any, make_rating: Any, wait_until: Any) -> None:
    """All of it is done and nothing is buried, so without a word nobody would learn why it is slow."""
    publish(notes, make_rating, [f"c{n}" for n in range(20)])
    with structlog.testing.capture_logs() as said:
        stop, thread = running(notes, Single())
        wait_until(lambda: noted(notes) == (20, 1))
        stop.set()
        thread.join(10)
    told = [line for line in said if line["event"] == "an effect failed; trying its events alone"]
    assert told
    assert {line["where"].split(",")[0] for line in told} == {"ValueError in test_loop.py"}
    assert "secret" not in str(told)
    assert notes.scalar("SELECT count(*) FROM dead_letter") == 0


class Heeded(Notes):
    """As ``Notes``, for a topic that only consumers read."""

    topics = (ALERT,)


def test_an_event_that_broke_an_effect_survives_a_rebuild_and_goes_again_under_a_mended_release(
    notes: Any, wait_until: Any
) -> None:
    alert = dict(next(iter(examples.load(ALERT).values())))
    notes.publish(ALERT, [alert])
    notes.relay()
    stop, thread = running(notes, Heeded(breaks=alert["case_no"]))
    wait_until(lambda: notes.scalar("SELECT count(*) FROM dead_letter") == 1)
    stop.set()
    thread.join(10)
    rebuild.forget(notes.engine, ["tally"])
    [letter] = redrive.find(notes.engine, redrive.Wanted(reason="rule_failed"))
    stop, thread = running(notes, Heeded())
    assert redrive.redrive(notes.engine, letter).outcome == "sent again"
    notes.relay()
    wait_until(lambda: noted(notes) == (1, 1))
    stop.set()
    thread.join(10)


def test_an_effect_that_breaks_too_often_leaves_the_loop(
    notes: Any, make_rating: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfit, "MOST", 1)
    publish(notes, make_rating, ["broken1", "broken2", "good"])
    with pytest.raises(KeyError):
        loop.Loop(notes.engine, notes.kafka, Notes(breaks="broken")).run(threading.Event())
    assert notes.scalar("SELECT count(*) FROM dead_letter") == 0


def test_an_error_that_waiting_cannot_mend_leaves_the_loop(notes: Any, make_rating: Any) -> None:
    publish(notes, make_rating, ["a"])
    with pytest.raises(NameError, match="broken"):
        loop.Loop(notes.engine, notes.kafka, Notes(fails=[NameError("broken")])).run(threading.Event())
    assert noted(notes) == (0, 0)
    moved = (
        "SELECT count(*) FROM cursor c JOIN outbox o ON (o.topic, o.sent_partition) = (c.topic, c.partition)"
        " WHERE c.next_offset > o.sent_offset"
    )
    assert notes.scalar(moved) == 0


def test_a_header_name_that_is_not_utf_8_is_no_damage(notes: Any, make_rating: Any, wait_until: Any) -> None:
    class Gbk(str):
        def encode(self, *_: Any) -> bytes:
            return str.encode(self, "gbk")

    publish(notes, make_rating, ["a"])
    [sent] = notes.carried(RATING)
    producer = KafkaProducer(bootstrap_servers=notes.kafka)
    producer.send(RATING.name, sent.value, key=sent.key, headers=[*sent.headers, (Gbk("部门"), b"x")]).get(20)
    producer.close()
    stop, thread = running(notes, Notes())
    wait_until(lambda: noted(notes) == (1, 2))
    stop.set()
    thread.join(10)
    assert [name for name, _ in notes.carried(RATING)[1].headers][-1] == "\\xb2\\xbf\\xc3\\xc5"
    assert reconcile(notes.engine, notes.kafka, None).duplicates == 1


def test_a_cursor_set_back_by_hand_is_followed(notes: Any, make_rating: Any, wait_until: Any) -> None:
    publish(notes, make_rating, ["a", "b"])
    stop, thread = running(notes, Notes())
    wait_until(lambda: noted(notes)[0] == 2)
    notes.run("DELETE FROM note")
    back = "UPDATE cursor c SET next_offset = o.sent_offset FROM outbox o WHERE o.key = 'a'"
    assert notes.run(f"{back} AND (o.topic, o.sent_partition) = (c.topic, c.partition)") == 1
    publish(notes, make_rating, ["a"] * 1 + [f"more-{i}" for i in range(60)])
    wait_until(lambda: noted(notes)[0] >= 61)
    stop.set()
    thread.join(10)
    assert noted(notes)[1] == 1
