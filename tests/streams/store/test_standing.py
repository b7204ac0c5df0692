"""Ratings of void cases, and those that an appeal excluded, leave cells, rollups and the province's sums, in any order
of what is known (DOMAIN §5.8); by row and by column.
"""

from __future__ import annotations

import itertools
import threading
from datetime import date
from typing import Any

import pytest
import sqlalchemy as sa

from schemas import codec, codesets, envelope
from schemas.topics import CASE, RATING, ROLLUP, UPLOAD, Topic
from streams.rules.calendar import DAY_MINUTES, day_of, epoch_ms
from streams.store import applier, desk, settling, standing, tally
from streams.store.judge import JudgeProjection
from streams.store.projection import Carried, Projection
from streams.store.tables import alert_inbox, alert_life
from streams.store.tally import TURNS, TallyProjection

pytestmark = pytest.mark.stack
CODE = "11430903MBDEM0138T4000715002000"
TABLES = (
    "rating_event, rating_cell_merged, rating_cell_change, rating_out, rating_out_news, outbox, rollup_dirty, "
    "rollup_emitted, cursor, case_event, case_state, case_history, alert_life, alert_inbox, desk_check"
)
OLDER = "province.result-older"


def ms(day: int, hour: int) -> int:
    return epoch_ms(day_of(date(2020, 10, day)) * DAY_MINUTES + hour * 60)


def record(topic: Topic, kind: str, at: int, **more: Any) -> dict[str, Any]:
    made = {"event_type": kind, "region": "430903", "department": "HS-ZRZYJ", "occurred_at": at, "received_at": at}
    whole = {**made, "item_code": CODE, "case_no": "C-1", **more}
    return {**whole, "event_id": str(envelope.event_id(topic, whole))}


def case(kind: str, at: int, **more: Any) -> dict[str, Any]:
    return record(CASE, f"case.{kind}", at, **{"event_no": 1, **more})


def rating(at: int, score: int, **more: Any) -> dict[str, Any]:
    told = {"service_no": 1, "assess_no": 1, "revision": 0, "operation": "I", "satisfaction_code": str(score)}
    sets = {"satisfaction_set": "platform.satisfaction", "channel_set": "platform.channel", "channel_code": "2"}
    kind = {"I": "rating.given", "U": "rating.corrected", "D": "rating.withdrawn"}[more.get("operation", "I")]
    return record(RATING, kind, at, **{**told, **sets, **more})


ACCEPTED, DECIDED, VOIDED = case("accepted", ms(12, 10)), case("decided", ms(13, 10)), case("voided", ms(21, 9))
BAD, AGAIN = rating(ms(14, 9), 1), rating(ms(19, 9), 4, assess_no=2)


class Bus:
    """Applies records in the order given; ``settle`` lets the tally speak until it has nothing to say."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine, self.judge, self.tally = engine, JudgeProjection(), TallyProjection()
        self._next: dict[str, int] = {}
        with engine.begin() as tx:
            tx.execute(sa.text(f"TRUNCATE {TABLES}"))

    def put(self, *records: dict[str, Any]) -> None:
        for made in records:
            self.apply(self.judge if made["event_type"].startswith("case.") else self.tally, made)

    def apply(self, projection: Projection, made: dict[str, Any]) -> None:
        applier.apply_batch(self.engine, projection, [self.carried(projection.topic, made)])

    def carried(self, topic: Topic, made: dict[str, Any]) -> Carried:
        offset = self._next[topic.name] = self._next.get(topic.name, -1) + 1
        value = codec.encode(topic, made)
        whole = codec.decode(value, topic)
        return Carried(topic, 0, offset, whole["case_no"].encode(), value, tuple(envelope.headers(topic, whole)))

    def settle(self) -> None:
        while applier.aside(self.engine, self.tally.speak):
            pass

    def rows(self, query: str) -> list[Any]:
        with self.engine.connect() as tx:
            return [tuple(row) for row in tx.execute(sa.text(query))]

    def scores(self) -> dict[int, int]:
        """How many ratings count, by score."""
        return dict(self.rows("SELECT score, sum(n)::int FROM rating_cell GROUP BY score HAVING sum(n) <> 0"))

    def cells(self) -> list[Any]:
        return self.rows("SELECT * FROM rating_cell ORDER BY rated_on, score")

    def said(self, topic: Topic) -> list[Any]:
        query = f"SELECT value FROM outbox WHERE topic = '{topic.name}' ORDER BY seq"
        return [codec.decode(bytes(value), topic) for (value,) in self.rows(query)]

    def stands(self) -> list[tuple[Any, ...]]:
        """What the province was told of what counts."""
        words = (w for w in self.said(UPLOAD) if w["event_type"] != "rating.uploaded")
        return [(w["event_type"], w["assess_number"], w["revision"], w["effective"]) for w in words]

    def total(self) -> int:
        """The district's total over all days, by each scope's newest revision."""
        newest: dict[str, Any] = {}
        for word in self.said(ROLLUP):
            if word["scope_kind_code"] == "DISTRICT":
                newest[word["scope"]] = max(newest.get(word["scope"], word), word, key=lambda w: w["revision"])
        return sum(w["total"] for w in newest.values())

    def appeal(self, excluded: bool, region: str = "430903") -> None:
        """What the desk's derivation leaves behind, and its news (tests/consumers/alerts/test_desk.py has the desk)."""
        alert_id = envelope.derived_id("BAD_RATING", region, "C-1", 1, "HS-ZRZYJ", 1)
        row = {
            "case_no": "C-1", "alert_id": str(alert_id), "region": region, "department": "HS-ZRZYJ", "item_code": "",
            "kind": "BAD_RATING", "colour": "NONE", "rule_id": "", "stage": "", "issued_at": 0, "verified": "",
            "level": "", "closing": "", "dues": {}, "next_timer": "", "steps": [],
            "out_at": ms(23, 9) if excluded else None, "out_reason": "appeal_upheld" if excluded else "",
        }  # fmt: skip
        same = ("alert_id", "case_no", "region", "department", "kind", "colour", "issued_at")
        inbox = {
            **{name: row[name] for name in same},
            "alert_seq": 1, "action": "ISSUED", "summary": "", "seen_at": 0, "evidence": [BAD["event_id"]],
        }  # fmt: skip
        with self.engine.begin() as tx:
            for table, one in ((alert_life, row), (alert_inbox, inbox)):
                tx.execute(sa.delete(table))
                tx.execute(sa.insert(table), one)
            standing.look(tx, ["C-1"])


