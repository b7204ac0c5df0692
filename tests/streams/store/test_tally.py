"""Ratings on real PostgreSQL against a tiny oracle of its own: any order, cut or repetition ends in the
same tables.
"""

from __future__ import annotations

import datetime as dt
import itertools
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas import codec, codesets, envelope
from schemas.topics import RATING
from streams.store import tally as tally_module
from streams.store.applier import apply_batch, aside
from streams.store.engine import connect
from streams.store.projection import Carried
from streams.store.tally import TURNS, TallyProjection

ITEM = "11430903MBDEM0138T4000715002000"
DAY1 = int(dt.datetime(2020, 9, 21, 3, tzinfo=dt.UTC).timestamp() * 1000)  # 11:00 in Shanghai
DAY_MS = 86_400_000
TABLES = (
    "rating_event",
    "rating_cell_merged",
    "rating_cell_change",
    "outbox",
    "dead_letter",
    "rollup_dirty",
    "rollup_emitted",
    "cursor",
)


def rating(**changes: Any) -> dict[str, Any]:
    record = {
        "event_type": "rating.given",
        "region": "430903",
        "department": "HS-ZRZYJ",
        "occurred_at": DAY1,
        "received_at": DAY1 + 1000,
        "case_no": "C1",
        "item_code": ITEM,
        "satisfaction_set": "platform.satisfaction",
        "satisfaction_code": "5",
        "channel_set": "platform.channel",
        "channel_code": "1",
        "service_no": 1,
        "assess_no": 1,
        "revision": 0,
        **changes,
    }
    return {**record, "event_id": str(envelope.event_id(RATING, record))}


def carry(records: Sequence[dict[str, Any]]) -> list[Carried]:
    return [
        Carried(
            RATING, 0, i, r["case_no"].encode(), codec.encode(RATING, r), tuple(envelope.headers(RATING, r))
        )
        for i, r in enumerate(records)
    ]


def by_column(patch: pytest.MonkeyPatch, wanted: bool) -> None:
    """Few records take every way that many take: decoding, folding, encoding, writing."""
    patch.setattr("streams.store.tally.FEW", 0 if wanted else 1_000)
    patch.setattr("streams.store.frames.FEW", 1 if wanted else 1_000)  # one record cannot be halved
    patch.setattr("streams.store.frames.FEW_TO_SAY", 0 if wanted else 1_000)


