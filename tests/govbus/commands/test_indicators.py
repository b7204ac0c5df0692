"""The indicators on a few cases whose figures are typed by hand, and the recount that finds a falsified one."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from connectors.intake.calendar import calendar_rows
from govbus import recount
from govbus.cli import build
from govbus.commands.indicators import _texts
from schemas import envelope
from schemas.topics import ALERT, CALENDAR, CASE, ITEM, RATING, Topic
from streams.rules import lateness, tally
from streams.rules.indicators import Figure
from streams.store import desk, indicators, outbox, standing, tables
from streams.store.applier import apply_batch, aside, tick
from streams.store.define import DefineProjection
from streams.store.judge import JudgeProjection
from streams.store.projection import Carried, Projection
from streams.store.schedule import ScheduleProjection
from streams.store.tables import alert_inbox, alert_life, handling_event, rating_event
from streams.store.tally import TallyProjection

pytestmark = pytest.mark.stack
A, B, C = "11430903MBDEM011134000117024000", "11430903MBDEM011134000117025000", "11430903MBDEM011134000117026000"
P = "11430903MBDEM011134000117029000"
GRANTED = {"result_set": "province.result-newer", "result_code": "0"}


def ms(text: str) -> int:
    return int(datetime.fromisoformat(f"{text}+08:00").timestamp() * 1000)


def case(case_no: str, event: str, at: str, heard: str = "", **more: Any) -> tuple[Topic, dict[str, Any]]:
    return CASE, {
        "event_type": f"case.{event}", "region": "430903", "department": "HS-ZJJ", "occurred_at": ms(at),
        "occurred_text": "", "entered_at": None, "received_at": ms(heard or at), "case_no": case_no, "event_no": 1,
        "item_code": A, **(GRANTED if event == "decided" else {}), **more,
    }  # fmt: skip


def item(code: str, promise: float, statutory: float | None, depth: str, **more: Any) -> tuple[Topic, dict[str, Any]]:
    return ITEM, {
        "event_type": "item.published", "region": "430903", "department": "HS-ZJJ",
        "occurred_at": ms("2020-01-02 09:00"), "occurred_text": "",
        "entered_at": None, "received_at": ms("2020-01-02 09:00"), "item_code": code,
        "item_version": 1, "name": "施工许可", "item_type_code": "01", "body_level_code": "4", "promise_limit": promise,
        "promise_unit_code": "1", "statutory_limit": statutory, "statutory_unit_code": "1" if statutory else "",
        "depth_set": "govbus.depth", "depth_code": depth, "effective_on": date(2020, 1, 1), **more,
    }  # fmt: skip


ACCEPTED = "2020-09-14 10:00"  # five working days: due Monday 2020-09-21 17:00
TOLD = [
    item(A, 5.0, 10.0, "3"),
    item(B, 10.0, None, "2", body_level_code="5"),
    item(C, 3.0, 30.0, "4", statutory_unit_code="2", item_type_code="02"),
    *(case(f"K{n}", "accepted", ACCEPTED) for n in range(1, 7)),
    case("K1", "decided", "2020-09-17 17:00"),
    case("K2", "decided", "2020-09-22 09:30"),
    case("K3", "decided", "2020-09-18 17:00", heard="2020-09-23 09:00"),
    case("K4", "decided", "2020-09-18 17:00", heard="2020-10-09 09:00", entered_at=ms("2020-10-09 09:00")),
    case("K5", "withdrawn", "2020-09-17 09:00"),
    case("K7", "accepted", "2020-09-15 09:00", department="HS-GAFJ", item_code="11430903MBDEM01706400010000000",),
]  # fmt: skip


def hear(
    engine: sa.Engine, told: list[tuple[Topic, dict[str, Any]]], after: Mapping[Topic, int] | None = None,
    until: str = "2020-10-09 09:00",
) -> None:  # fmt: skip
    """Publish and apply behind the offsets ``after``, then let the timers speak."""
    judge = JudgeProjection()
    processors: dict[Topic, Projection] = {
        CALENDAR: ScheduleProjection(), ITEM: DefineProjection(), CASE: judge, RATING: TallyProjection(),
    }  # fmt: skip
    offsets: dict[Topic, int] = dict(after or {})
    for topic, given_ in told:
        row = outbox.row(topic, given_)
        offsets[topic] = offsets.get(topic, -1) + 1
        with engine.begin() as tx:
            outbox.enqueue(tx, [row])
            tx.execute(sa.text("UPDATE outbox SET sent_at = 1"))
        headers = tuple(envelope.headers(topic, row.record))
        carried = Carried(topic, 0, offsets[topic], str(given_[topic.key]).encode(), row.value, headers)
        apply_batch(engine, processors[topic], [carried])
    while tick(engine, judge, 0, ms(until)):
        pass


@pytest.fixture
def govbus(engine: sa.Engine, database: str, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setenv("GOVBUS_KAFKA", "127.0.0.1:1")
    monkeypatch.setenv("GOVBUS_DATABASE_URL", database)
    monkeypatch.setenv("COLUMNS", "200")
    years = calendar_rows(2019, 2021, occurred_at=0, department="HS-XZSPJ")
    base = {"region": "000000", "received_at": 0, "entered_at": None, "occurred_text": ""}
    hear(engine, [*((CALENDAR, {**row, **base}) for row in years), *TOLD])
    return CliRunner()


def figures(runner: CliRunner, *options: str) -> dict[str, dict[str, Any]]:
    """Key -> indicator -> (numerator, denominator)."""
    shown = runner.invoke(build(), ["indicators", "show", "--json", *options])
    assert shown.exit_code == 0, shown.output
    groups = json.loads(shown.stdout)["groups"]
    return {
        "/".join(g["key"].values()): {
            k: (f.get("numerator"), f.get("denominator")) if "suppressed" not in f else "<5"
            for k, f in g["figures"].items()
        }
        for g in groups
    }


def test_the_figures_of_a_department_are_those_typed_by_hand(govbus: CliRunner) -> None:
    assert figures(govbus)["HS-ZJJ"] == {
        "on_time_rate": (3, 4),  # the withdrawn one is in no denominator (narrative 26)
        "early_rate": (3, 4),
        "overdue_rate": (1, 4),
        "average_minutes": (1260 + 2130 + 1680 + 1680, 4),
        "late_service": (2, None),  # decided a day late, and the one that is still open
        "late_entry": (1, None),
        "backfill": (1, None),
        # two promises and one statutory limit passed, and K1's certificate is not delivered within ten days of
        # the decision; the cards of late entries are revoked
        "red_cards": (4, None),
        "yellow_cards": (5, None),  # two of the promise; the certificates of K1, K3 and K4
        "at_once_rate": (0, 9),
        "rated_rate": (0, 4),
        "actively_rated_rate": (0, 4),
        "speed_up_rate": (5, 10),
        "depth_share": (1, 2),  # the penalty item is not applied for
        "platform_coverage": (3, 3),
    }


def test_every_overdue_case_is_listed_with_its_label_and_its_times(govbus: CliRunner) -> None:
    listed = govbus.invoke(build(), ["indicators", "late", "--json"])
    rows = [json.loads(line) for line in listed.stdout.splitlines()]
    assert [(r["case_no"], r["label"]) for r in rows] == [
        ("K2", "LATE_SERVICE"), ("K3", "LATE_ENTRY"), ("K4", "BACKFILL"), ("K6", "LATE_SERVICE"),
    ]  # fmt: skip
    told = govbus.invoke(build(), ["indicators", "late", "--department", "HS-ZJJ"]).stdout
    assert (
        "录入滞后 区住建局 案件编号 K3 应办结 2020-09-21T17:00 办结 2020-09-18T17:00 收到 2020-09-23T09:00" in told
    )
    assert govbus.invoke(build(), ["indicators", "late", "--department", "HS-GAFJ"]).exit_code == 1


def life(case_no: str, alert_id: str, kind: str, **more: Any) -> dict[str, Any]:
    """A row of ``alert_life``, issued on 2020-09-15 11:00."""
    return {
        "case_no": case_no, "alert_id": alert_id, "region": "430903", "department": "HS-ZJJ", "item_code": A,
        "kind": kind, "colour": "NONE", "rule_id": "", "stage": "", "issued_at": ms("2020-09-15 11:00"),
        "out_at": None, "out_reason": "", "verified": "", "level": "", "closing": "", "next_timer": "", "steps": [],
        "dues": {"rectify": ms("2020-09-30 17:00"), "at_once": ms("2020-09-22 17:00")}, "rectified_at": None,
        "called_back_at": None, "named": None, **more,
    }  # fmt: skip


def test_bad_ratings_count_when_rectified_in_time_and_excluded_ones_do_not(
    govbus: CliRunner, engine: sa.Engine
) -> None:
    rows = [
        life("B1", "1", "BAD_RATING", rectified_at=ms("2020-09-30 17:00"), called_back_at=ms("2020-10-01 10:00"),
             named=True),
        life("B2", "2", "BAD_RATING", rectified_at=ms("2020-09-30 17:01"), named=False),
        life("B3", "3", "BAD_RATING", named=True),
        life("B4", "4", "BAD_RATING", out_at=ms("2020-09-20 09:00"), named=True),
        life("B5", "5", "BAD_RATING", dues={"rectify": ms("2020-12-30 17:00")}),
        life("K1", "6", "BAD_RATING", named=True),  # of a case that was void (DOMAIN 5.8)
    ]
    with engine.begin() as tx:
        tx.execute(sa.text("UPDATE case_state SET status = 'VOID' WHERE case_no = 'K1'"))
        tx.execute(sa.insert(alert_life), rows)
    found = figures(govbus)["HS-ZJJ"]
    assert (found["rectified_rate"], found["called_back_rate"]) == ((2, 4), (1, 4))
    assert found["named_called_back_rate"] == (1, 2)
    assert found["rectified_in_time_rate"] == (1, 3)  # the fifth is not due yet


def test_a_host_whose_clock_is_ahead_makes_nothing_late_and_no_item_in_force_before_its_day(
    govbus: CliRunner, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = datetime.now(UTC).date() + timedelta(days=365)
    hear(engine, [item(A, 7.0, 20.0, "3", effective_on=day, **LATER)], {ITEM: 2})
    speed, due = figures(govbus)["HS-ZJJ"]["speed_up_rate"], ms(f"{day} 17:00")
    with engine.begin() as tx:
        tx.execute(sa.insert(alert_life), [life("B1", "1", "BAD_RATING", dues={"rectify": due})])
        tx.execute(sa.text("UPDATE case_state SET due_at = :due WHERE case_no = 'K6'"), {"due": due})
        tx.execute(sa.text("UPDATE cursor SET watermark = :at WHERE processor = 'judge'"), {"at": due + 24 * HOUR})
    found = figures(govbus)["HS-ZJJ"]
    assert (found["rectified_in_time_rate"], found["late_service"]) == ((0, 0), (1, None))
    assert found["speed_up_rate"] == speed
    assert "K6" not in govbus.invoke(build(), ["indicators", "late"]).stdout
    again = json.loads(govbus.invoke(build(), ["indicators", "recount", "--json"]).stdout)
    assert [d["key"] for d in again["differences"] if d["what"] == "在用事项"] == []
    monkeypatch.setenv("GOVBUS_CLOCK", "watermark")  # the events' own time
    found = figures(govbus)["HS-ZJJ"]
    assert (found["rectified_in_time_rate"], found["late_service"]) == ((0, 1), (2, None))


def test_a_card_taken_back_on_appeal_leaves_the_figures_and_one_corrected_at_once_counts(
    govbus: CliRunner, engine: sa.Engine
) -> None:
    with engine.begin() as tx:
        reds = "SELECT case_no, alert_id::text FROM card WHERE rule_id = 'HS-CARD-R' AND revoked_at IS NULL "
        reds += "ORDER BY case_no"
        (k2, k6) = tx.execute(sa.text(reds)).all()
        rows = [
            life(k2.case_no, k2.alert_id, "CARD", rectified_at=ms("2020-09-22 17:00")),
            life(k6.case_no, k6.alert_id, "CARD", out_at=ms("2020-09-25 10:00")),
        ]
        tx.execute(sa.insert(alert_life), rows)
    found = figures(govbus)["HS-ZJJ"]
    assert (found["red_cards"], found["at_once_rate"]) == ((3, None), (1, 8))


def rating(case_no: str, score: int, at: str, **more: Any) -> tuple[Topic, dict[str, Any]]:
    return RATING, {
        "event_type": "rating.withdrawn" if more.get("operation") == "D" else "rating.given", "region": "430903",
        "department": "HS-ZJJ", "occurred_at": ms(at), "occurred_text": "", "entered_at": None, "received_at": ms(at),
        "case_no": case_no, "service_no": 1, "assess_no": 1, "revision": 0, "operation": "I", "item_code": A,
        "satisfaction_set": "platform.satisfaction", "satisfaction_code": str(score), "is_default": False,
        "channel_set": "platform.channel", "channel_code": "2", **more,
    }  # fmt: skip


RATINGS = [
    case("V1", "accepted", ACCEPTED),
    case("V1", "decided", "2020-09-17 17:00"),
    case("V1", "voided", "2020-09-18 09:00", reason="误录"),
    rating("V1", 5, "2020-10-02 09:00"),
    rating("K1", 5, "2020-10-02 09:00"),
    rating("K1", 4, "2020-09-20 09:00", service_no=2, is_default=True),
    rating("K2", 5, "2020-10-02 09:00", is_default=True),
    rating("K3", 1, "2020-10-02 09:00"),
    rating("K3", 1, "2020-10-02 10:00", operation="D", revision=1),
    rating("K4", 1, "2020-10-02 09:00"),
    rating("K5", 3, "2020-10-02 09:00"),
    rating("K6", 2, "2020-10-02 09:00"),
    rating("K6", 4, "2020-10-03 09:00", assess_no=2),
]  # fmt: skip


@pytest.fixture
def rated(govbus: CliRunner, engine: sa.Engine) -> CliRunner:
    """The cases with ``RATINGS``, of which an appeal excluded K4's."""
    hear(engine, RATINGS, {CASE: 11})
    alert_id = str(bad_alert("K4"))
    acts = [
        {**STORED, "event_id": uuid.uuid4(), "event_type": f"handling.{act}", "department": department, "case_no": "K4",
         "alert_id": alert_id, "body": {}, "occurred_at": ms(at)}
        for act, department, at in (("contacted", "HS-ZJJ", "2020-10-02 10:00"),
                                    ("verified", "HS-ZJJ", "2020-10-02 11:00"),
                                    ("appealed", "HS-ZJJ", "2020-10-05 09:00"),
                                    ("revoked", "HS-XZSPJ", "2020-10-06 09:00"))
    ]  # fmt: skip
    with engine.begin() as tx:
        out = {"out_at": ms("2020-10-06 09:00"), "out_reason": "appeal_upheld"}
        tx.execute(sa.insert(alert_life), [life("K4", alert_id, "BAD_RATING", **out)])
        tx.execute(sa.insert(handling_event), acts)
        tx.execute(sa.text("UPDATE outbox SET sent_at = NULL"))  # the desk has heard of none yet
        standing.look(tx, ["K4"])
    while aside(engine, TallyProjection().speak):
        pass
    return govbus