@pytest.fixture(params=["rows", "columns"])
def bus(request: pytest.FixtureRequest, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> Bus:
    if request.param == "columns":
        monkeypatch.setattr(tally, "FEW", 0)
    return Bus(engine)


def test_ratings_of_a_case_that_turns_void_leave_cells_rollups_and_the_provinces_sums(bus: Bus) -> None:
    bus.put(ACCEPTED, DECIDED, BAD)
    bus.settle()
    assert (bus.scores(), bus.total(), bus.stands()) == ({1: 1}, 1, [])
    bus.put(VOIDED)
    bus.settle()
    assert (bus.scores(), bus.total()) == ({}, 0)
    assert bus.stands() == [("rating.excluded", 1, 1, False)]
    with bus.engine.connect() as tx:  # and the desk looks at its alerts
        found = tx.execute(sa.text("SELECT key, partition FROM desk_check WHERE next_check_at = 0")).all()
    assert found == [("C-1", desk.partition_of("C-1"))]


def test_since_when_a_case_is_void_does_not_depend_on_what_came_with_the_voiding(bus: Bus) -> None:
    told = [bus.carried(CASE, one) for one in (ACCEPTED, DECIDED, VOIDED, case("step_completed", ms(22, 9)))]
    applier.apply_batch(bus.engine, bus.judge, told)
    assert bus.rows("SELECT known_at FROM rating_out") == [(ms(21, 9),)]


def test_a_rating_that_comes_after_its_case_turned_void_is_excluded_too(bus: Bus) -> None:
    bus.put(ACCEPTED, DECIDED, VOIDED)
    bus.settle()
    bus.put(BAD)
    bus.settle()
    assert (bus.scores(), bus.total()) == ({}, 0)
    assert bus.stands() == [("rating.excluded", 1, 1, False)]
    bus.put(AGAIN)
    bus.settle()
    assert bus.scores() == {}
    assert bus.stands() == [("rating.excluded", 1, 1, False), ("rating.excluded", 2, 1, False)]


def test_a_correction_of_a_rating_that_is_out_stays_out_and_is_said_once(bus: Bus) -> None:
    bus.put(ACCEPTED, DECIDED, BAD, VOIDED)
    bus.settle()
    bus.put(rating(ms(14, 9), 5, operation="U", revision=1, received_at=ms(22, 9)))
    bus.settle()
    assert (bus.scores(), bus.total()) == ({}, 0)
    assert bus.stands() == [("rating.excluded", 1, 1, False)]


def test_a_case_that_is_void_no_more_has_its_ratings_counted_again(bus: Bus) -> None:
    void = case("decided", ms(13, 10), result_set=OLDER, result_code="3")
    bus.put(ACCEPTED, void, BAD)
    bus.settle()
    assert bus.scores() == {}
    bus.put(case("voided", ms(14, 10), corrects_event_id=void["event_id"]))  # the decision, not the case
    bus.settle()
    assert (bus.scores(), bus.total()) == ({1: 1}, 1)
    assert bus.stands() == [("rating.excluded", 1, 1, False), ("rating.restored", 1, 2, True)]


def test_a_case_of_which_the_voiding_is_annulled_counts_again_and_since_when_is_known(bus: Bus) -> None:
    undone = case("voided", ms(22, 9), corrects_event_id=VOIDED["event_id"], event_no=2)
    after_all = case("voided", ms(23, 9), corrects_event_id=undone["event_id"], event_no=3)
    bus.put(ACCEPTED, DECIDED, BAD, VOIDED)
    for told, out, scores in ((undone, False, {1: 1}), (after_all, True, {})):
        bus.put(told)
        bus.settle()
        noted = bus.rows('SELECT "out", known_at FROM rating_out WHERE service_no = 0')
        assert noted == [(out, told["received_at"])]
        assert bus.scores() == scores


def test_of_a_visit_whose_first_rating_an_appeal_excluded_the_re_rating_counts(bus: Bus) -> None:
    bus.put(BAD)
    bus.settle()
    bus.appeal(excluded=True)
    bus.settle()
    assert (bus.scores(), bus.stands()) == ({}, [("rating.excluded", 1, 1, False)])
    bus.put(AGAIN)
    bus.settle()
    assert (bus.scores(), bus.total()) == ({4: 1}, 1)
    bus.appeal(excluded=False)
    bus.settle()
    assert bus.scores() == {4: 1}  # a re-rating counts before the first
    assert bus.stands()[1:] == [("rating.restored", 1, 2, True)]
    bus.put(rating(ms(20, 9), 4, assess_no=2, operation="D", revision=1))
    bus.settle()
    assert bus.scores() == {1: 1}


TOWN = "430903101"


def test_of_a_rating_that_was_published_anew_for_a_township_each_stands_by_itself(bus: Bus) -> None:
    """The region is part of what a rating is: one that came without it is withdrawn and published again."""
    withdrawn = rating(ms(15, 9), 1, operation="D", revision=1)
    moved = rating(ms(14, 9), 1, region=TOWN, received_at=ms(15, 10))
    bus.put(ACCEPTED, DECIDED, BAD, withdrawn, moved)
    bus.settle()
    assert (bus.scores(), bus.total()) == ({1: 1}, 1)
    bus.put(VOIDED)
    bus.settle()
    assert (bus.scores(), bus.total()) == ({}, 0)
    told = {w["region"]: w["effective"] for w in bus.said(UPLOAD) if w["event_type"] == "rating.excluded"}
    assert told == {"430903": False, TOWN: False}


@pytest.mark.parametrize("about", ["430903", TOWN])
def test_an_appeal_excludes_the_rating_that_it_is_about_and_no_other(bus: Bus, about: str) -> None:
    bus.put(BAD, rating(ms(14, 9), 1, region=TOWN))
    bus.settle()
    bus.appeal(excluded=True, region=about)
    bus.settle()
    told = [(w["region"], w["effective"]) for w in bus.said(UPLOAD) if w["event_type"] == "rating.excluded"]
    assert (bus.scores(), told) == ({1: 1}, [(about, False)])


def test_a_department_that_a_release_knows_no_more_holds_up_nobody(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    bus.put(ACCEPTED, DECIDED, BAD)
    bus.settle()
    left = {code: one for code, one in codesets.departments().items() if code != BAD["department"]}
    monkeypatch.setattr(codesets, "departments", lambda: left)
    bus.put(VOIDED)
    bus.settle()
    assert [(w["event_type"], w["dept_code"]) for w in bus.said(UPLOAD)][-1] == ("rating.excluded", "")


def test_an_appeal_that_is_known_before_its_rating_waits_for_it(bus: Bus) -> None:
    """As while ``govbus rebuild`` reads the log again."""
    bus.appeal(excluded=True)
    assert [applier.aside(bus.engine, bus.tally.speak) for _ in range(2)] == [True, False]  # it waits without haste
    bus.put(BAD, AGAIN)
    bus.settle()
    assert (bus.scores(), bus.stands()) == ({4: 1}, [("rating.excluded", 1, 1, False)])
    assert bus.rows("SELECT * FROM rating_out_news") == []


def test_every_order_with_looks_between_ends_in_the_same_cells(bus: Bus) -> None:
    told = (ACCEPTED, VOIDED, BAD, AGAIN)
    ends = set()
    for order, look in itertools.product(itertools.permutations(told), (1, 3)):
        again = Bus(bus.engine)
        again.put(*order[:look])
        again.settle()
        again.put(*order[look:])
        again.settle()
        assert (again.scores(), again.total()) == ({}, 0), order
        ends.add((tuple(again.cells()), tuple(sorted(again.stands()))))
    assert len(ends) == 1


def test_cells_derived_again_leave_out_at_once_what_was_out(bus: Bus) -> None:
    bus.put(ACCEPTED, VOIDED, BAD, AGAIN)
    bus.settle()
    cells, words = bus.cells(), len(bus.said(UPLOAD))
    with bus.engine.begin() as tx:
        tx.execute(sa.text("TRUNCATE rating_event, rating_cell_merged, rating_cell_change, cursor"))
    bus._next.pop(RATING.name)
    bus.put(BAD, AGAIN)
    bus.settle()
    assert (bus.cells(), len(bus.said(UPLOAD))) == (cells, words)


def test_a_case_that_a_rebuild_finds_void_no_more_has_its_ratings_counted_again(bus: Bus) -> None:
    """What ends it was in the log, and is read again in one batch with what made it void."""
    void = case("decided", ms(13, 10), result_set=OLDER, result_code="3")
    undone = case("voided", ms(14, 10), corrects_event_id=void["event_id"])
    bus.put(ACCEPTED, void, BAD)
    bus.settle()
    assert bus.scores() == {}
    _forget_cases(bus)
    applier.apply_batch(bus.engine, bus.judge, [bus.carried(CASE, made) for made in (ACCEPTED, void, undone)])
    bus.settle()
    assert (bus.scores(), bus.total()) == ({1: 1}, 1)


def test_a_rebuild_that_has_not_come_to_the_void_yet_says_nothing(bus: Bus) -> None:
    bus.put(ACCEPTED, DECIDED, VOIDED, BAD)
    bus.settle()
    stands = bus.stands()
    _forget_cases(bus)
    for made in (ACCEPTED, DECIDED, VOIDED):
        bus.put(made)
        bus.settle()
        assert (bus.scores(), bus.stands()) == ({}, stands)


def test_a_rebuild_that_has_not_come_to_what_ended_the_void_yet_says_nothing(bus: Bus) -> None:
    void = case("decided", ms(13, 10), result_set=OLDER, result_code="3")
    told = ACCEPTED, void, case("voided", ms(14, 10), corrects_event_id=void["event_id"])
    bus.put(*told[:2], BAD)
    bus.settle()
    bus.put(told[2])
    bus.settle()
    stands = bus.stands()
    _forget_cases(bus)
    for made in told:
        bus.put(made)
        bus.settle()
        assert (bus.scores(), bus.stands()) == ({1: 1}, stands)


def _forget_cases(bus: Bus) -> None:
    with bus.engine.begin() as tx:
        tx.execute(sa.text("TRUNCATE case_event, case_state, case_history"))
        tx.execute(sa.text("DELETE FROM cursor WHERE processor = 'judge'"))
    bus._next.pop(CASE.name)


def test_news_and_merging_take_turns(bus: Bus) -> None:
    """Else rollups would stand still as long as there is news."""
    bus.put(ACCEPTED, DECIDED, BAD, VOIDED)
    for _ in range(2):
        with bus.engine.begin() as tx:
            standing.look(tx, ["C-1"])
        applier.aside(bus.engine, bus.tally.speak)
    assert bus.rows("SELECT count(*) FROM rating_cell_change") == [(0,)]


def test_what_does_not_count_is_settled_also_while_ratings_come(bus: Bus) -> None:
    bus.put(ACCEPTED, DECIDED, BAD, VOIDED)
    with bus.engine.begin() as tx:
        standing.look(tx, ["C-1"])
    for _ in range(TURNS + 2):
        applier.aside(bus.engine, bus.tally.tidy)
    assert bus.scores() == {}


def test_a_rating_that_is_being_applied_is_waited_for(bus: Bus) -> None:
    """The first of its partition: even the cursor's row is not there yet."""
    bus.put(ACCEPTED)
    found: list[Any] = []
    looking = threading.Thread(target=lambda: found.append(applier.aside(bus.engine, bus.tally.speak)))
    with bus.engine.begin() as tx:
        applier.lock(tx, settling.TALLY, RATING, [0])
        bus.tally.apply(tx, [bus.carried(RATING, BAD)])
        bus.put(VOIDED)
        looking.start()
        looking.join(1.0)
        assert looking.is_alive()
    looking.join(10.0)
    bus.settle()
    assert (found, bus.scores()) == ([True], {})