@pytest.fixture(params=["one by one", "by column"])
def tally(database: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[sa.Engine]:
    """Both forms of the fold must pass every test."""
    by_column(monkeypatch, request.param == "by column")
    engine = connect(database)
    yield engine
    engine.dispose()


def fold(engine: sa.Engine, records: Sequence[dict[str, Any]], cuts: Sequence[int] = ()) -> None:
    whole = carry(records)
    edges = [0, *sorted(min(c, len(whole)) for c in cuts), len(whole)]
    for start, end in itertools.pairwise(edges):
        apply_batch(engine, TallyProjection(), whole[start:end])


def empty(engine: sa.Engine) -> None:
    with engine.begin() as tx:
        tx.execute(sa.text(f"TRUNCATE {', '.join(TABLES)}"))


def rows(engine: sa.Engine, query: str) -> list[Any]:
    with engine.connect() as tx:
        return [tuple(r) for r in tx.execute(sa.text(query))]


def cells(engine: sa.Engine) -> dict[tuple[str, int, str], tuple[int, int]]:
    found = rows(engine, "SELECT department, score, rated_on, n, defaults FROM rating_cell WHERE n <> 0")
    return {(d, s, str(on)): (n, defaults) for d, s, on, n, defaults in found}


def said(engine: sa.Engine, topic: str) -> list[dict[str, Any]]:
    return [
        codec.decode(v)
        for (v,) in rows(engine, f"SELECT value FROM outbox WHERE topic = '{topic}' ORDER BY seq")
    ]


def dead(engine: sa.Engine) -> Counter[str]:
    return Counter(r for (r,) in rows(engine, "SELECT reason FROM dead_letter"))


def alerts(engine: sa.Engine) -> list[tuple[str, int, str]]:
    return [(a["event_type"], a["alert_seq"], a["evidence"][0]) for a in said(engine, "oversight.alert.v1")]


# --- narratives of DOMAIN §10 and rules of §5 -----------------------------------------------------


def test_32_the_same_digit_means_best_to_the_standard_and_worst_to_the_platform(tally: sa.Engine) -> None:
    standard = rating(case_no="A", satisfaction_set="gbt39046.satisfaction", satisfaction_code="1")
    hall = rating(case_no="B", department="HS-ZWFWZX", satisfaction_code="1")
    fold(tally, [standard, hall])
    assert cells(tally) == {("HS-ZRZYJ", 5, "2020-09-21"): (1, 0), ("HS-ZWFWZX", 1, "2020-09-21"): (1, 0)}


def test_36_a_third_rating_attempt_is_a_dead_letter(tally: sa.Engine) -> None:
    fold(tally, [rating(assess_no=n) for n in (1, 2, 3)])
    assert dead(tally) == {"assess_number_exceeded": 1}
    assert cells(tally) == {("HS-ZRZYJ", 5, "2020-09-21"): (1, 0)}


@pytest.mark.parametrize("default_first", [True, False])
def test_38_a_citizens_rating_replaces_the_default_one_and_starts_the_loop(
    tally: sa.Engine, default_first: bool
) -> None:
    default = rating(is_default=True, revision=3)
    own = rating(satisfaction_code="1", occurred_at=DAY1 + DAY_MS, received_at=DAY1 + DAY_MS + 1)
    fold(tally, [default, own] if default_first else [own, default], cuts=[1])
    assert cells(tally) == {("HS-ZRZYJ", 1, "2020-09-22"): (1, 0)}
    assert alerts(tally) == [("alert.issued", 1, own["event_id"])]
    assert said(tally, "oversight.alert.v1")[0]["occurred_at"] == DAY1 + DAY_MS


def test_51_what_is_uploaded_holds_no_mobile_and_no_name(tally: sa.Engine) -> None:
    fold(
        tally,
        [
            rating(
                comment="请打13800000000，我叫王小明",
                rater_name="王小明",
                satisfaction_code="1",
                tags=["110"],
                tag_set="platform.eval-detail",
            )
        ],
    )
    (upload,) = said(tally, "rating.upload.v1")
    assert upload["writing_evaluation"] == "请打【手机号】，我叫【姓名】"
    assert (upload["user_name"], upload["eval_detail"], upload["pf_code"]) == ("王*明", "110", "1")
    assert upload["dept_code"] == "11430903MBDEM0138T"
    assert "王" not in json.dumps(said(tally, "oversight.alert.v1"), ensure_ascii=False)


def test_a_rating_whose_masked_text_is_too_long_for_a_record_is_counted_and_uploaded_in_part(tally: sa.Engine) -> None:
    fold(tally, [rating(comment="a" * 250_000, rater_name="aa")])
    (upload,) = said(tally, "rating.upload.v1")
    assert upload["writing_evaluation"].endswith("【姓名】…（已截断）")
    assert cells(tally) == {("HS-ZRZYJ", 5, "2020-09-21"): (1, 0)}


def test_a_default_rating_counts_but_is_told_apart(tally: sa.Engine) -> None:
    fold(tally, [rating(is_default=True)])
    assert cells(tally) == {("HS-ZRZYJ", 5, "2020-09-21"): (1, 1)}


def test_a_re_rating_counts_instead_of_the_first_until_it_is_withdrawn(tally: sa.Engine) -> None:
    first, again = rating(satisfaction_code="1"), rating(assess_no=2, satisfaction_code="4")
    fold(tally, [again, first], cuts=[1])
    assert cells(tally) == {("HS-ZRZYJ", 4, "2020-09-21"): (1, 0)}
    empty(tally)
    fold(
        tally,
        [again, first, rating(assess_no=2, revision=1, operation="D", event_type="rating.withdrawn")],
        cuts=[1],
    )
    assert cells(tally) == {("HS-ZRZYJ", 1, "2020-09-21"): (1, 0)}


def test_a_withdrawal_that_comes_alone_counts_nothing(tally: sa.Engine) -> None:
    fold(tally, [rating(revision=1, operation="D", event_type="rating.withdrawn"), rating(case_no="other")])
    assert rows(tally, "SELECT sum(n), sum(events) FROM rating_cell") == [(1, 2)]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_correction_takes_the_bad_alert_back_whichever_comes_first(
    tally: sa.Engine, order: tuple[int, int]
) -> None:
    bad = rating(satisfaction_code="2")
    better = rating(
        satisfaction_code="4",
        revision=1,
        operation="U",
        event_type="rating.corrected",
        received_at=DAY1 + 9000,
    )
    fold(tally, [(bad, better)[i] for i in order], cuts=[1])
    assert sorted(alerts(tally)) == [
        ("alert.issued", 1, bad["event_id"]),
        ("alert.revoked", 2, better["event_id"]),
    ]
    revoked = next(a for a in said(tally, "oversight.alert.v1") if a["event_type"] == "alert.revoked")
    assert (revoked["revoked_reason_code"], revoked["received_at"]) == ("rating_corrected", DAY1 + 9000)
    assert cells(tally) == {("HS-ZRZYJ", 4, "2020-09-21"): (1, 0)}


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_correction_that_leaves_a_bad_rating_bad_tells_more_of_the_same_alert(
    tally: sa.Engine, order: Sequence[int]
) -> None:
    amended = {"operation": "U", "event_type": "rating.corrected"}
    bad, worse = rating(satisfaction_code="2"), rating(satisfaction_code="1", revision=1, **amended)
    other = rating(satisfaction_code="1", assess_no=2)
    fold(tally, [(bad, worse, other)[i] for i in order], cuts=[1])
    told = said(tally, "oversight.alert.v1")
    assert sorted((a["event_type"], a["alert_seq"], a["evidence"]) for a in told) == [
        ("alert.issued", 1, [e]) for e in sorted((bad["event_id"], other["event_id"]))
    ] + [("alert.issued", 2, [worse["event_id"]])]
    by_event = {a["evidence"][0]: a["alert_id"] for a in told}
    assert by_event[bad["event_id"]] == by_event[worse["event_id"]] != by_event[other["event_id"]]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"tags": ["110"], "tag_set": "platform.eval-detail"}, "tag_level_mismatch"),
        ({"tags": ["999"], "tag_set": "platform.eval-detail"}, "unknown_code"),
        ({"tags": ["510", "501"], "tag_set": "platform.eval-detail"}, "unknown_code"),
        ({"satisfaction_code": "6"}, "unknown_code"),
        ({"satisfaction_set": "no.such.set"}, "unknown_code"),
        ({"channel_code": "77"}, "unknown_code"),
        ({"operation": "X"}, "unknown_code"),
        ({"department": "HS-NONE"}, "unknown_department"),
        ({"service_no": 0}, "bad_format"),
    ],
)
def test_what_breaks_a_rule_is_buried_with_its_reason(
    tally: sa.Engine, changes: dict[str, Any], reason: str
) -> None:
    fold(tally, [rating(case_no="good"), rating(**changes)])
    assert dead(tally) == {reason: 1}
    assert [c for (c,) in rows(tally, "SELECT case_no FROM rating_event")] == ["good"]


