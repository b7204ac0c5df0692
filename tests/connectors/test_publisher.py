"""From a row to a receipt or a dead letter, on a real database."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from connectors.intake.files import Unreadable
from connectors.publisher import Publisher
from schemas import codec
from schemas.errors import Fault, Misconfigured, Rejected, Retryable
from schemas.topics import DEADLETTER, RATING
from streams.store.engine import connect
from streams.store.tables import case_state, dead_letter, outbox

RECEIVED = 1_601_024_000_000
ITEM_CODE = "11430903MBDEM0138T4000715002000"


def rating(case_no: str = "C1", **changes: Any) -> dict[str, Any]:
    return {
        "case_no": case_no,
        "event_type": "rating.given",
        "occurred_at": "2020-09-25 16:50:00",
        "item_code": ITEM_CODE,
        "satisfaction_set": "platform.satisfaction",
        "satisfaction_code": "5",
        "channel_set": "platform.channel",
        "channel_code": "4",
    } | changes


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is given at once is one transaction, however slow the machine is."""
    monkeypatch.setattr("connectors.publisher.CHUNK_S", 60.0)


def publisher(engine: sa.Engine, at: int = RECEIVED) -> Publisher:
    return Publisher(engine, "HS-ZRZYJ", "430903", now=lambda: at)


def stored(engine: sa.Engine, table: sa.Table) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(sa.select(table)))


def test_a_published_row_stands_in_the_outbox_under_its_key_and_receipt_time(engine: sa.Engine) -> None:
    (result,) = publisher(engine).publish(RATING, [rating()])
    (row,) = stored(engine, outbox)
    assert (result.outcome, result.event_id, result.faults) == ("new", row.event_id, ())
    assert (row.topic, row.key, row.department, row.received_at) == (
        "service.rating.v1",
        "C1",
        "HS-ZRZYJ",
        RECEIVED,
    )
    record = codec.decode(row.value, RATING)
    assert (record["occurred_at"], record["occurred_text"]) == (1_601_023_800_000, "2020-09-25 16:50:00")
    assert result.receipt is not None
    assert str(result.event_id) in result.receipt


def test_the_same_content_again_gets_the_same_receipt_and_no_second_event(engine: sa.Engine) -> None:
    (first,) = publisher(engine).publish(RATING, [rating()])
    (second,) = publisher(engine, RECEIVED + 86_400_000).publish(RATING, [rating()])
    assert (second.outcome, second.event_id, second.receipt) == ("same", first.event_id, first.receipt)
    assert len(stored(engine, outbox)) == 1


def test_the_same_time_spelt_otherwise_is_the_same_event(engine: sa.Engine) -> None:
    (first,) = publisher(engine).publish(RATING, [rating()])
    (again,) = publisher(engine).publish(RATING, [rating(occurred_at="2020-09-25T08:50:00Z")])
    assert (again.outcome, again.receipt) == ("same", first.receipt)


def test_a_row_that_stands_twice_in_one_file_is_one_event(engine: sa.Engine) -> None:
    results = publisher(engine).publish(RATING, [rating(), rating()])
    assert [r.outcome for r in results] == ["new", "same"]
    assert results[0].receipt == results[1].receipt
    assert len(stored(engine, outbox)) == 1


def test_other_content_under_the_same_id_is_a_conflict_that_names_fields_and_no_values(
    engine: sa.Engine,
) -> None:
    publisher(engine).publish(RATING, [rating(comment="办得快")])
    (result,) = publisher(engine).publish(RATING, [rating(comment="找王小明办的", satisfaction_code="1")])
    assert (result.outcome, result.differing) == ("conflict", ("satisfaction_code", "comment"))
    (letter,) = stored(engine, dead_letter)
    assert (letter.reason, letter.origin, letter.event_id) == ("conflict", "INTAKE", result.event_id)
    assert "王小明" not in letter.text + "".join(f.text for f in result.faults)
    assert "找王小明办的" in letter.original.decode()
    assert [r.topic for r in stored(engine, outbox)] == ["service.rating.v1", "bus.deadletter.v1"]


