"""Dead letters that are given another chance."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import xlsxwriter

from connectors import redrive
from connectors.intake.files import open_rows
from connectors.publisher import Publisher
from schemas import codec, codesets, envelope
from schemas.errors import Fault
from schemas.topics import CASE, LICENCE
from streams.store import outbox, steps
from streams.store.projection import Carried, Refused
from streams.store.tables import outbox as outbox_table

pytestmark = pytest.mark.stack
EVENT = {
    "event_type": "case.accepted", "region": "430903", "department": "HS-SLJ", "occurred_at": 1_600_000_000_000,
    "received_at": 1_600_000_000_500, "case_no": "C1", "item_code": "I", "event_no": 1,
}  # fmt: skip


@pytest.fixture
def letter(engine: sa.Engine) -> Any:
    """The dead letter of an event that was published and sent, and that a stream refused."""
    row = outbox.row(CASE, EVENT)
    carried = Carried(CASE, 0, 7, b"C1", row.value, tuple(envelope.headers(CASE, codec.decode(row.value, CASE))))
    with engine.begin() as tx:
        outbox.enqueue(tx, [row])
        steps.bury(tx, [Refused(carried, Fault("rule_failed", "", "judge: KeyError"))])
        tx.execute(sa.update(outbox_table).values(sent_at=1, sent_partition=0, sent_offset=7))
    [found] = redrive.find(engine, redrive.Wanted(topic=CASE.name))
    return found


def unsent(engine: sa.Engine) -> int:
    with engine.connect() as tx:
        return int(tx.execute(sa.text("SELECT count(*) FROM outbox WHERE sent_at IS NULL")).scalar_one())


def test_what_a_stream_refused_is_sent_again_and_its_letter_closed(engine: sa.Engine, letter: Any) -> None:
    assert redrive.redrive(engine, letter, lambda: 9).outcome == "sent again"
    assert unsent(engine) == 1
    assert redrive.find(engine, redrive.Wanted()) == []


def test_a_letter_is_closed_by_hand_with_its_reason_and_sends_nothing(engine: sa.Engine, letter: Any) -> None:
    wanted = redrive.Wanted(reason="rule_failed")
    assert redrive.close(engine, wanted, "the case was withdrawn", lambda: 9) == 1
    assert redrive.close(engine, wanted, "once more", lambda: 10) == 0
    assert unsent(engine) == 0
    [closed] = redrive.find(engine, redrive.Wanted((letter.dead_id,), redriven=True))
    assert (closed.redriven_at, closed.closed_why) == (9, "the case was withdrawn")


def test_a_letter_is_sent_again_and_closed_in_one_transaction(
    engine: sa.Engine, letter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closed later, it would close over a second refusal that came between."""

    def fails(*_: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(redrive, "_mark", fails)
    with pytest.raises(RuntimeError):
        redrive.redrive(engine, letter, lambda: 9)
    assert unsent(engine) == 0


def test_a_refused_row_of_a_sheet_is_redriven_as_the_sheet_itself_would_be(
    engine: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, issuer = "11100000MBDEM90013001", "11430903MBDEM012XT"
    row = {
        "event_type": "licence.issued", "occurred_at": datetime(2020, 9, 25, 16, 50), "licence_version": 1,  # noqa: DTZ001
        "licence_id": f"1.2.156.3005.2.{kind}.{issuer}.HS20200000000000001.001.J", "type_code": kind,
        "issuer_code": issuer, "licence_no": "L1", "status_set": "ministry.licence-status", "status_code": "01",
        "origin_code": "INCREMENT", "issued_on": datetime(2020, 9, 25),  # noqa: DTZ001
    }  # fmt: skip
    path = tmp_path / "licences.xlsx"
    with xlsxwriter.Workbook(path, {"default_date_format": "yyyy-mm-dd hh:mm:ss"}) as book:
        page = book.add_worksheet()
        page.write_row(0, 0, row.keys())
        page.write_row(1, 0, row.values())
    publisher = Publisher(engine, "HS-SCJGJ", "430903")

    def published() -> list[str]:
        return [r.outcome for r in publisher.publish(LICENCE, [row for _, row in open_rows(path, LICENCE).rows()])]

    with monkeypatch.context() as patched:  # the code is not in the set yet
        patched.setattr(codesets, "known", lambda _, code: code != "01")
        assert published() == ["refused"]
    (dead,) = redrive.find(engine, redrive.Wanted(topic=LICENCE.name))
    result = redrive.redrive(engine, dead)
    assert (result.outcome, result.faults) == ("new", ())
    assert published() == ["same"]


def test_what_is_no_value_of_json_is_refused_again(engine: sa.Engine) -> None:
    row = {"event_type": "case.accepted", "occurred_at": "2020-09-25 16:50:00", "case_no": "C1",
           "item_code": "11430903MBDEM0138T4000715002000", "step_name": b"x"}  # fmt: skip
    Publisher(engine, "HS-ZRZYJ", "430903").publish(CASE, [row])
    (dead,) = redrive.find(engine, redrive.Wanted(topic=CASE.name))
    assert [f.field for f in redrive.redrive(engine, dead).faults] == ["step_name"]


def test_a_line_that_was_no_row_is_read_as_the_file_was_and_stays_none(engine: sa.Engine, tmp_path: Path) -> None:
    line = '{"event_type": "case.accepted", "occurred_at": "2020-09-25 16:50:00", "case_no": "C1", "case_no": "C2", '
    line += '"item_code": "11430903MBDEM0138T4000715002000"}\n'
    (tmp_path / "a.jsonl").write_text(line)
    rows = [row for _, row in open_rows(tmp_path / "a.jsonl", CASE).rows()]
    Publisher(engine, "HS-ZRZYJ", "430903").publish(CASE, rows)
    (dead,) = redrive.find(engine, redrive.Wanted(topic=CASE.name))
    result = redrive.redrive(engine, dead)
    assert (result.outcome, [f.reason for f in result.faults]) == ("refused", ["bad_row"])