def test_a_superseded_tag_is_accepted_for_an_old_rating(tally: sa.Engine) -> None:
    old = int(dt.datetime(2019, 12, 31, tzinfo=dt.UTC).timestamp() * 1000)
    fold(tally, [rating(tags=["501"], tag_set="platform.eval-detail", occurred_at=old)])
    assert dead(tally) == {}


def test_the_day_is_shanghais(tally: sa.Engine) -> None:
    late = int(dt.datetime(2020, 9, 21, 16, tzinfo=dt.UTC).timestamp() * 1000)
    fold(tally, [rating(occurred_at=late), rating(case_no="C2", occurred_at=late - 1)])
    assert {day for _, _, day in cells(tally)} == {"2020-09-22", "2020-09-21"}


def test_the_same_id_with_another_content_is_a_conflict(tally: sa.Engine) -> None:
    fold(tally, [rating(), rating(satisfaction_code="1"), rating()])
    fold_again = [*carry([rating(satisfaction_code="2")])]
    apply_batch(tally, TallyProjection(), [Carried(RATING, 0, 3, *_rest(fold_again[0]))])
    assert dead(tally) == {"conflict": 2}
    assert cells(tally) == {("HS-ZRZYJ", 5, "2020-09-21"): (1, 0)}


def _rest(one: Carried) -> tuple[bytes | None, bytes, tuple[tuple[str, bytes], ...]]:
    return one.key, one.value, one.headers