def test_a_finished_case_is_rated_once_and_by_whom_whatever_the_number_of_its_visits(rated: CliRunner) -> None:
    """K1 by its citizen, K2 by default; K3's rating was withdrawn and K4's malicious; no other case was finished."""
    found = figures(rated)["HS-ZJJ"]
    assert (found["rated_rate"], found["actively_rated_rate"]) == ((2, 4), (1, 4))


def test_the_satisfaction_has_twenty_points_for_each_score_of_the_ratings_that_count(rated: CliRunner) -> None:
    wanted = 100 + 80 + 100 + 60 + 80, 5  # K1 twice, K2, K5 and K6 again; not V1, which never was
    assert figures(rated)["HS-ZJJ"]["satisfaction"] == wanted
    for by, key in (("level", "4"), ("item", A), ("region", "430903")):
        assert figures(rated, "--by", by)[key]["satisfaction"] == wanted


def test_a_case_is_dated_by_its_end_and_a_rating_by_itself(rated: CliRunner) -> None:
    months = figures(rated, "--by", "month")
    assert (months["2020-09"]["rated_rate"], months["2020-09"]["satisfaction"]) == ((2, 4), (80, 1))
    assert ("rated_rate" in months["2020-10"], months["2020-10"]["satisfaction"]) == (False, (340, 4))
    one_day = figures(rated, "--since", "2020-10-03", "--until", "2020-10-03")
    assert one_day["HS-ZJJ"]["satisfaction"] == (80, 1)


