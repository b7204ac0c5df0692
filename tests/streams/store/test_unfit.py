"""A record that a rule cannot take becomes a dead letter, and all others are applied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
import structlog
from msgspec import structs

from schemas.errors import Fault
from schemas.topics import CASE, DEADLETTER
from streams.rules import judge as rule
from streams.store import judge, unfit
from streams.store.applier import tick
from streams.store.judge import JudgeProjection
from streams.store.projection import Carried, Refused
from streams.store.steps import bury
from streams.store.tables import card, case_state, cursor, dead_letter, outbox

pytestmark = pytest.mark.stack
SECRET = "43090319000101001X"
PARTITIONS = 3


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the rule ends with an exception for cases whose number begins with BAD."""

    def fold(state: Any, *rest: Any) -> Any:
        if state.case_no.startswith("BAD"):
            raise KeyError(SECRET)
        return rule.fold(state, *rest)

    monkeypatch.setattr(judge, "fold", fold)


def log(carrying: Any, cases: Sequence[str]) -> list[Carried]:
    """One event of each case, spread over the partitions, in order within each: a decision whose acceptance is still to
    come, which is a finding after a day.
    """
    made: list[Carried] = []
    for number, case_no in enumerate(cases):
        record = carrying.record("case.decided", number, case_no=case_no, item_code="I", event_no=1)
        made.append(carrying.carry(CASE, record, number // PARTITIONS, number % PARTITIONS))
    return sorted(made, key=lambda one: (one.partition, one.offset))


def read(engine: sa.Engine, what: sa.Column[Any]) -> list[Any]:
    with engine.connect() as tx:
        return list(tx.execute(sa.select(what).order_by(what)).scalars())


@pytest.mark.usefixtures("failing")
def test_the_record_is_buried_without_its_values_and_all_others_are_applied(engine: sa.Engine, carrying: Any) -> None:
    good = [f"C{n:02}" for n in range(20)]
    carried = log(carrying, [*good[:7], "BAD-1", *good[7:12], "BAD-2", *good[12:]])
    applied = unfit.apply(engine, JudgeProjection(), carried, {})
    assert (applied.applied, applied.next_offsets) == (22, {0: 8, 1: 7, 2: 7})
    assert read(engine, case_state.c.case_no) == good
    assert sorted(read(engine, cursor.c.next_offset)) == [7, 7, 8]
    assert read(engine, dead_letter.c.reason) == ["rule_failed"] * 2
    assert {text.split(",")[0] for text in read(engine, dead_letter.c.text)} == {"judge: KeyError in test_unfit.py"}
    again = unfit.apply(engine, JudgeProjection(), carried, {})
    assert (again.applied, len(read(engine, dead_letter.c.reason))) == (0, 2)


@pytest.mark.usefixtures("failing")
def test_a_program_that_fails_too_often_ends(engine: sa.Engine, carrying: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unfit, "MOST", 3)
    carried = log(carrying, [f"BAD-{n}" for n in range(12)])
    with pytest.raises(KeyError):
        unfit.apply(engine, JudgeProjection(), carried, {})
    assert len(read(engine, dead_letter.c.reason)) == 3


def test_a_chunk_that_fails_though_no_record_of_it_does_is_told(engine: sa.Engine, carrying: Any) -> None:
    """Everything is applied and nothing is buried, so without a word nobody would learn of it."""

    class Few(JudgeProjection):
        def apply(self, tx: sa.Connection, carried: Sequence[Carried]) -> None:
            if len(carried) > 2:
                raise ValueError(SECRET)
            super().apply(tx, carried)

    with structlog.testing.capture_logs() as said:
        applied = unfit.apply(engine, Few(), log(carrying, [f"C{n}" for n in range(6)]), {})
    assert (applied.applied, read(engine, dead_letter.c.reason)) == (6, [])
    assert [(line["event"], line["records"]) for line in said] == [(unfit.HALVED, n) for n in (6, 3, 3)]
    assert "ValueError in test_unfit.py" in said[0]["where"]
    assert SECRET not in str(said)


def test_a_missing_table_is_no_records_fault(engine: sa.Engine, carrying: Any) -> None:
    with engine.begin() as tx:
        tx.execute(sa.text("DROP TABLE alert_said"))
    with pytest.raises(sa.exc.ProgrammingError):
        unfit.apply(engine, JudgeProjection(), log(carrying, ["C1"]), {})
    assert read(engine, dead_letter.c.reason) == []


@pytest.mark.parametrize("mishap", ["DROP TABLE case_event", "ALTER TABLE case_event DROP COLUMN digest"])
def test_what_a_bulk_write_finds_missing_is_no_records_fault(engine: sa.Engine, carrying: Any, mishap: str) -> None:
    """Bulk writes meet psycopg's own errors: a release that came before its migration would bury good events."""
    with engine.begin() as tx:
        tx.execute(sa.text(mishap))
    with pytest.raises(psycopg.errors.ProgrammingError):
        unfit.apply(engine, JudgeProjection(), log(carrying, ["C1", "C2"]), {})
    assert read(engine, dead_letter.c.reason) == []


@pytest.mark.usefixtures("failing")
def test_letters_that_were_mended_count_no_more(
    engine: sa.Engine, carrying: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfit, "MOST", 2)
    carried = log(carrying, [f"BAD-{n}" for n in range(3)])
    for one in carried[:2]:
        unfit.apply(engine, JudgeProjection(), [one], {})
    with engine.begin() as tx:
        tx.execute(sa.update(dead_letter).values(redriven_at=1))
    unfit.apply(engine, JudgeProjection(), carried[2:], {})
    assert len(read(engine, dead_letter.c.reason)) == 3


@pytest.mark.usefixtures("failing")
def test_a_letter_that_was_redriven_and_failed_again_counts_again(
    engine: sa.Engine, carrying: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfit, "MOST", 1)
    first, second = log(carrying, ["BAD-0", "BAD-1"])
    unfit.apply(engine, JudgeProjection(), [first], {})
    with engine.begin() as tx:
        tx.execute(sa.update(dead_letter).values(redriven_at=1))
    again = replace(first, offset=first.offset + 1)
    for one in (first, again, again):  # read again where it lay, then refused where it lies now, and read again there
        with engine.begin() as tx:
            bury(tx, [Refused(one, Fault("rule_failed", "", "judge: KeyError"))])
    assert read(engine, dead_letter.c.offset) == [first.offset, again.offset]
    with engine.connect() as tx:
        told = tx.execute(sa.select(outbox.c.event_id).where(outbox.c.topic == DEADLETTER.name)).all()
    assert len(told) == 2
    with pytest.raises(KeyError):
        unfit.apply(engine, JudgeProjection(), [second], {})


def carded(engine: sa.Engine, projection: JudgeProjection, later: int) -> list[str]:
    """The cases with a card once all that is due has been looked at; nothing stays due."""
    for partition in range(PARTITIONS):
        assert not tick(engine, projection, partition, later)
    with engine.connect() as tx:
        assert projection.due(tx, later) == set()
        return list(tx.execute(sa.select(card.c.case_no).order_by(card.c.case_no)).scalars())


def test_a_case_at_which_the_rule_fails_when_it_is_due_holds_up_no_other(
    engine: sa.Engine, carrying: Any, request: pytest.FixtureRequest
) -> None:
    projection, later = JudgeProjection(), carrying.START + 2 * 86_400_000
    unfit.apply(engine, projection, log(carrying, ["C1", "BAD-1", "BAD-2", "C2", "C3", "C4"]), {})
    request.getfixturevalue("failing")
    assert carded(engine, projection, later) == ["C1", "C2", "C3", "C4"]


def test_a_case_that_cannot_be_written_when_it_is_due_holds_up_no_other(
    engine: sa.Engine, carrying: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fold(state: Any, *rest: Any) -> Any:
        after, decisions = rule.fold(state, *rest)
        if state.case_no.startswith("BAD"):
            after = structs.replace(after, department="\x00")
        return after, decisions

    projection, later = JudgeProjection(), carrying.START + 2 * 86_400_000
    unfit.apply(engine, projection, log(carrying, ["C1", "BAD-1", "BAD-2", "C2", "C3", "C4"]), {})
    monkeypatch.setattr(judge, "fold", fold)
    assert carded(engine, projection, later) == ["C1", "C2", "C3", "C4"]


def test_where_over_twenty_cannot_be_written_the_program_is_at_fault(engine: sa.Engine) -> None:
    def act(ones: Sequence[int]) -> None:
        if any(one < 21 for one in ones):
            raise KeyError("a slip of the program")

    with engine.begin() as tx:
        assert len(unfit.together(tx, act, range(1, 40))) == unfit.MOST
        with pytest.raises(KeyError):
            unfit.together(tx, act, range(40))