def test_a_poisoned_neighbour_is_buried_alone(tally: sa.Engine) -> None:
    whole = carry([rating(case_no=f"C{i}") for i in range(300)])
    whole[137] = Carried(RATING, 0, 137, b"C137", whole[137].value + b"\x00", whole[137].headers)
    whole[200] = Carried(RATING, 0, 200, b"other", whole[200].value, whole[200].headers)
    apply_batch(tally, TallyProjection(), whole)
    assert dead(tally) == {"not_canonical": 1, "envelope_mismatch": 1}
    assert (
        rows(tally, "SELECT count(*), sum(n) FROM rating_event, (SELECT sum(n) AS n FROM rating_cell) s")[0][
            0
        ]
        == 298
    )


def test_uploads_may_be_left_out(tally: sa.Engine) -> None:
    apply_batch(tally, TallyProjection(upload=False), carry([rating(satisfaction_code="1")]))
    assert said(tally, "rating.upload.v1") == []
    assert len(alerts(tally)) == 1


# --- rollups --------------------------------------------------------------------------------------


def settle(engine: sa.Engine) -> None:
    while aside(engine, TallyProjection().speak):
        pass


def last_rollups(engine: sa.Engine) -> dict[str, dict[str, Any]]:
    last: dict[str, dict[str, Any]] = {}
    for r in said(engine, "rating.rollup.v1"):
        if r["revision"] >= last.get(r["scope"], r)["revision"]:
            last[r["scope"]] = r
    return last


def test_rollups_say_cells_departments_and_the_district_at_their_last_revision(tally: sa.Engine) -> None:
    fold(
        tally,
        [
            rating(case_no="A"),
            rating(case_no="B", satisfaction_code="1"),
            rating(case_no="C", department="HS-GAFJ"),
        ],
    )
    settle(tally)
    day = "2020-09-21"
    assert {s: (r["total"], r["good"], r["bad"]) for s, r in last_rollups(tally).items()} == {
        f"430903/HS-ZRZYJ/{ITEM}/PC/{day}": (2, 1, 1),
        f"430903/HS-GAFJ/{ITEM}/PC/{day}": (1, 1, 0),
        f"430903/HS-ZRZYJ///{day}": (2, 1, 1),
        f"430903/HS-GAFJ///{day}": (1, 1, 0),
        f"430903////{day}": (3, 2, 1),
    }
    settle(tally)
    assert len(said(tally, "rating.rollup.v1")) == 5


def test_rollups_that_shrank_in_a_rebuild_are_not_said_and_named_by_the_query_that_operators_have(
    tally: sa.Engine,
) -> None:
    shrinks, vanishes, stays = rating(case_no="A"), rating(case_no="B", channel_code="2"), rating(case_no="C")
    fold(tally, [shrinks, vanishes, stays])
    settle(tally)
    before = said(tally, "rating.rollup.v1")
    with tally.begin() as tx:
        tx.execute(sa.text("TRUNCATE rating_event, rating_cell_merged, rating_cell_change, cursor"))
    fold(tally, [stays])
    settle(tally)
    assert said(tally, "rating.rollup.v1") == before
    guide = (Path(__file__).parents[3] / "docs" / "operate.md").read_text()
    told = guide.partition("**Before a rebuild under a stricter release.**")[2]
    query = told.split("```sql\n")[1].split("```")[0].replace("%", "%%")
    with tally.connect() as tx:
        found = {tuple(row) for row in tx.exec_driver_sql(query)}
    cell = f"430903/HS-ZRZYJ/{ITEM}"
    (gone,) = {r["channel_code"] for r in before if r["channel_code"] not in ("", "PC")}
    assert found == {(f"{cell}/PC/2020-09-21", 2, 1), (f"{cell}/{gone}/2020-09-21", 1, 0)}