def test_the_recount_agrees_on_ratings(rated: CliRunner) -> None:
    found = json.loads(rated.invoke(build(), ["indicators", "recount", "--json"]).stdout)
    assert found["differences"] == []
    assert (found["checked"]["办件评价"], found["checked"]["满意度"]) == (4, 1)
    assert found["left_out"] == {"事项未发布": 1, "差评预警尚未到达监察台": 1}


@pytest.mark.parametrize(
    ("falsified", "named"),
    [
        ('UPDATE rating_out SET "out" = false WHERE case_no = \'K4\'', ("办件评价", "K4", "主动评价", "未评价")),
        ("UPDATE rating_cell_merged SET n = 2 WHERE score = 3", ("满意度", "HS-ZJJ", "(480, 6)", "(420, 5)")),
    ],
)
def test_the_recount_names_a_falsified_rating(
    rated: CliRunner, engine: sa.Engine, falsified: str, named: tuple[str, ...]
) -> None:
    with engine.begin() as tx:
        assert tx.execute(sa.text(falsified)).rowcount
    found = json.loads(rated.invoke(build(), ["indicators", "recount", "--json"]).stdout)
    assert [tuple(d.values()) for d in found["differences"]] == [named]


def test_what_the_tally_has_not_settled_yet_is_left_out_of_the_recount(rated: CliRunner, engine: sa.Engine) -> None:
    hear(engine, [case("K1", "voided", "2020-10-08 09:00", reason="误录")], {CASE: 14})
    with engine.begin() as tx:
        tx.execute(sa.text("UPDATE outbox SET sent_at = NULL"))
    found = json.loads(rated.invoke(build(), ["indicators", "recount", "--json"]).stdout)
    assert (found["differences"], found["left_out"]["评价是否计入尚未结算"]) == ([], 1)
    assert "满意度" not in found["checked"]


def test_the_satisfaction_is_no_percentage_and_many_points_are_told_to_the_last() -> None:
    assert _texts("satisfaction", Figure(1_234_560, 14_000), None) == ("88.2", "1234560 / 14000")
    assert _texts("rated_rate", Figure(2, 4), None) == ("50.0%", "2 / 4")


def test_a_case_of_an_item_that_nobody_published_shows_in_the_coverage(govbus: CliRunner) -> None:
    assert figures(govbus)["HS-GAFJ"] == {"platform_coverage": (0, 1)}


STRANGE = "11430903MBDEM01706400010000000"
GOING = {"event_type": "item.withdrawn"}
LATER = {"item_version": 2, "promise_unit_code": "2", "statutory_unit_code": "2", "body_level_code": "5"}


def equal(runner: CliRunner) -> bool:
    return bool(json.loads(runner.invoke(build(), ["indicators", "recount", "--json"]).stdout)["equal"])


def test_a_version_that_is_not_in_force_yet_changes_no_figure(govbus: CliRunner, engine: sa.Engine) -> None:
    before, levels = figures(govbus), figures(govbus, "--by", "level")
    hear(engine, [item(A, 7.0, 20.0, "3", effective_on=date(2031, 1, 1), **LATER)], {ITEM: 2})
    assert (figures(govbus), figures(govbus, "--by", "level")) == (before, levels)


def test_a_case_counts_by_the_version_in_force_when_it_was_accepted(govbus: CliRunner, engine: sa.Engine) -> None:
    told = [item(A, 7.0, 20.0, "3", effective_on=date(2020, 9, 15), **LATER),
            case("L1", "accepted", "2020-09-15 09:00"), case("L1", "decided", "2020-09-16 09:00")]  # fmt: skip
    cards = figures(govbus, "--by", "level")["4"]["red_cards"]
    hear(engine, told, {ITEM: 2, CASE: 11})
    levels = figures(govbus, "--by", "level")
    assert (levels["4"]["on_time_rate"], levels["5"]["on_time_rate"]) == ((3, 4), (1, 1))
    assert (levels["4"]["average_minutes"][1], levels["5"]["average_minutes"]) == (4, (0, 0))  # natural days
    assert levels["4"]["red_cards"] == cards
    assert equal(govbus)


def test_a_case_of_a_handling_item_counts_where_its_item_does(govbus: CliRunner, engine: sa.Engine) -> None:
    told = [case("L1", "accepted", ACCEPTED, item_code=A + "01"), case("L2", "submitted", ACCEPTED, item_code=A + "01"),
            case("L1", "decided", "2020-09-18 17:00", item_code=A + "01")]  # fmt: skip
    coverage = figures(govbus)["HS-ZJJ"]["platform_coverage"]
    hear(engine, told, {ITEM: 2, CASE: 11})
    assert figures(govbus)["HS-ZJJ"]["platform_coverage"] == coverage
    assert figures(govbus, "--by", "level")["4"]["on_time_rate"] == (4, 5)
    assert equal(govbus)
    hear(engine, [item(A + "01", 5.0, 10.0, "3", effective_on=date(2020, 12, 1))], {ITEM: 2, CASE: 11})
    assert figures(govbus, "--by", "level")["4"]["on_time_rate"] == (4, 5), "it was not in force yet"
    assert equal(govbus)