def test_a_refused_row_is_dead_lettered_whole_with_reason_department_and_announcement(
    engine: sa.Engine,
) -> None:
    (result,) = publisher(engine).publish(RATING, [rating(satisfaction_code="9")])
    assert (result.outcome, result.receipt) == ("refused", None)
    (letter,) = stored(engine, dead_letter)
    assert (letter.reason, letter.field, letter.department) == (
        "unknown_code",
        "satisfaction_code",
        "HS-ZRZYJ",
    )
    (row,) = stored(engine, outbox)
    said = codec.decode(row.value, DEADLETTER)
    assert (said["reason_code"], said["origin_code"], said["original_topic"]) == (
        "unknown_code",
        "INTAKE",
        "service.rating.v1",
    )
    assert said["dead_id"] == str(letter.dead_id)
    assert said["original"] == letter.original


def test_the_same_bad_row_sent_again_is_the_same_dead_letter(engine: sa.Engine) -> None:
    publisher(engine).publish(RATING, [rating(colour="red"), rating(colour="red")])
    publisher(engine, RECEIVED + 1).publish(RATING, [rating(colour="red")])
    assert len(stored(engine, dead_letter)) == 1
    assert len(stored(engine, outbox)) == 1


def _open(engine: sa.Engine) -> list[str]:
    return sorted(letter.reason for letter in stored(engine, dead_letter) if letter.redriven_at is None)


def test_a_refusal_is_closed_once_its_event_is_accepted_and_open_again_once_the_same_is_refused(
    engine: sa.Engine,
) -> None:
    publisher(engine).publish(RATING, [rating(satisfaction_code="9"), rating("C2", satisfaction_code="9")])
    publisher(engine, RECEIVED + 5).publish(RATING, [rating()])
    letters = {letter.original.count(b"C1"): letter.redriven_at for letter in stored(engine, dead_letter)}
    assert letters == {1: RECEIVED + 5, 0: None}
    publisher(engine, RECEIVED + 9).publish(RATING, [rating(satisfaction_code="9")])
    assert _open(engine) == ["unknown_code", "unknown_code"]


def test_a_conflict_and_a_refusal_after_the_acceptance_stay_open_though_the_same_is_published_again(
    engine: sa.Engine,
) -> None:
    publisher(engine).publish(RATING, [rating(), rating(satisfaction_code="4"), rating(satisfaction_code="9")])
    publisher(engine).publish(RATING, [rating()])
    assert _open(engine) == ["conflict", "unknown_code"]


def test_a_line_that_is_no_row_is_kept_as_it_came(engine: sa.Engine) -> None:
    faults = (Fault("bad_row", "", "is not a JSON object"), Fault("bad_row", "comment", "nor is this"))
    line = Unreadable(faults[0], b"{half", faults[1:])
    results = publisher(engine).publish(RATING, [rating("C1"), line, rating("C2")])
    assert [r.outcome for r in results] == ["new", "refused", "new"]
    assert results[1].faults == faults
    assert stored(engine, dead_letter)[0].original == b"{half"


def test_good_rows_and_bad_rows_of_one_file_are_answered_in_order(engine: sa.Engine) -> None:
    rows = [rating(f"C{n}", **({"satisfaction_code": "9"} if n % 7 == 0 else {})) for n in range(1, 2_501)]
    results = publisher(engine).publish(RATING, rows)
    assert [r.row for r in results] == list(range(1, 2_501))
    assert [r.row for r in results if r.outcome == "refused"] == list(range(7, 2_501, 7))
    assert len(stored(engine, dead_letter)) == 357