def test_what_a_township_was_rated_is_its_districts_too(tally: sa.Engine) -> None:
    first = [rating(case_no="A"), rating(case_no="B", satisfaction_code="1")]
    fold(tally, first)
    settle(tally)
    more = [rating(case_no="C", satisfaction_code="1", region="430903101"), rating(case_no="D", region="430902")]
    fold(tally, [*first, *more], cuts=[2])
    settle(tally)
    totals = {s: (r["scope_kind_code"], r["total"], r["bad"]) for s, r in last_rollups(tally).items() if "///" in s}
    assert totals == {
        "430903////2020-09-21": ("DISTRICT", 3, 2),
        "430903/HS-ZRZYJ///2020-09-21": ("DEPARTMENT", 2, 1),
        "430903101/HS-ZRZYJ///2020-09-21": ("DEPARTMENT", 1, 1),
        "430902////2020-09-21": ("DISTRICT", 1, 0),
        "430902/HS-ZRZYJ///2020-09-21": ("DEPARTMENT", 1, 0),
    }


def test_when_all_is_quiet_a_date_is_said_for_all_departments(tally: sa.Engine) -> None:
    departments = sorted(codesets.departments())
    fold(tally, [rating(case_no=code, department=code) for code in departments])
    assert aside(tally, TallyProjection().speak), "merged, nothing said yet"
    assert not aside(tally, TallyProjection().speak), "something of the only date is left"
    totals = {s: r["total"] for s, r in last_rollups(tally).items() if "///" in s}
    assert totals == {f"430903/{code}///2020-09-21": 1 for code in departments} | {
        "430903////2020-09-21": len(departments)
    }


MARK = "INSERT INTO rollup_dirty (rated_on, department, region) VALUES ('2020-09-21', 'HS-SCJGJ', '430903')"


def test_while_one_worker_says_rollups_another_says_none(tally: sa.Engine) -> None:
    """It could read newer figures and say them first; then the older ones would be the last word on the topic."""

    def mark() -> None:
        with tally.begin() as other:
            other.exec_driver_sql(MARK)

    def taken(tx: sa.Connection) -> int:
        return len(tally_module._take_days(tx, tally_module.Day(dt.date.min, "", ""), 8))

    mark()
    with tally.begin() as one:
        assert taken(one) == 1
        mark()
        with tally.begin() as two:
            assert taken(two) == 0
    with tally.begin() as two:
        assert taken(two) == 1


@pytest.mark.parametrize(
    "makes",
    [
        "INSERT INTO rating_out_news VALUES ('c')",
        "INSERT INTO rating_claim_news VALUES ('c')",
        "INSERT INTO rollup_dirty (rated_on, department, region) VALUES ('2020-09-21', 'HS-SCJGJ', '430903')",
        "",
    ],
)
def test_who_found_nothing_to_say_looks_once_the_next_time_and_misses_nothing(tally: sa.Engine, makes: str) -> None:
    projection, asked = TallyProjection(), list[str]()
    while aside(tally, projection.speak):
        pass

    def note(*args: Any) -> None:
        asked.append(args[2])

    sa.event.listen(tally, "before_cursor_execute", note)
    assert not aside(tally, projection.speak)
    assert len(asked) == 1
    sa.event.remove(tally, "before_cursor_execute", note)
    if makes:
        with tally.begin() as tx:
            tx.exec_driver_sql(makes)
    else:
        fold(tally, [rating()])
    while aside(tally, projection.speak):
        pass
    left = "SELECT count(*) FROM (TABLE rating_out_news UNION ALL TABLE rating_claim_news) AS news"
    assert rows(tally, left) == [(0,)]
    marked = "SELECT (SELECT count(*) FROM rollup_dirty) + (SELECT count(*) FROM rating_cell_change)"
    assert rows(tally, marked) == [(0,)]