def test_what_a_calendar_that_is_not_published_yet_may_still_turn_is_in_no_figure(
    govbus: CliRunner, engine: sa.Engine
) -> None:
    """2022 is not published: K8 ended on time before it begins, K9 on time and K10 late in it, K11 has not ended."""
    told = [case(f"K{n}", "accepted", "2021-12-29 10:00", department="HS-JTJ") for n in range(8, 12)]
    ends = {8: "2021-12-31 16:00", 9: "2022-01-04 10:00", 10: "2022-03-01 10:00"}
    told += [case(f"K{n}", "decided", at, department="HS-JTJ") for n, at in ends.items()]
    told.append(case("K12", "accepted", "2022-06-01 10:00", department="HS-ZJJ"))
    hear(engine, told, {CASE: 11})
    mine = figures(govbus)["HS-JTJ"]
    assert (mine["on_time_rate"], mine["overdue_rate"], mine["late_service"]) == ((1, 1), (0, 1), (0, None))
    mine_only = ["indicators", "show", "--department", "HS-JTJ"]
    assert "3 件因日历未公布未计" in govbus.invoke(build(), mine_only).stdout
    assert "<5 件因日历未公布未计" in govbus.invoke(build(), [*mine_only, "--public"]).stdout
    assert json.loads(govbus.invoke(build(), [*mine_only, "--json"]).stdout)["calendar_excludes"] == 3
    assert govbus.invoke(build(), ["indicators", "late", "--department", "HS-JTJ"]).exit_code == 1
    year = calendar_rows(2022, 2022, occurred_at=0, department="HS-XZSPJ")
    base = {"region": "000000", "received_at": ms("2022-06-02 10:00"), "entered_at": None, "occurred_text": ""}
    hear(engine, [(CALENDAR, {**row, **base}) for row in year], {CALENDAR: 2}, "2022-06-02 10:00")
    mine = figures(govbus)["HS-JTJ"]
    assert (mine["on_time_rate"], mine["late_service"]) == ((2, 3), (2, None))
    assert "因日历未公布未计" not in govbus.invoke(build(), mine_only).stdout


def test_what_is_due_in_a_year_that_is_not_published_yet_is_neither_missed_nor_kept(
    govbus: CliRunner, engine: sa.Engine
) -> None:
    """A bad rating of December, whose rectification is due in January, and a card of New Year's Eve."""
    word = {"alert_id": bad_alert("R1"), "alert_seq": 1, "action": "ISSUED", "region": "430903", "department": "HS-JTJ",
            "case_no": "R1", "kind": "BAD_RATING", "colour": "NONE", "summary": "", "seen_at": 0,
            "issued_at": ms("2021-12-20 11:00")}  # fmt: skip
    late = [case("K8", "accepted", "2021-12-24 10:00", department="HS-JTJ"),
            case("K9", "accepted", "2022-06-01 10:00", department="HS-JTJ")]  # fmt: skip
    with engine.begin() as tx:
        tx.execute(sa.insert(alert_inbox), word)
        desk.mark(tx, desk.CASE, {"R1": 0, "K8": 0})
    hear(engine, late, {CASE: 11}, "2022-06-01 10:00")
    with engine.begin() as tx:  # as the desk hears of them; K8's yellow card is of 12-30 17:00, the red one of 12-31
        tx.execute(sa.text(
            "INSERT INTO alert_inbox (alert_id, alert_seq, action, region, department, case_no, kind, colour, summary, "
            "seen_at, issued_at) SELECT alert_id, 1, 'ISSUED', region, department, case_no, kind, colour, '', 0, "
            "issued_at FROM card WHERE case_no = 'K8'"
        ))  # fmt: skip
    wanted = {}
    for published in (False, True):
        if published:
            year = calendar_rows(2022, 2022, occurred_at=0, department="HS-XZSPJ")
            base = {"region": "000000", "received_at": ms("2022-06-02 10:00"), "entered_at": None, "occurred_text": ""}
            hear(engine, [(CALENDAR, {**row, **base}) for row in year], {CALENDAR: 2}, "2020-10-09 09:00")
        with engine.begin() as tx:
            desk.DeskReader().tick(tx, 0, ms("2022-06-02 10:00"))
        mine = figures(govbus)["HS-JTJ"]
        wanted[published] = mine["rectified_rate"], mine.get("rectified_in_time_rate"), mine["at_once_rate"]
    assert wanted == {False: ((0, 1), None, (0, 1)), True: ((0, 1), (0, 1), (0, 2))}


@pytest.mark.parametrize(
    ("gone", "coverage"),
    [
        (date(2020, 10, 5), (2, 2)),  # all its cases were accepted while it was in force
        (date(2020, 9, 14), (2, 3)),
    ],
)
def test_a_withdrawn_item_is_missing_only_if_cases_were_accepted_without_it(
    govbus: CliRunner, engine: sa.Engine, gone: date, coverage: tuple[int, int]
) -> None:
    hear(engine, [item(A, 5.0, 10.0, "3", cancelled_on=gone, **GOING)], {ITEM: 2, CASE: 11})
    assert figures(govbus)["HS-ZJJ"]["platform_coverage"] == coverage
    assert equal(govbus)


def test_each_department_that_handles_an_unknown_item_shows_in_the_coverage(
    govbus: CliRunner, engine: sa.Engine
) -> None:
    told = [case(f"K{n}", "accepted", "2020-09-15 09:00", department="HS-SLJ", item_code=STRANGE) for n in (8, 9)]
    hear(engine, told, {CASE: 11})
    found = figures(govbus)
    assert found["HS-GAFJ"]["platform_coverage"] == found["HS-SLJ"]["platform_coverage"] == (0, 1)
    assert equal(govbus)


def test_a_void_case_of_an_unknown_item_shows_nowhere(govbus: CliRunner, engine: sa.Engine) -> None:
    told = case("K7", "voided", "2020-09-16 09:00", department="HS-GAFJ", item_code=STRANGE, reason="误录")
    hear(engine, [told], {CASE: 11})
    assert "HS-GAFJ" not in figures(govbus)
    assert equal(govbus)


def test_figures_come_by_level_item_and_period_and_for_some_days_only(govbus: CliRunner) -> None:
    assert figures(govbus, "--by", "level")["5"]["depth_share"] == (0, 1)
    months = figures(govbus, "--by", "month,item")
    assert months[f"2020-09/{A}"]["on_time_rate"] == (3, 4)
    one_day = figures(govbus, "--by", "department", "--since", "2020-09-22", "--until", "2020-09-22")
    assert one_day["HS-ZJJ"]["on_time_rate"] == (0, 1)


def test_what_rests_on_fewer_than_five_is_not_for_the_public(govbus: CliRunner) -> None:
    public = figures(govbus, "--public")["HS-ZJJ"]
    assert (public["on_time_rate"], public["red_cards"], public["at_once_rate"]) == ("<5", "<5", (0, 9))


def test_a_report_says_what_it_rests_on_and_the_same_question_has_the_same_number(govbus: CliRunner) -> None:
    first, again = (json.loads(govbus.invoke(build(), ["indicators", "show", "--json"]).stdout) for _ in range(2))
    assert first == again
    assert first["as_of"] == "2020-10-09T09:00:00.000+08:00"
    assert first["offsets"]["service.case.v1"] == {"0": [0, 12]}
    assert first["definitions"]["speed_up_rate"]["formula"].startswith("Σ(法定时限−承诺时限)")
    assert [(e["item_code"], e["why"]) for e in first["speed_up_excludes"]] == [
        (B, "无法定时限"),
        (C, "计时单位不可比"),
    ]
    other = json.loads(govbus.invoke(build(), ["indicators", "show", "--json", "--by", "level"]).stdout)
    assert other["query_id"] != first["query_id"]


