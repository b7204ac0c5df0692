"""Sums of cells, typed by hand."""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa

from streams.store import rollups
from streams.store.tables import rating_cell_change, rating_cell_merged


def _cell(
    department: str, score: int, n: int, day: int = 21, region: str = "430903", defaults: int = 0
) -> dict[str, object]:
    return {
        "region": region, "department": department, "item_code": "I", "channel": "PC", "score": score,
        "rated_on": dt.date(2020, 9, day), "n": n, "defaults": defaults, "events": n, "received_at": 0,
    }  # fmt: skip


def test_sums_go_up_to_department_and_district_and_leave_out_what_fell_to_nothing(engine: sa.Engine) -> None:
    cells = [
        _cell("A", 5, 6, defaults=2),
        _cell("A", 1, 2),
        _cell("B", 3, 4, day=22),
        _cell("C", 5, 0),
        _cell("A", 2, 9, region="430902"),
        _cell("A", 4, 1, region="430903101"),
    ]
    with engine.begin() as tx:
        tx.execute(rating_cell_merged.insert(), cells[:3])
        tx.execute(rating_cell_change.insert(), cells[3:])
        departments = rollups.sums(tx, ["department"], rollups.Filter(region="430903"))
        districts = rollups.sums(tx, ["region"])
        late = rollups.sums(tx, [], rollups.Filter(since=dt.date(2020, 9, 22)))
        township = rollups.sums(tx, [], rollups.Filter(region="430903101"))
    assert [
        (r["department"], r["total"], r["n1"], r["n5"], r["defaults"], r["good_rate"]) for r in departments
    ] == [
        ("A", 9, 2, 6, 2, 7 / 9),
        ("B", 4, 0, 0, 0, 1.0),
    ]
    assert {r["region"]: (r["total"], r["bad_rate"]) for r in districts} == {
        "430902": (9, 1.0),
        "430903": (12, 2 / 12),
        "430903101": (1, 0.0),
    }
    assert [r["total"] for r in township] == [1]
    assert [r["total"] for r in late] == [4]
