"""Reconciliation on real Kafka and PostgreSQL: every planted fault is named by event id and hop."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from connectors.province import format
from connectors.province.push import Queue, Requeued, _form_batch, _keep, acknowledged, again_since
from consumers.province import store as at_province
from consumers.province.keys import Signer
from consumers.province.store import Store
from consumers.reconcile import Report, _carry, _summed, reconcile
from consumers.resend import resend
from govbus.cli import build
from schemas import receipts
from schemas.topics import DEADLETTER, RATING, ROLLUP, UPLOAD
from streams.rules.tally import Standing
from streams.store import settling, standing, steps

pytestmark = pytest.mark.stack
SIGNER = Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
LOSABLE = (at_province.record, at_province.rating, at_province.standing, at_province.rollup)
"""All that the province holds but its batches and their receipts."""


@pytest.fixture
def province(postgres: Any) -> Iterator[Store]:
    """An empty province."""
    from streams.store.engine import connect

    name = f"province_{uuid.uuid4().hex[:8]}"
    store = Store(connect(postgres.create(name), checked=False), SIGNER)
    store.create()
    yield store
    store.engine.dispose()
    postgres.drop(name)


@pytest.fixture
def settled(line: Any, make_rating: Callable[..., dict[str, Any]], province: Store) -> Any:
    """Twelve ratings from publication to receipt, one of them of a void case; one torn record dead-lettered."""
    line.publish(RATING, [make_rating(f"case-{i}", str(1 + i % 5)) for i in range(12)])
    line.relay()
    line.send_raw(RATING, b"case-0", b"torn")
    line.apply()
    with line.engine.begin() as tx:
        standing.judged(tx, {"case-1": Standing(True)})
        assert settling.settle(tx, upload=True)
    line.relay()
    acknowledge(line, province)
    return line


def acknowledge(line: Any, store: Store) -> None:
    """Push everything that Kafka holds for the province, without HTTP."""
    events, _ = steps.decode_rows([*line.carried(UPLOAD), *line.carried(ROLLUP)])
    with line.engine.begin() as tx:
        Queue().apply(tx, events)
    send(line, store)


def send(line: Any, store: Store) -> None:
    """Push what is queued."""
    with line.engine.begin() as tx:
        rows = _form_batch(tx, "430903")
        batch_id = rows[0]["batch_id"]
        answer = store.accept(format.batch(batch_id, "430903", rows), str(batch_id))
        body = receipts.check(answer, batch_id, {r["event_id"]: r["digest"] for r in rows}, SIGNER.public_key)
        _keep(tx, batch_id, body, answer["signature"], 0)


def look(line: Any) -> Report:
    return reconcile(line.engine, line.kafka, SIGNER.public_key)


def named(report: Report, kind: str, place: str) -> set[str]:
    return {d.event_id for d in report.differences if (d.kind, d.place) == (kind, place)}


def one_rating(line: Any) -> str:
    return str(line.scalar("SELECT event_id FROM rating_event ORDER BY event_id LIMIT 1"))


def test_a_settled_bus_is_equal_at_four_places(settled: Any) -> None:
    report = look(settled)
    assert report.equal, report.plain()
    assert report.topics[RATING.name] == {
        "published": 12, "carried": 13, "applied": 12, "dead": 1, "acknowledged": 12,
    }  # fmt: skip
    assert report.topics[UPLOAD.name] == {"published": 13, "carried": 13, "acknowledged": 13}
    assert json.loads(json.dumps(report.plain()))["places"]["dead"] == 1


def multiset_hash(records: Iterable[tuple[uuid.UUID, uuid.UUID]]) -> int:
    """The definition: sum over (event id, digest) of SHA-256 of their 32 bytes, modulo 2^256."""
    hashes = (hashlib.sha256(i.bytes + d.bytes).digest() for i, d in records)
    return sum(int.from_bytes(h, "big") for h in hashes) % 2**256


def test_the_database_sums_the_multiset_hash_as_it_is_defined(settled: Any) -> None:
    with settled.engine.connect() as tx:
        rows = list(tx.execute(sa.text("SELECT event_id, digest FROM rating_event")).tuples())
    assert look(settled).hashes[RATING.name]["applied"] == f"{multiset_hash(rows):064x}"
    a, b = uuid.UUID(int=1), uuid.UUID(int=2)
    once = int.from_bytes(hashlib.sha256(a.bytes + b.bytes).digest(), "big")
    assert multiset_hash([(a, b), (a, b)]) == once * 2 % 2**256 != 0
    twice = f"(VALUES ('{a}'::uuid, '{b}'::uuid), ('{a}', '{b}')) AS twice (event_id, digest)"
    assert settled.scalar(f"SELECT {_carry('s')} FROM ({_summed(twice, '1', '1')}) AS s") == once * 2 % 2**256


def test_a_row_deleted_from_an_event_table_is_missing_there_and_so_is_its_upload_s_source(
    settled: Any,
) -> None:
    lost = one_rating(settled)
    settled.run("DELETE FROM rating_event WHERE event_id = :i", i=lost)
    report = look(settled)
    assert not report.equal
    assert named(report, "missing_at", "applied") == {lost}


def test_a_row_that_stands_three_times_is_doubled_there(settled: Any) -> None:
    doubled = one_rating(settled)
    settled.run("ALTER TABLE rating_event DROP CONSTRAINT rating_event_pkey")
    twice = "INSERT INTO rating_event SELECT t.* FROM rating_event t, generate_series(1, 2) WHERE event_id = :i"
    settled.run(twice, i=doubled)
    assert named(look(settled), "doubled_at", "applied") == {doubled}


def test_an_altered_digest_in_the_database_differs_there(settled: Any) -> None:
    altered = one_rating(settled)
    settled.run("UPDATE rating_event SET digest = gen_random_uuid() WHERE event_id = :i", i=altered)
    assert [d.plain() for d in look(settled).differences] == [
        {"event_id": altered, "department": "HS-ZRZYJ", "topic": RATING.name, "differs_at": "applied"}
    ]


def test_two_digests_exchanged_between_events_are_seen(settled: Any) -> None:
    event = settled.carried(RATING)
    rows = "SELECT event_id, digest FROM rating_event ORDER BY event_id LIMIT 2"
    with settled.engine.begin() as tx:
        (a, da), (b, db) = tx.execute(sa.text(rows)).tuples()
        for i, d in ((a, db), (b, da)):
            tx.execute(sa.text("UPDATE rating_event SET digest = :d WHERE event_id = :i"), {"i": i, "d": d})
    assert event
    assert named(look(settled), "differs_at", "applied") == {str(a), str(b)}


def test_a_record_that_was_published_but_never_sent_is_missing_in_kafka(settled: Any, make_rating: Any) -> None:
    (stored,) = settled.publish(RATING, [make_rating("unsent")])
    assert named(look(settled), "missing_at", "carried") == {str(stored.event_id)}


def test_what_is_published_while_kafka_is_read_is_under_way_and_no_difference(settled: Any, make_rating: Any) -> None:
    done: list[str] = []

    def meanwhile(what: str, *_: int) -> None:
        if what == "Kafka" and not done:
            done.append(what)
            settled.publish(RATING, [make_rating(f"case-{n}") for n in (20, 21)])
            settled.relay()
            settled.send_raw(RATING, b"case-20", b"torn once more")
            settled.apply()
            settled.publish(RATING, [make_rating("case-22")])

    report = reconcile(settled.engine, settled.kafka, SIGNER.public_key, meanwhile)
    assert done
    assert report.equal, report.plain()
    assert report.under_way == 6  # two ratings and their uploads, a dead letter, and one that is not sent
    later = look(settled)
    assert (later.under_way, len(named(later, "missing_at", "carried"))) == (0, 1)
    assert len(named(later, "missing_at", "acknowledged")) == 2


def test_a_record_that_was_sent_behind_the_end_of_the_log_is_lost_and_not_under_way(
    settled: Any, make_rating: Any
) -> None:
    (lost,) = settled.publish(RATING, [make_rating("case-30")])
    sent = "UPDATE outbox SET sent_at = 1, sent_partition = 0, sent_offset = 9 WHERE event_id = :i"
    settled.run(sent, i=lost.event_id)
    report = look(settled)
    assert (named(report, "missing_at", "carried"), report.under_way) == ({str(lost.event_id)}, 0)


def test_a_record_in_kafka_that_nobody_published_is_a_phantom_even_if_it_is_applied(settled: Any) -> None:
    phantom = one_rating(settled)
    settled.run("DELETE FROM outbox WHERE event_id = :i", i=phantom)
    assert named(look(settled), "missing_at", "published") == {phantom}


def test_a_foreign_record_that_is_neither_applied_nor_dead_is_named_at_both_hops(settled: Any) -> None:
    settled.send_raw(RATING, b"k", b"foreign", [("ce_id", b"11111111-1111-4111-8111-111111111111")])
    report = look(settled)
    for place in ("published", "applied"):
        assert named(report, "missing_at", place) == {"11111111-1111-4111-8111-111111111111"}


def test_a_repeated_delivery_counts_once_and_is_told(settled: Any) -> None:
    first = settled.carried(RATING)[0]
    settled.send_raw(RATING, first.key, first.value, first.headers)
    report = look(settled)
    assert report.equal
    assert report.duplicates == 1


def test_a_removed_dead_letter_is_missed(settled: Any) -> None:
    settled.run("DELETE FROM dead_letter")
    report = look(settled)
    assert not report.equal
    assert named(report, "missing_at", "dead")
    assert named(report, "missing_at", "applied")


def test_a_letter_told_before_what_kafka_still_holds_is_no_difference(
    settled: Any, emptied: Callable[..., None]
) -> None:
    """``bus.deadletter.v1`` forgets after 400 days, the table of letters never."""
    emptied(settled.kafka, [DEADLETTER.name])
    report = look(settled)
    assert report.equal, report.differences
    assert report.expired == 1
    settled.run("UPDATE outbox SET sent_offset = 1000000 WHERE topic = :t", t=DEADLETTER.name)  # never forgotten
    assert {d.place for d in look(settled).differences} == {"carried", "told"}


def test_a_letter_that_a_rebuild_forgot_is_no_difference_once_its_record_is_applied(
    line: Any, make_rating: Callable[..., dict[str, Any]]
) -> None:
    """A mended release accepts what an older one refused; what was said of it stays said."""
    _buried(line, make_rating)
    line.run("DELETE FROM dead_letter")
    assert named(reconcile(line.engine, line.kafka, None), "missing_at", "dead")
    line.apply()
    assert reconcile(line.engine, line.kafka, None).differences == []


def test_a_letter_whose_record_the_log_has_lost_is_no_difference_after_a_resend(
    settled: Any, emptied: Callable[..., None]
) -> None:
    """Nobody published it here, so nobody can send it again."""
    emptied(settled.kafka, [RATING.name])
    assert not look(settled).equal
    resend(settled.engine, settled.kafka)
    settled.relay()
    settled.apply()
    report = look(settled)
    assert report.equal, report.differences
    assert settled.scalar("SELECT count(*) FROM dead_letter") == 1


def test_a_redriven_letter_whose_first_place_is_lost_is_no_difference_after_a_resend(
    line: Any, make_rating: Any, redriven: Callable[[], list[str]], emptied: Callable[..., None]
) -> None:
    _buried(line, make_rating)
    assert redriven() == ["sent again"]
    line.apply()
    emptied(line.kafka, [RATING.name])
    resend(line.engine, line.kafka)
    line.relay()
    line.apply()
    assert reconcile(line.engine, line.kafka, None).differences == []


def rolled(revision: int) -> dict[str, Any]:
    """A revision of one rollup; without event id."""
    counts = dict.fromkeys(("n2", "n3", "n4", "good", "bad", "defaults"), 0)
    return {
        "event_type": "rollup.revised", "region": "430903", "department": "HS-ZRZYJ", "occurred_at": 1_602_228_000_000,
        "occurred_text": "", "entered_at": None, "received_at": 1_602_228_000_350, "scope": "430903////2020-10-09",
        "scope_kind_code": "DISTRICT", "item_code": "", "channel_set": "", "channel_code": "",
        "rated_on": date(2020, 10, 9), "revision": revision, **counts, "n1": revision, "n5": 0, "total": revision,
        "bad": revision,
    }  # fmt: skip


def compacted(line: Any, revisions: range) -> list[str]:
    """Older revisions as they are once Kafka has compacted them away behind what it holds of their scope; their ids."""
    old = line.publish(ROLLUP, [rolled(revision) for revision in revisions])
    ids = [stored.event_id for stored in old]
    away = """
      UPDATE outbox o SET sent_at = 1, sent_partition = n.sent_partition, sent_offset = n.sent_offset - 1
      FROM outbox n WHERE n.key = o.key AND n.sent_offset >= 0 AND o.event_id = ANY(:ids)"""
    assert line.run(away, ids=ids) == len(ids)
    return [str(i) for i in ids]


def test_revisions_that_kafka_compacted_away_before_the_province_was_sent_them_are_no_difference(
    settled: Any, province: Store
) -> None:
    settled.publish(ROLLUP, [rolled(9)])
    settled.relay()
    acknowledge(settled, province)
    asked = [statements(settled)]
    for revisions in (range(1, 2), range(2, 5)):
        gone = compacted(settled, revisions)
        asked.append(statements(settled))
    assert asked[2] == asked[1]  # not one for each of them
    report = look(settled)
    assert report.equal, report.differences
    assert report.superseded == 4

    waits = "INSERT INTO push_queue (event_id, topic, region, department, digest, body) " \
            "SELECT event_id, topic, region, department, digest, '{}' FROM outbox WHERE event_id = :i"
    settled.run(waits, i=gone[0])  # read before it was compacted: the province will have it
    assert {(d.event_id, d.kind, d.place) for d in look(settled).differences} == {
        (gone[0], "missing_at", "acknowledged")
    }
    settled.run("UPDATE outbox SET sent_offset = sent_offset + 5 WHERE event_id = :i", i=gone[1])  # nothing is newer
    assert named(look(settled), "missing_at", "carried") == {gone[1]}


@pytest.mark.parametrize(("refused", "named"), [(1, []), (9, [9])])
def test_a_refused_rollup_is_no_difference_once_a_higher_revision_of_its_scope_is_acknowledged(
    settled: Any, province: Store, refused: int, named: list[int]
) -> None:
    """The province has another content under its id, and will refuse it for ever."""
    ids = {revision: settled.publish(ROLLUP, [rolled(revision)])[0].event_id for revision in (9, 1)}
    settled.relay()
    other = {"event_id": ids[refused], "digest": uuid.uuid4(), "batch_id": uuid.uuid4()}
    with province.engine.begin() as tx:
        known = {"kind": "rollup", "region": "430903", "department": "HS-ZRZYJ", "body": {}}
        tx.execute(sa.insert(at_province.record), {**other, **known})
    acknowledge(settled, province)
    report = look(settled)
    assert [(d.event_id, d.reason) for d in report.differences] == [(str(ids[n]), "refused: conflict") for n in named]
    assert (report.equal, report.superseded) == (not named, 1 - len(named))


def test_what_a_filter_before_the_province_never_took_is_named_with_its_status(settled: Any) -> None:
    """No receipt says so; the queue does."""
    settled.publish(ROLLUP, [rolled(1)])
    settled.relay()
    settled.run(f"""
      INSERT INTO push_queue (event_id, topic, region, department, digest, body, refused_reason)
      SELECT event_id, topic, region, department, digest, '{{}}', 'http 403' FROM outbox
      WHERE topic = '{ROLLUP.name}'""")
    assert [(d.kind, d.place, d.reason) for d in look(settled).differences] == [
        ("missing_at", "acknowledged", "refused: http 403")
    ]


def statements(line: Any) -> int:
    """How many statements a reconciliation sends."""
    sent: list[str] = []

    def note(*args: Any) -> None:
        sent.append(args[2])

    sa.event.listen(line.engine, "before_cursor_execute", note)
    look(line)
    sa.event.remove(line.engine, "before_cursor_execute", note)
    return len(sent)


def kept(store: Store) -> list[list[Any]]:
    """What the province holds, without the batch that brought it."""
    with store.engine.connect() as tx:
        held = [tx.execute(sa.select(*(c for c in t.c if c.name != "batch_id"))).all() for t in LOSABLE]
    return [sorted(map(str, rows)) for rows in held]


def test_what_a_province_lost_with_a_backup_goes_to_it_again_and_is_there_once(settled: Any, province: Store) -> None:
    """It knows its batches still, so each has to have an id of its own, also the second time."""
    settled.publish(ROLLUP, [rolled(9)])
    settled.relay()
    acknowledge(settled, province)
    whole = kept(province)
    assert [len(rows) for rows in whole] == [14, 12, 1, 1]
    for _ in range(2):
        with province.engine.begin() as tx:
            for table in LOSABLE:
                tx.execute(sa.delete(table))
        assert look(settled).equal
        assert again_since(settled.engine, 0, SIGNER.public_key) == Requeued(14, 0, 0)
        assert again_since(settled.engine, 0, SIGNER.public_key) == Requeued(0, 0, 0)  # it waits already
        waits = look(settled)
        assert waits.equal, waits.differences
        send(settled, province)
        assert kept(province) == whole
        after = look(settled)
        assert after.equal, after.differences
        assert after.topics[UPLOAD.name]["acknowledged"] == 13
        assert settled.scalar("SELECT count(*) FROM push_queue") == 0


def test_what_no_genuine_receipt_of_that_time_acknowledges_or_the_outbox_does_not_have_is_not_queued_again(
    settled: Any,
) -> None:
    stranger = Signer(Ed25519PrivateKey.from_private_bytes(bytes(32)))
    assert again_since(settled.engine, 0, stranger.public_key) == Requeued(0, 1, 0)
    assert again_since(settled.engine, 1, SIGNER.public_key) == Requeued(0, 0, 0)  # they came at 0
    with settled.engine.connect() as tx:
        assert [acknowledged(tx, since) for since in (0, 1)] == [13, 0]
    settled.run("DELETE FROM outbox WHERE seq = (SELECT min(seq) FROM outbox WHERE topic = :t)", t=UPLOAD.name)
    altered = "UPDATE outbox SET digest = gen_random_uuid() WHERE seq = (SELECT min(seq) FROM outbox WHERE topic = :t)"
    settled.run(altered, t=UPLOAD.name)
    assert again_since(settled.engine, 0, SIGNER.public_key) == Requeued(11, 0, 2)


def test_what_the_province_refuses_now_is_named_whatever_it_acknowledged_before(settled: Any, province: Store) -> None:
    with province.engine.begin() as tx:
        first = "(SELECT min(event_id::text)::uuid FROM province_record)"
        changed = f"UPDATE province_record SET digest = gen_random_uuid() WHERE event_id = {first} RETURNING event_id"
        lost = str(tx.execute(sa.text(changed)).scalar_one())
    assert again_since(settled.engine, 0, SIGNER.public_key) == Requeued(13, 0, 0)
    send(settled, province)
    assert [(d.event_id, d.kind, d.place, d.reason) for d in look(settled).differences] == [
        (lost, "missing_at", "acknowledged", "refused: conflict")
    ]


def test_a_forged_receipt_is_told_and_acknowledges_nothing(settled: Any) -> None:
    stranger = Signer(Ed25519PrivateKey.from_private_bytes(bytes(32)))
    with settled.engine.begin() as tx:
        row = tx.execute(sa.text("SELECT batch_id, body FROM receipt")).one()
        forged = stranger.sign(receipts.canonical(row.body))
        tx.execute(sa.text("UPDATE receipt SET signature = :s"), {"s": forged})
    report = look(settled)
    assert report.forged == [str(row.batch_id)]
    assert len(named(report, "missing_at", "acknowledged")) == 13


def test_a_receipt_kept_with_a_reason_that_is_no_text_is_read_all_the_same(settled: Any) -> None:
    with settled.engine.begin() as tx:
        row = tx.execute(sa.text("SELECT body FROM receipt")).one()
        row.body["records"][0] |= {"outcome": "REFUSED", "reason": {"code": 3}}
        kept = {"body": json.dumps(row.body), "signature": SIGNER.sign(receipts.canonical(row.body))}
        tx.execute(sa.text("UPDATE receipt SET body = CAST(:body AS jsonb), signature = :signature"), kept)
    report = look(settled)
    assert report.forged == []
    assert [d.reason for d in report.differences if d.reason] == ["refused: {'code': 3}"]


def test_a_lost_receipt_leaves_its_records_unacknowledged(settled: Any) -> None:
    settled.run("DELETE FROM receipt")
    report = look(settled)
    assert len(named(report, "missing_at", "acknowledged")) == 13
    assert report.topics[RATING.name]["acknowledged"] == 0


def test_a_receipt_altered_after_signing_is_forged(settled: Any) -> None:
    settled.run("UPDATE receipt SET body = jsonb_set(body, '{records,0,outcome}', '\"KNOWN\"')")
    assert len(look(settled).forged) == 1


def test_a_rating_uploaded_twice_or_never_is_named(settled: Any) -> None:
    twice = one_rating(settled)
    settled.run("UPDATE rating_event SET event_id = gen_random_uuid() WHERE event_id = :i", i=twice)
    report = look(settled)
    assert len(named(report, "missing_at", "uploaded")) == 1
    assert twice in named(report, "missing_at", "applied")


def _buried(line: Any, make_rating: Callable[..., dict[str, Any]]) -> None:
    """One rating applied, one that the stream refused."""
    line.publish(RATING, [make_rating("case-1"), make_rating("case-2")])
    line.relay()
    line.apply(refusing=b"case-2")


@pytest.fixture
def redriven(line: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """``govbus dlq redrive`` of what the streams refused; the outcomes, none where nothing is open."""
    monkeypatch.setenv("GOVBUS_KAFKA", line.kafka)
    monkeypatch.setenv("GOVBUS_DATABASE_URL", line.engine.url.render_as_string(hide_password=False))

    def redrive() -> list[str]:
        said = CliRunner().invoke(build(), ["dlq", "redrive", "--origin", "STREAM", "--json"])
        outcomes = [r["outcome"] for r in json.loads(said.stdout)["results"]]
        assert said.exit_code == (0 if outcomes else 1), said.output
        line.relay()
        return outcomes

    return redrive


def test_a_dead_letter_of_a_stream_that_was_redriven_and_applied_is_no_difference(
    line: Any, make_rating: Callable[..., dict[str, Any]], redriven: Callable[[], list[str]]
) -> None:
    _buried(line, make_rating)
    assert redriven() == ["sent again"]
    assert len(line.carried(RATING)) == 3
    line.apply()

    report = reconcile(line.engine, line.kafka, None)
    assert report.differences == []
    assert report.equal
    assert report.duplicates == 1
    assert line.scalar("SELECT count(*) FROM rating_event") == 2
    assert line.scalar("SELECT count(*) FROM dead_letter WHERE redriven_at IS NOT NULL") == 1
    assert redriven() == []


def test_a_redriven_dead_letter_that_is_not_applied_again_stays_in_the_equation(
    line: Any, make_rating: Callable[..., dict[str, Any]], redriven: Callable[[], list[str]]
) -> None:
    _buried(line, make_rating)
    for refused in (1, 2):
        assert redriven() == ["sent again"]
        for _ in range(2):  # read again, it is the same letter
            line.apply(refusing=b"case-2")
        places = [(c.partition, c.offset) for c in line.carried(RATING) if c.key == b"case-2"]
        letters = 'SELECT partition, "offset" FROM dead_letter WHERE redriven_at IS NULL'
        with line.engine.connect() as tx:
            assert tx.execute(sa.text(letters)).all() == [places[-1]]
        assert len(line.carried(DEADLETTER)) == len(places) == 1 + refused
        assert reconcile(line.engine, line.kafka, None).equal

    line.run("DELETE FROM rating_event WHERE case_no = 'case-1'")
    missing = [(d.kind, d.place) for d in reconcile(line.engine, line.kafka, None).differences]
    assert ("missing_at", "applied") in missing