def test_a_report_is_of_the_newest_card_where_nothing_was_heard_since(govbus: CliRunner, engine: sa.Engine) -> None:
    hear(engine, [case("K8", "accepted", "2020-10-09 10:00", department="HS-JTJ")], {CASE: 11}, "2020-10-15 17:01")
    told = json.loads(govbus.invoke(build(), ["indicators", "show", "--json"]).stdout)
    assert told["as_of"] == "2020-10-15T17:01:00.000+08:00"
    mine = figures(govbus)["HS-JTJ"]
    assert (mine["red_cards"], mine["late_service"]) == ((1, None), (1, None))
    assert govbus.invoke(build(), ["indicators", "late", "--department", "HS-JTJ"]).exit_code == 0
    assert equal(govbus)


def test_the_recount_agrees_and_says_what_it_could_not_judge(govbus: CliRunner) -> None:
    counted = govbus.invoke(build(), ["indicators", "recount", "--json"])
    found = json.loads(counted.stdout)
    assert (counted.exit_code, found["differences"]) == (0, [])
    assert found["checked"] == {"办结与按时": 6, "红黄牌": 14, "红黄牌数": 2, "在用事项": 3,
                                "平台外事项": 1}  # fmt: skip
    assert found["left_out"] == {"事项未发布": 1}


PROJECT = [
    item(P, 30.0, None, "3", limit_rule="R6-5"),
    case("P1", "accepted", "2020-05-18 10:00", heard="2020-09-24 10:00", item_code=P,
         project_code="2020-430903-48-01-000001"),
]  # fmt: skip


def test_the_cards_of_a_project_count_for_the_department_that_leads_it(govbus: CliRunner, engine: sa.Engine) -> None:
    hear(engine, PROJECT, {CASE: 11, ITEM: 2})
    with engine.connect() as tx:
        cards = "SELECT colour FROM card WHERE case_no = '{}' AND revoked_at IS NULL"
        own, whole = (tx.execute(sa.text(cards.format(key))).scalars().all()
                      for key in ("P1", "project/430903/2020-430903-48-01-000001"))  # fmt: skip
    assert whole == ["RED"]
    found = figures(govbus)["HS-ZJJ"]
    assert found["red_cards"] == (4 + own.count("RED") + 1, None)
    counted = json.loads(govbus.invoke(build(), ["indicators", "recount", "--json"]).stdout)
    assert counted["differences"] == []