def test_while_ratings_come_some_departments_are_merged_at_a_time_and_all_in_turn(tally: sa.Engine) -> None:
    departments = sorted(codesets.departments())
    fold(tally, [rating(case_no=code, department=code) for code in departments])
    view = "SELECT department, n FROM rating_cell ORDER BY department"
    exact, projection, seen = rows(tally, view), TallyProjection(), list[int]()
    for _ in range(TURNS):
        assert aside(tally, projection.tidy)
        seen += rows(tally, "SELECT count(*) FROM rating_cell_merged")[0]
        assert rows(tally, view) == exact
    assert seen == sorted(set(seen)), "some in each turn"
    assert seen[0] <= -(-len(departments) // TURNS)
    assert (seen[-1], rows(tally, "SELECT count(*) FROM rating_cell_change")) == (len(departments), [(0,)])


def test_while_ratings_come_what_was_merged_is_said_after_all_turns(tally: sa.Engine) -> None:
    projection = TallyProjection()
    fold(tally, [rating()])
    for _ in range(TURNS + 1):
        aside(tally, projection.tidy)
    assert said(tally, "rating.rollup.v1") == []
    assert aside(tally, projection.tidy)
    assert [r["total"] for r in said(tally, "rating.rollup.v1")] == [1, 1, 1]
    assert not aside(tally, projection.tidy)


def test_while_ratings_always_come_each_day_has_its_turn(tally: sa.Engine) -> None:
    projection, departments, rounds = TallyProjection(), sorted(codesets.departments()), 8
    days = [(code, day) for code in departments for day in (0, 1)]  # 54, of which 8 are said at once
    whole = carry(
        [
            rating(case_no=f"{n}/{code}/{day}", department=code, occurred_at=DAY1 + day * DAY_MS)
            for n in range(rounds)
            for code, day in days
        ]
    )
    for n in range(rounds):
        apply_batch(tally, projection, whole[n * len(days) : (n + 1) * len(days)])
        for _ in range(TURNS + 2):
            aside(tally, projection.tidy)
    said_days = {s for s in last_rollups(tally) if "///" in s and "////" not in s}
    assert said_days == {f"430903/{code}///2020-09-{21 + day}" for code, day in days}


def test_the_changes_of_a_department_that_is_registered_no_more_are_merged_too(
    tally: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    fold(tally, [rating()])
    left = {c: d for c, d in codesets.departments().items() if c != "HS-ZRZYJ"}
    monkeypatch.setattr(codesets, "departments", lambda: left)
    projection = TallyProjection()
    for _ in range(TURNS):
        aside(tally, projection.tidy)
    assert rows(tally, "SELECT count(*) FROM rating_cell_merged") == [(1,)]


def test_a_rating_that_moves_to_another_day_revises_both_days(tally: sa.Engine) -> None:
    fold(tally, [rating()])
    settle(tally)
    moved = rating(revision=1, operation="U", event_type="rating.corrected", occurred_at=DAY1 + DAY_MS)
    apply_batch(tally, TallyProjection(), [Carried(RATING, 0, 1, *_rest(carry([moved])[0]))])
    settle(tally)
    totals = {s: r["total"] for s, r in last_rollups(tally).items() if s.startswith("430903////")}
    assert totals == {"430903////2020-09-21": 0, "430903////2020-09-22": 1}


def test_cells_are_exact_whether_their_changes_are_merged_or_not(tally: sa.Engine) -> None:
    first, second = carry([rating(case_no="A", satisfaction_code="1"), rating(case_no="B", satisfaction_code="1")])
    apply_batch(tally, TallyProjection(), [first])
    settle(tally)
    apply_batch(tally, TallyProjection(), [second])
    tables = ("rating_cell_merged", "rating_cell_change", "rating_cell")
    assert [rows(tally, f"SELECT sum(n) FROM {t}") for t in tables] == [[(1,)], [(1,)], [(2,)]]
    settle(tally)
    assert rows(tally, "SELECT n, events FROM rating_cell_merged") == rows(tally, "SELECT n, events FROM rating_cell")
    assert rows(tally, "SELECT n FROM rating_cell") == [(2,)]
    assert rows(tally, "SELECT count(*) FROM rating_cell_change") == [(0,)]


# --- any order, any cut, any repetition -----------------------------------------------------------

EVENTS = st.lists(
    st.builds(
        rating,
        case_no=st.sampled_from(["A", "B"]),
        department=st.sampled_from(["HS-ZRZYJ", "HS-GAFJ"]),
        service_no=st.integers(1, 2),
        assess_no=st.integers(1, 2),
        revision=st.integers(0, 2),
        operation=st.sampled_from(["I", "U", "U", "D"]),
        satisfaction_code=st.sampled_from("12345"),
        is_default=st.sampled_from([False, False, True]),
        occurred_at=st.sampled_from([DAY1, DAY1 + DAY_MS]),
        received_at=st.sampled_from([DAY1, DAY1 + 5, DAY1 + 7]),
    ),
    max_size=14,
    unique_by=lambda r: r["event_id"],
)


def oracle(records: Sequence[dict[str, Any]]) -> dict[tuple[str, int, str], tuple[int, int]]:
    """What counts, told again from DOMAIN §5 in other words."""
    visits: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for r in records:
        visits[r["case_no"], r["service_no"]].append(r)
    counts: dict[tuple[str, int, str], list[int]] = defaultdict(lambda: [0, 0])
    for visit in visits.values():
        candidates = []
        for assess in (1, 2):
            same = [r for r in visit if r["assess_no"] == assess]
            own = [r for r in same if not r["is_default"]] or same
            if not own:
                continue
            top = max(r["revision"] for r in own)
            last = sorted(
                (r["occurred_at"], r["event_id"], i) for i, r in enumerate(own) if r["revision"] == top
            )[-1]
            if own[last[2]]["operation"] != "D":
                candidates.append(own[last[2]])
        active = [c for c in candidates if not c["is_default"]] or candidates
        if active:
            r = active[-1]
            on = dt.datetime.fromtimestamp(r["occurred_at"] / 1000 + 8 * 3600, dt.UTC).date()
            count = counts[r["department"], int(r["satisfaction_code"]), str(on)]
            count[0] += 1
            count[1] += r["is_default"]
    return {k: (n, d) for k, (n, d) in counts.items()}


def dump(engine: sa.Engine) -> tuple[Any, ...]:
    return (
        rows(engine, "SELECT event_id, digest, score, channel FROM rating_event ORDER BY 1"),
        rows(engine, "SELECT * FROM rating_cell ORDER BY 1, 2, 3, 4, 5, 6"),
        rows(
            engine,
            "SELECT topic, event_id, digest FROM outbox WHERE topic <> 'rating.rollup.v1' ORDER BY 1, 2",
        ),
        {s: (r["revision"], r["total"], r["event_id"]) for s, r in last_rollups(engine).items()},
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(EVENTS, st.randoms(use_true_random=False), st.lists(st.integers(0, 20), max_size=3))
def test_any_order_cut_or_repetition_ends_in_the_same_tables(
    tally: sa.Engine, records: list[dict[str, Any]], chance: random.Random, cuts: list[int]
) -> None:
    empty(tally)
    fold(tally, records)
    settle(tally)
    assert cells(tally) == oracle(records)
    once = dump(tally)
    empty(tally)
    again = [*records, *chance.sample(records, len(records) // 2)]
    chance.shuffle(again)
    half = len(again) // 2
    fold(tally, again[:half], cuts)
    settle(tally)
    rest = carry(again)[half:]
    apply_batch(tally, TallyProjection(), rest)
    settle(tally)
    assert dump(tally) == once


OLD = int(dt.datetime(2019, 5, 1, tzinfo=dt.UTC).timestamp() * 1000)
TAGS = {"5": ["510", "501", "115", "999"], "2": ["214", "205", "115"], "1": ["115", "101", "214"]}
SOUND = st.sampled_from("512").flatmap(
    lambda code: st.builds(
        rating,
        case_no=st.sampled_from("ABC"),
        assess_no=st.integers(1, 2),
        revision=st.integers(0, 1),
        operation=st.sampled_from(["I", "U", "D"]),
        satisfaction_code=st.just(code),
        channel_set=st.just("gbt39046.channel"),
        channel_code=st.sampled_from(["1", "4", "9"]),
        tag_set=st.sampled_from(["platform.eval-detail", "platform.eval-detail", "no.such.set"]),
        tags=st.lists(st.sampled_from(TAGS[code]), max_size=2),
        occurred_at=st.sampled_from([DAY1, OLD]),
        comment=st.sampled_from(["", "电话13800000000，王小明"]),
        rater_name=st.sampled_from(["", " ", "王小明"]),
        anonymous=st.booleans(),
        is_default=st.booleans(),
    )
)
ODD = st.sampled_from(
    [
        {"department": "HS-NONE"}, {"service_no": 0}, {"assess_no": 3}, {"revision": -1}, {"operation": "X"},
        {"satisfaction_set": "gbt39046.satisfaction"}, {"satisfaction_set": "no.such.set"}, {"channel_code": "77"},
        {"satisfaction_code": "0", "tags": ["999"]}, {"satisfaction_code": "0", "operation": "X"},
    ]
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(SOUND, SOUND, st.builds(lambda r, odd: rating(**{**r, **odd}), SOUND, ODD)), max_size=12))
def test_one_by_one_and_by_column_the_same_is_written(database: str, records: list[dict[str, Any]]) -> None:
    written = []
    engine = connect(database)
    for wanted in (True, False):
        empty(engine)
        with pytest.MonkeyPatch.context() as patch:
            by_column(patch, wanted)
            fold(engine, records)
        settle(engine)
        letters = rows(engine, "SELECT dead_id, reason, field, text, event_id FROM dead_letter ORDER BY dead_id")
        written.append((dump(engine), letters, rows(engine, "SELECT partition, next_offset, watermark FROM cursor")))
    engine.dispose()
    assert written[0] == written[1]


@pytest.mark.parametrize("wanted", [True, False])
def test_what_is_known_of_a_case_is_looked_up_by_its_index_however_young_the_table_is(
    tally: sa.Engine, wanted: bool
) -> None:
    cases = [f"C{n}" for n in range(200)]
    fold(tally, [rating(case_no=case) for case in cases])
    with tally.connect() as tx, pytest.MonkeyPatch.context() as patch:
        by_column(patch, wanted)
        projection = TallyProjection()
        projection.apply(tx, carry([rating(case_no=case, revision=1) for case in cases]))
        assert tx.execute(sa.text("SHOW enable_seqscan")).scalar_one() == "off"
        tx.rollback()
        assert tx.execute(sa.text("SHOW enable_seqscan")).scalar_one() == "on"


def test_an_alerts_id_follows_from_the_rating(tally: sa.Engine) -> None:
    bad = rating(satisfaction_code="1")
    fold(tally, [bad])
    (alert,) = said(tally, "oversight.alert.v1")
    assert alert["alert_id"] == str(envelope.derived_id("BAD_RATING", "430903", "C1", 1, "HS-ZRZYJ", 1))
    assert alert["summary"] == "差评：区自然资源局办件C1被评为“非常不满意”，请于1个工作日内联系核实"


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"rater_name": "王小明"}, True),
        ({"rater_name": "\u3000"}, False),
        ({"rater_name": "王小明", "anonymous": True}, False),
        ({}, False),
    ],
)
def test_a_named_bad_rating_is_to_be_called_back(tally: sa.Engine, more: dict[str, Any], named: bool) -> None:
    fold(tally, [rating(satisfaction_code="1", **more)])
    (alert,) = said(tally, "oversight.alert.v1")
    assert alert["named"] is named
    assert ("实名，须回访" in alert["summary"]) is named