def test_a_claimed_event_id_must_be_the_derived_one(engine: sa.Engine) -> None:
    (first,) = publisher(engine).publish(RATING, [rating()])
    right = publisher(engine).publish(RATING, [rating(event_id=str(first.event_id))])
    wrong = publisher(engine).publish(RATING, [rating(event_id="11111111-2222-5333-8444-555555555555")])
    assert right[0].outcome == "same"
    assert [f.reason for f in wrong[0].faults] == ["id_mismatch"]


def test_a_record_over_256_kib_is_too_large(engine: sa.Engine) -> None:
    (result,) = publisher(engine).publish(RATING, [rating(comment="长" * 90_000)])
    assert [f.reason for f in result.faults] == ["too_large"]


def test_a_text_that_is_not_unicode_is_refused_and_nothing_breaks(engine: sa.Engine) -> None:
    (result,) = publisher(engine).publish(RATING, [rating(comment="\ud800")])
    assert (result.outcome, [f.reason for f in result.faults]) == ("refused", ["bad_format"])


def test_rows_of_half_characters_or_thousands_of_columns_cost_only_themselves(engine: sa.Engine) -> None:
    """Their ids and their announcements are made in the transaction of all."""
    wide = rating("C2") | {f"column_{n}": "" for n in range(5_000)}
    results = publisher(engine).publish(RATING, [rating("\ud800", colour="red"), wide, rating("C3")])
    assert [r.outcome for r in results] == ["refused", "refused", "new"]
    assert (results[0].event_id, len(results[1].faults)) == (None, 5_000)
    _, letter = sorted(stored(engine, dead_letter), key=lambda d: len(d.original))
    assert letter.text.endswith("unknown_field column_19: is not in the contract; and 4980 more")
    assert [r.topic for r in stored(engine, outbox)] == ["service.rating.v1", *["bus.deadletter.v1"] * 2]


def test_a_dry_run_answers_every_row_and_writes_nothing(engine: sa.Engine) -> None:
    results = list(publisher(engine).check(RATING, [rating(), rating(colour="red")]))
    assert [r.outcome for r in results] == ["valid", "refused"]
    assert stored(engine, outbox) == []
    assert stored(engine, dead_letter) == []


def test_a_publisher_of_an_unknown_department_is_not_made() -> None:
    with pytest.raises(Rejected) as caught:
        Publisher(None, "区土地局", "430903")
    assert caught.value.reason == "unknown_department"


@pytest.mark.parametrize("region", ["4309O3", "430903 ", "999999", "", "/x"])
def test_a_publisher_of_an_unknown_region_is_not_made(region: str) -> None:
    """What it published could never be reconciled: nobody would know whose it is."""
    with pytest.raises(Rejected) as caught:
        Publisher(None, "HS-ZRZYJ", region)
    assert (caught.value.reason, caught.value.faults[0].field) == ("unknown_code", "region")


def test_a_name_that_no_index_takes_is_refused_and_its_neighbours_go(engine: sa.Engine) -> None:
    """The database takes 2,704 bytes into an index: an error there would take all rows of the file with it."""
    ragged = "".join(chr(0x4E00 + n * 7919 % 20_000) for n in range(1_500))  # nothing that could be compressed
    results = publisher(engine).publish(RATING, [rating("C1"), rating(ragged), rating("C2")])
    assert [r.outcome for r in results] == ["new", "refused", "new"]
    assert [(f.reason, f.field) for f in results[1].faults] == [("too_large", "case_no")]
    assert ragged not in str(results[1].faults)


def test_each_row_is_received_when_it_is_taken(engine: sa.Engine) -> None:
    clock = itertools.count(RECEIVED)
    Publisher(engine, "HS-ZRZYJ", "430903", now=lambda: next(clock)).publish(
        RATING, [rating("C1"), rating("C2")]
    )
    assert sorted(r.received_at for r in stored(engine, outbox)) == [RECEIVED, RECEIVED + 1]