def test_the_recount_counts_the_cards_of_projects_too(
    govbus: CliRunner, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    hear(engine, PROJECT, {CASE: 11, ITEM: 2})
    of_cases = indicators._CARDS.replace("LEFT JOIN case_state", "JOIN case_state")
    monkeypatch.setattr(indicators, "_CARDS", of_cases)
    found = json.loads(govbus.invoke(build(), ["indicators", "recount", "--json"]).stdout)
    assert [(d["what"], d["key"]) for d in found["differences"]] == [("红黄牌数", "HS-ZJJ 红")]


def event_id(told: tuple[Topic, dict[str, Any]]) -> str:
    return str(envelope.event_id(*told))


def special(case_no: str, event: str, at: str, **more: Any) -> tuple[Topic, dict[str, Any]]:
    return case(case_no, f"special_{event}", at, special_kind_code="TEST", **more)


LATE = case("C1", "decided", "2020-09-22 09:30")
WRONG = case("C2", "decided", "2020-09-18 17:00")
BEGUN = special("C3", "started", "2020-09-16 09:00")
ANNULLED = special("C8", "started", "2020-09-16 09:00")
CHANGED = [
    *(case(f"C{n}", "accepted", ACCEPTED) for n in range(1, 9)),
    LATE,
    case("C1", "corrected", "2020-09-23 09:00", corrects_event_id=event_id(LATE), corrected_at=ms("2020-09-21 09:30")),
    WRONG,
    case("C2", "voided", "2020-09-19 09:00", corrects_event_id=event_id(WRONG)),
    case("C2", "decided", "2020-09-23 09:00", event_no=2),
    BEGUN,  # a start is told by its event, an end by its number
    special("C3", "ended", "2020-09-18 09:00"),
    case("C3", "corrected", "2020-09-24 09:00", corrects_event_id=event_id(BEGUN), corrected_at=ms("2020-09-17 09:00")),
    case("C3", "decided", "2020-09-23 09:00"),
    special("C4", "started", "2020-09-16 09:00", special_started_at=ms("2020-09-15 09:00"),
            special_ended_at=ms("2020-09-17 09:00")),
    case("C4", "decided", "2020-09-23 09:00"),
    case("C5", "special_started", "2020-09-15 09:00", special_kind_code="SITE",
         special_started_at=ms("2020-09-15 09:00")),
    case("C5", "decided", "2020-09-23 09:00"),
    special("C6", "ended", "2020-09-18 09:00", event_no=7),
    special("C7", "ended", "2020-09-18 09:00", special_started_at=ms("2020-09-15 09:00"),
            special_ended_at=ms("2020-09-16 09:00")),
    case("C7", "decided", "2020-09-22 10:00"),
    ANNULLED,  # the end has no start any more
    special("C8", "ended", "2020-09-18 09:00"),
    case("C8", "voided", "2020-09-19 09:00", corrects_event_id=event_id(ANNULLED)),
]  # fmt: skip


def test_the_recount_reads_corrections_and_special_procedures_as_the_domain_does(
    govbus: CliRunner, engine: sa.Engine
) -> None:
    hear(engine, CHANGED, {CASE: 11})
    found = json.loads(govbus.invoke(build(), ["indicators", "recount", "--json"]).stdout)
    assert found["differences"] == []
    assert found["checked"]["办结与按时"] == 6 + 8
    assert found["left_out"] == {"事项未发布": 1}
    with engine.connect() as tx:
        told = tx.execute(sa.text("SELECT case_no, on_time FROM case_state WHERE case_no LIKE 'C%' ORDER BY 1")).all()
    assert [on_time for _, on_time in told] == [True, False, False, True, False, None, True, None]


N, H = "11430903MBDEM011134000117027000", "11430903MBDEM011134000117028000"
OLDER, NEWER = {"result_set": "province.result-older"}, {"result_set": "province.result-newer"}
ORPHANS = "2020-09-16 09:00"
KINDS = [
    item(N, 7.0, None, "3", promise_unit_code="2"),  # due Monday 2020-09-21 17:00
    item(H, 3.0, None, "3", promise_unit_code="3"),  # due Monday 2020-09-14 14:00
    item(P, 9.0, None, "3", limit_rule="R5-G"),  # five days by policy
    *(case(f"D{n}", "accepted", ACCEPTED, item_code=code) for n, code in enumerate((N, N, H, H, P, P))),
    case("D0", "decided", "2020-09-21 17:00:59"),
    case("D1", "decided", "2020-09-22 09:00"),
    case("D2", "decided", "2020-09-14 14:00"),
    case("D3", "decided", "2020-09-14 14:01"),
    case("D4", "decided", "2020-09-21 17:00"),
    case("D5", "decided", "2020-09-22 09:00"),
    *(case(f"E{n}", "accepted", ACCEPTED) for n in range(6)),
    case("E0", "decided", "2020-09-22 09:30", **NEWER, result_code="1", reason="不符合条件"),
    case("E1", "decided", "2020-09-17 09:30", **NEWER, result_code="5", reason="申请人放弃"),
    case("E2", "decided", "2020-09-17 09:30", **OLDER, result_code="2", reason="作废"),
    case("E2", "delivered", "2020-09-18 09:30"),
    case("E3", "decided", "2020-09-22 09:30", **OLDER, result_code="4"),
    special("E4", "started", ORPHANS, event_no=1),
    special("E4", "ended", "2020-09-18 09:00", event_no=2),
    special("E5", "started", "2020-09-16 09:00:40"),
    special("E5", "ended", "2020-09-16 10:00:20"),
    case("E5", "decided", "2020-09-22 10:00"),
]  # fmt: skip


def test_the_recount_reads_units_policy_and_results_of_all_kinds(govbus: CliRunner, engine: sa.Engine) -> None:
    hear(engine, KINDS, {CASE: 11, ITEM: 2})
    found = json.loads(govbus.invoke(build(), ["indicators", "recount", "--json"]).stdout)
    assert found["differences"] == []
    assert found["checked"]["办结与按时"] == 6 + 11
    assert found["left_out"] == {"事项未发布": 1, "特别程序的开始与结束不能一一对应": 1}
    with engine.connect() as tx:
        told = tx.execute(sa.text("SELECT on_time FROM case_state WHERE case_no ~ '^[DE]' ORDER BY case_no")).scalars()
        assert list(told) == [True, False] * 3 + [False, True, None, False, None, True]


SILENT = case("S1", "submitted", "2020-09-28 10:00")  # nobody answers by Monday 2020-10-12 17:00, nor hears of more


@pytest.mark.parametrize(("until", "silence"), [("2020-10-12 17:01", True), ("2020-10-12 17:00", False)])
def test_the_recount_goes_as_far_as_the_timers_whatever_came_last(
    govbus: CliRunner, engine: sa.Engine, until: str, silence: bool
) -> None:
    hear(engine, [SILENT], {CASE: 11}, until)
    found = json.loads(govbus.invoke(build(), ["indicators", "recount", "--json"]).stdout)
    assert (found["differences"], found["checked"]["办结与按时"]) == ([], 7)
    with engine.connect() as tx:
        accepted = tx.execute(sa.text("SELECT accepted_at FROM case_state WHERE case_no = 'S1'")).scalar_one()
    assert (accepted is not None) == silence


@pytest.mark.usefixtures("govbus")
def test_the_recount_finds_a_case_that_silence_accepted_before_its_time(engine: sa.Engine) -> None:
    hear(engine, [SILENT], {CASE: 11}, "2020-10-12 17:01")
    with engine.connect() as tx:
        found = recount.recount(tx, timers="watermark")  # by the events' own time it is 2020-10-09
    assert [(d.what, d.key) for d in found.differences] == [("办结与按时", "S1")]


@pytest.mark.parametrize("hours", [{"days": []}, {"days": [{"day": date(2020, 9, 15), "working": False, "name": ""}]}])
def test_the_recount_goes_by_the_districts_own_calendar(
    govbus: CliRunner, engine: sa.Engine, hours: dict[str, Any]
) -> None:
    (row,) = calendar_rows(2020, 2020, occurred_at=0, department="HS-XZSPJ")
    summer = {"from_on": date(2020, 6, 1), "to_on": None, "sessions": [{"opens": 480, "closes": 720}]}
    own = {**row, "region": "430903", "received_at": 1, "entered_at": None, "occurred_text": "", "hours": [summer]}
    hear(engine, [(CALENDAR, {**own, **hours})], {CALENDAR: 2, CASE: 11})
    found = json.loads(govbus.invoke(build(), ["indicators", "recount", "--json"]).stdout)
    assert (found["checked"]["办结与按时"], found["differences"]) == (6, [])
    with engine.connect() as tx:
        due = tx.execute(sa.text("SELECT due_at FROM case_state WHERE case_no = 'K1'")).scalar_one()
    assert due == ms("2020-09-22 12:00" if hours["days"] else "2020-09-21 12:00")


@pytest.mark.parametrize(
    ("falsified", "what", "key"),
    [
        ("UPDATE case_state SET on_time = true WHERE case_no = 'K2'", "办结与按时", "K2"),
        ("UPDATE case_state SET due_at = due_at + 60000 WHERE case_no = 'K6'", "办结与按时", "K6"),
        ("DELETE FROM card WHERE case_no = 'K6' AND colour = 'RED'", "红黄牌", ""),
    ],
)
def test_the_recount_names_a_falsified_row(
    govbus: CliRunner, engine: sa.Engine, falsified: str, what: str, key: str
) -> None:
    with engine.begin() as tx:
        assert tx.execute(sa.text(falsified)).rowcount == 1
    counted = govbus.invoke(build(), ["indicators", "recount", "--json"])
    difference, *of_number = json.loads(counted.stdout)["differences"]
    assert (counted.exit_code, difference["what"], key or difference["key"]) == (1, what, difference["key"])
    assert [d["what"] for d in of_number] == (["红黄牌数"] if what == "红黄牌" else [])


STORED: dict[str, Any] = {
    "partition": 0, "offset": 0, "digest": uuid.UUID(int=0), "region": "430903", "department": "HS-ZJJ",
    "entered_at": None, "received_at": ms("2020-09-15 11:00"), "occurred_at": ms("2020-09-15 11:00"),
}  # fmt: skip
BAD: dict[str, Any] = {
    **STORED, "event_type": "rating.given", "service_no": 1, "assess_no": 1, "revision": 0, "operation": "I",
    "item_code": A, "channel": "PC", "score": 1, "is_default": False,
}  # fmt: skip


def bad_alert(case_no: str) -> uuid.UUID:
    """Id of the alert about ``BAD`` of this case."""
    return envelope.derived_id("BAD_RATING", BAD["region"], case_no, 1, BAD["department"], 1)


def test_the_recount_reads_a_bad_ratings_loop_from_its_own_acts(govbus: CliRunner, engine: sa.Engine) -> None:
    """One rectified rating, one amended, one that the desk does not know to be rectified, one with vain acts."""
    event = STORED
    events = [uuid.UUID(int=n) for n in range(1, 7)]
    ids = [bad_alert(f"R{n}") for n in range(5)]
    ratings = [{**BAD, "case_no": f"R{n}", "event_id": events[n]} for n in (0, 1, 2, 4)]
    ratings.append({**BAD, "case_no": "R1", "event_id": events[3], "revision": 1, "score": 5})
    still = {"revision": 1, "score": 2, "occurred_at": event["occurred_at"] + 5 * HOUR}  # its acts were before it
    ratings.append({**BAD, "case_no": "R0", "event_id": events[5], **still})
    words = [
        {"alert_id": i, "alert_seq": 1, "action": "ISSUED", "region": "430903", "department": "HS-ZJJ",
         "case_no": f"R{n}", "kind": "BAD_RATING", "colour": "NONE", "summary": "", "issued_at": event["occurred_at"],
         "seen_at": 0}
        for n, i in enumerate(ids) if n != 3
    ]  # fmt: skip
    acts = [
        {**event, "event_type": f"handling.{act}", "event_id": uuid.uuid4(), "case_no": f"R{n}",
         "alert_id": str(ids[n]), "body": {}, "occurred_at": event["occurred_at"] + hour * HOUR}
        for n in (0, 2)
        for act, hour in (("contacted", 1), ("verified", 2), ("rectified", 3))
    ]  # fmt: skip
    vain = {**acts[0], "case_no": "R4", "alert_id": str(ids[4])}  # of others, or before the rating: not rectified
    acts += [
        {**vain, "event_type": f"handling.{act}", "event_id": uuid.uuid4(), "department": department,
         "occurred_at": event["occurred_at"] + hour * HOUR}
        for act, department, hour in (("contacted", "HS-JTJ", 1), ("verified", "HS-ZJJ", 2), ("rectified", "HS-ZJJ", 3),
                                      ("contacted", "HS-ZJJ", -1), ("upheld", "HS-ZJJ", 1))
    ]  # fmt: skip
    with engine.begin() as tx:
        tx.execute(sa.insert(rating_event), ratings)
        tx.execute(sa.insert(alert_inbox), words)
        tx.execute(sa.insert(handling_event), acts)
        known = life("R0", str(ids[0]), "BAD_RATING", rectified_at=event["occurred_at"] + 3 * HOUR)
        unknown = [life(f"R{n}", str(ids[n]), "BAD_RATING") for n in (2, 4)]
        tx.execute(sa.insert(alert_life), [known, *unknown])
    found = json.loads(govbus.invoke(build(), ["indicators", "recount", "--json"]).stdout)
    assert found["checked"]["差评"] == 3
    assert [d for d in found["differences"] if d["what"] == "差评"] == [  # these ratings are in no cell
        {"what": "差评", "key": str(ids[2]), "derived": "False", "recounted": "True"}
    ]


CONTACTED, VERIFIED = ("contacted", "2020-09-15 12:00"), ("verified", "2020-09-15 13:00")
LOOPS = {
    "rectified under appeal": [
        CONTACTED, VERIFIED, ("appealed", "2020-09-16 09:00"), ("rectified", "2020-09-16 10:00"),
        ("upheld", "2020-09-17 09:00"),
    ],
    "appealed too late": [CONTACTED, VERIFIED, ("appealed", "2020-09-18 17:01"), ("revoked", "2020-09-21 09:00")],
    "verified too early": [
        ("verified", "2020-09-15 11:30"), CONTACTED, VERIFIED, ("rectified", "2020-09-16 10:00"),
    ],
    "not verified": [CONTACTED, ("appealed", "2020-09-18 17:00"), ("revoked", "2020-09-21 09:00")],
    "appealed": [CONTACTED, VERIFIED, ("appealed", "2020-09-18 17:00"), ("revoked", "2020-09-21 09:00")],
}  # fmt: skip
"""Of a rating that was given on 2020-09-15 at 11:00."""


def test_the_recount_walks_a_bad_ratings_loop_from_stage_to_stage(govbus: CliRunner, engine: sa.Engine) -> None:
    ids = {case_no: bad_alert(case_no) for case_no in LOOPS}
    acts = [
        {**STORED, "event_id": uuid.uuid4(), "event_type": f"handling.{act}", "case_no": case_no, "body": {},
         "department": "HS-XZSPJ" if act in ("upheld", "revoked") else "HS-ZJJ", "alert_id": str(ids[case_no]),
         "occurred_at": ms(at)}
        for case_no, told in LOOPS.items() for act, at in told
    ]  # fmt: skip
    words = [
        {"alert_id": i, "alert_seq": 1, "action": "ISSUED", "region": "430903", "department": "HS-ZJJ",
         "case_no": case_no, "kind": "BAD_RATING", "colour": "NONE", "summary": "", "issued_at": BAD["received_at"],
         "seen_at": 0}
        for case_no, i in ids.items()
    ]  # fmt: skip
    known = {"verified too early": {"rectified_at": ms("2020-09-16 10:00")}, "appealed": {"out_at": 1}}
    with engine.begin() as tx:
        tx.execute(sa.insert(rating_event), [{**BAD, "case_no": c, "event_id": i} for c, i in ids.items()])
        tx.execute(sa.insert(alert_inbox), words)
        tx.execute(sa.insert(handling_event), acts)
        for case_no, i in ids.items():
            tx.execute(sa.insert(alert_life), life(case_no, str(i), "BAD_RATING", **known.get(case_no, {})))
    assert bad_differences(govbus) == []


def test_a_bad_rating_counts_in_the_month_in_which_it_was_given_and_the_recount_says_so(
    govbus: CliRunner, engine: sa.Engine
) -> None:
    """One heard of a fortnight later, and one of which it is not known when it was given."""
    given, ids = ms("2020-08-31 23:30"), [bad_alert(f"R{n}") for n in range(2)]
    with engine.begin() as tx:
        tx.execute(sa.insert(rating_event), [
            {**BAD, "case_no": f"R{n}", "event_id": i, "occurred_at": at}
            for n, (i, at) in enumerate(zip(ids, (given, BAD["occurred_at"]), strict=True))
        ])  # fmt: skip
        tx.execute(sa.insert(alert_inbox), [
            {"alert_id": i, "alert_seq": 1, "action": "ISSUED", "region": "430903", "department": "HS-ZJJ",
             "case_no": f"R{n}", "kind": "BAD_RATING", "colour": "NONE", "summary": "",
             "issued_at": BAD["received_at"], "seen_at": 0, "given_at": (given, None)[n]}
            for n, i in enumerate(ids)
        ])  # fmt: skip
        tx.execute(sa.insert(alert_life), [life(f"R{n}", str(i), "BAD_RATING") for n, i in enumerate(ids)])
    months = figures(govbus, "--by", "month")
    assert [months[m]["rectified_rate"] for m in ("2020-08", "2020-09")] == [(0, 1), (0, 1)]
    due = [months[m].get("rectified_in_time_rate") for m in ("2020-08", "2020-09")]
    assert due == [None, (0, 2)]  # by its deadline, which runs from the receipt
    told = bad_differences(govbus)
    with engine.begin() as tx:
        tx.execute(sa.text("UPDATE alert_inbox SET given_at = issued_at"))
    late = {"what": "差评日期", "key": str(ids[0]), "derived": "2020-09-15", "recounted": "2020-08-31"}
    assert (told, bad_differences(govbus)) == ([], [late])


def bad_differences(runner: CliRunner) -> list[dict[str, str]]:
    """What the recount says of bad ratings; those that a test writes are in no cell."""
    found = json.loads(runner.invoke(build(), ["indicators", "recount", "--json"]).stdout)
    return [d for d in found["differences"] if d["what"].startswith("差评")]


def test_the_recount_names_a_bad_rating_of_which_the_desk_never_heard(govbus: CliRunner, engine: sa.Engine) -> None:
    """One of which no alert was published, one whose alert was lost behind the desk's cursor, one on its way to it."""
    unsaid, lost, coming = events = [uuid.UUID(int=n) for n in range(1, 4)]
    ids = {e: str(bad_alert(f"R{e}")) for e in events}
    said = {"region": "430903", "department": "HS-ZJJ", "occurred_at": 0, "received_at": 0, "topic": ALERT.name,
            "digest": uuid.UUID(int=0), "content_digest": uuid.UUID(int=0), "headers": {}, "sent_at": 1,
            "sent_partition": 0}  # fmt: skip
    word = outbox.row(ALERT, {
        **{k: said[k] for k in ("region", "department", "occurred_at", "received_at")}, "event_type": "alert.issued",
        "occurred_text": "", "entered_at": None, "alert_id": "A", "alert_seq": 1, "kind_code": "BAD_RATING",
        "colour_code": "NONE", "rule_id": "", "rule_version": "", "case_no": "", "summary": "", "issued_at": 0,
    }).value  # fmt: skip
    with engine.begin() as tx:
        tx.execute(sa.insert(rating_event), [{**BAD, "case_no": f"R{e}", "event_id": e} for e in events])
        tx.execute(sa.insert(tables.outbox), [
            {**said, "event_id": uuid.uuid4(), "key": ids[e], "value": word, "sent_offset": offset}
            for e, offset in ((lost, 6), (coming, 7))
        ])  # fmt: skip
        at = {"processor": "alerts", "topic": ALERT.name, "partition": 0, "next_offset": 7}
        tx.execute(sa.insert(tables.cursor), at)
    found = json.loads(govbus.invoke(build(), ["indicators", "recount", "--json"]).stdout)
    assert found["left_out"]["差评预警尚未到达监察台"] == 1
    told = [tuple(d.values()) for d in found["differences"] if d["what"] == "差评"]  # these ratings are in no cell
    assert sorted(told) == sorted(
        ("差评", ids[e], "None", "False") for e in (unsaid, lost)
    )


# --- which case is rated: the query, the recount and the rule say the same ---

words = st.tuples(
    st.sampled_from(["R1", "R2"]), st.integers(1, 2), st.integers(1, 2), st.integers(0, 2), st.sampled_from("IUD"),
    st.booleans(), st.sampled_from(["HS-ZJJ", "HS-GAFJ"]), st.integers(0, 1),
)  # fmt: skip


def test_the_query_and_the_recount_find_the_rated_cases_that_the_rule_finds(engine: sa.Engine) -> None:
    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(words, max_size=12), st.sets(st.tuples(*[st.integers(1, 2)] * 2)))
    def check(drawn: list[tuple[Any, ...]], gone: set[tuple[int, int]]) -> None:
        names = ("case_no", "service_no", "assess_no", "revision", "operation", "is_default", "department",
                 "occurred_at")  # fmt: skip
        rows = [{**BAD, **dict(zip(names, one, strict=True)), "event_id": uuid.uuid4()} for one in drawn]
        out = {("430903", "HS-ZJJ", *one): tally.Standing(True) for one in gone}
        told = [tally.Rating(**{name: r[name] for name in tally.Rating.__slots__}) for r in rows]
        wanted: dict[str, bool] = {}
        for case_no, visit in {(r.case_no, r.service_no) for r in told}:
            one = tally.effective([r for r in told if (r.case_no, r.service_no) == (case_no, visit)], out)
            if one is not None:
                wanted[case_no] = wanted.get(case_no, False) or not one.is_default
        with engine.begin() as tx:
            tx.execute(sa.text("TRUNCATE rating_event, rating_out, case_state"))
            if rows:
                tx.execute(sa.insert(rating_event), rows)
            if gone:
                tx.execute(sa.insert(tables.rating_out), [
                    {"case_no": c, "region": "430903", "department": "HS-ZJJ", "service_no": s, "assess_no": a,
                     "out": True, "changes": 1, "known_at": 0} for c in ("R1", "R2") for s, a in gone
                ])  # fmt: skip
            assert indicators.rated_cases(tx) == wanted
            excluded = {("430903", c, s, "HS-ZJJ", a) for c in ("R1", "R2") for s, a in gone}
            again = [recount._counting(visit, excluded) for visit in recount._visits(tx)]
            cases_ = {one.case_no for one in again if one}
            assert {c: any(not o.is_default for o in again if o and o.case_no == c) for c in cases_} == wanted

    check()


# --- late entry: the query and the rule say the same ---

HOUR = 3_600_000
DUE = ms("2020-09-21 17:00")
cases = st.tuples(
    st.sampled_from(["HS-ZJJ", "HS-GAFJ"]),
    st.one_of(st.none(), st.integers(-5, 3).map(lambda n: DUE + n * 20_000), st.just(DUE - 30 * HOUR)),
    st.sampled_from([None, 0, 59_999, 60_000, 3 * HOUR, 140 * HOUR, 200 * HOUR]),
    st.sampled_from([0, 1, 60_000, 30 * HOUR, 300 * HOUR]),
    st.sampled_from([False, False, False, True]),
)


def test_the_query_labels_every_case_as_the_rule_does(engine: sa.Engine) -> None:
    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(cases, min_size=1, max_size=70))
    def check(drawn: list[tuple[str, int | None, int | None, int, bool]]) -> None:
        rows = [_row(n, *one) for n, one in enumerate(drawn)]
        with engine.begin() as tx:
            tx.execute(sa.text("TRUNCATE case_state, case_event"))
            _insert(tx, rows)
            limits = lateness.thresholds()
            values = {"as_of": DUE + 60_000, "backfill_ms": limits.backfill_ms, "bulk_events": limits.bulk_events,
                      "bulk_ms": limits.bulk_ms}  # fmt: skip
            query = sa.text(f"WITH {indicators.LATE} SELECT case_no, label FROM lateness")
            labelled = {r.case_no: r.label for r in tx.execute(query, values)}
        assert labelled == {r["case_no"]: _label(r, rows) for r in rows}

    check()