@pytest.mark.parametrize(("apart_s", "side"), [(-120, "behind"), (120, "ahead of")])
def test_a_host_whose_clock_is_another_than_the_databases_publishes_nothing(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch, apart_s: int, side: str
) -> None:
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + apart_s * 1_000_000_000)
    here = Publisher(engine, "HS-ZRZYJ", "430903")
    with pytest.raises(Misconfigured, match=rf"1[12]\d s {side} PostgreSQL's: set both by NTP"):
        here.publish(RATING, [rating()])
    assert stored(engine, outbox) == []
    monkeypatch.undo()
    assert here.publish(RATING, [rating()])[0].outcome == "new"


def test_an_absent_database_is_something_to_wait_for() -> None:
    away = connect("postgresql+psycopg://nobody@127.0.0.1:1/none")
    with pytest.raises(Retryable, match=r"PostgreSQL at 127.0.0.1:\d+, the database, is away"):
        publisher(away).publish(RATING, [rating()])


@pytest.fixture
def department(engine: sa.Engine) -> Iterator[sa.Engine]:
    """The login of HS-ZRZYJ as docs/operate.md makes it."""
    guide = (Path(__file__).parents[2] / "docs" / "operate.md").read_text("utf-8")
    told = guide.partition("**A login for each department.**")[2].partition("**What grows.**")[0]
    once, each = re.findall(r"```sql\n(.*?)```", told, re.S)
    with engine.begin() as tx:
        tx.exec_driver_sql(once.replace("DATABASE govbus", f'DATABASE "{engine.url.database}"'))
        tx.exec_driver_sql(each.replace("…", "secret"))
    login = connect(engine.url.set(username="HS-ZRZYJ", password="secret").render_as_string(hide_password=False))
    yield login
    login.dispose()
    with engine.begin() as tx:
        tx.exec_driver_sql('DROP OWNED BY govbus_department; DROP ROLE "HS-ZRZYJ"; DROP ROLE govbus_department')


def test_a_departments_login_publishes_for_itself_and_sees_nothing_of_others(
    engine: sa.Engine, department: sa.Engine
) -> None:
    others = Publisher(engine, "HS-XZSPJ", "430903", now=lambda: RECEIVED)
    others.publish(RATING, [rating("OTHER"), rating("OTHER", satisfaction_code="9")])
    own = publisher(department)
    results = own.publish(RATING, [rating(), rating(), rating("C2", satisfaction_code="9")])
    assert [r.outcome for r in results] == ["new", "same", "refused"]
    assert [r.outcome for r in own.publish(RATING, [rating(channel_code="1"), rating("C2")])] == ["conflict", "new"]
    with department.connect() as connection:
        seen = connection.execute(sa.select(outbox.c.department).union(sa.select(dead_letter.c.department)))
        assert seen.scalars().all() == ["HS-ZRZYJ"]


def test_a_departments_login_publishes_for_nobody_else_and_reads_no_other_table(department: sa.Engine) -> None:
    others = Publisher(department, "HS-XZSPJ", "430903", now=lambda: RECEIVED)
    for row in (rating(), rating(satisfaction_code="9")):
        with pytest.raises(Misconfigured, match="does not let HS-ZRZYJ write these rows: publish for the department"):
            others.publish(RATING, [row])
    with department.connect() as connection, pytest.raises(sa.exc.ProgrammingError, match="permission denied"):
        connection.execute(sa.select(sa.func.count()).select_from(case_state))


def test_rows_that_come_slowly_are_committed_soon_after_they_were_looked_at(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the time that the first ones bear, timers must not have spoken of their cases."""
    monkeypatch.setattr("connectors.publisher.CHUNK_S", 0.1)
    seen: list[int] = []

    def slowly() -> Iterator[dict[str, Any]]:
        for number in range(4):
            time.sleep(0.06)
            seen.append(len(stored(engine, outbox)))
            yield rating(f"slow-{number}")

    assert [r.outcome for r in publisher(engine).stream(RATING, slowly())] == ["new"] * 4
    assert seen[-1] > 0