def _row(
    n: int, department: str, stopped: int | None, entered: int | None, delay: int, provisional: bool
) -> dict[str, Any]:
    keyed = None if entered is None or stopped is None else stopped + entered
    heard = None if stopped is None else (stopped if keyed is None else keyed) + delay
    return {"case_no": f"K{n}", "department": department, "stopped_at": stopped, "entered_at": keyed,
            "received_at": heard, "id": uuid.uuid4(), "provisional": provisional}  # fmt: skip


def _label(row: Mapping[str, Any], rows: list[dict[str, Any]]) -> str:
    def keyed(r: Mapping[str, Any]) -> int:
        return int((r["received_at"] if r["entered_at"] is None else r["entered_at"]) // lateness.thresholds().bulk_ms)

    def late(r: Mapping[str, Any]) -> bool:
        return not r["provisional"] and lateness.in_time_known_late(DUE, r["stopped_at"], r["received_at"])

    together = sum(late(r) and r["department"] == row["department"] and keyed(r) == keyed(row) for r in rows) if late(
        row
    ) else 0
    return lateness.label(
        DUE, row["stopped_at"], row["entered_at"], row["received_at"], together, DUE + 60_000, row["provisional"]
    )


def _insert(tx: sa.Connection, rows: list[dict[str, Any]]) -> None:
    values = [{**r, "due": DUE, "on_time": None if r["stopped_at"] is None else r["stopped_at"] < DUE + 60_000}
              for r in rows]  # fmt: skip
    tx.execute(
        sa.text(
            "INSERT INTO case_state (case_no, partition, region, department, item_code, status, due_at, stopped_at, "
            "on_time, provisional, state) VALUES (:case_no, 0, '', :department, '', '', :due, :stopped_at, :on_time, "
            ":provisional, '{}')"
        ),
        values,
    )
    stopped = [v for v in values if v["stopped_at"] is not None]
    if stopped:
        tx.execute(
            sa.text(
                "INSERT INTO case_event (event_id, event_type, region, department, occurred_at, entered_at, "
                'received_at, digest, partition, "offset", case_no) VALUES '
                "(:id, 'case.decided', '', :department, :stopped_at, :entered_at, :received_at, :id, 0, 0, :case_no)"
            ),
            stopped,
        )
