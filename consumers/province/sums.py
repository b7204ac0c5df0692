"""The province's own sums over the ratings it received, and where a district's pushed sum differs from them.

Decides which rating counts, from DOMAIN §5.6 and §5.8 alone and independently of the districts: withdrawn (D) and
ineffective ratings do not, nor those that their district took out (void case, appeal); of the ratings of one visit an
active one replaces a default, and the re-rating replaces the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any, Literal

import sqlalchemy as sa

from consumers.province.store import COUNTS, rating, rollup, standing

Scope = Literal["province", "district", "department"]
Row = dict[str, Any]


def sums(tx: sa.Connection, scope: Scope, day: date, region: str = "") -> list[Row]:
    """Counts of the effective ratings of ``day`` (Asia/Shanghai) by score, grouped as ``scope`` says."""
    counting = _counting(day).subquery()
    by: Mapping[Scope, list[sa.ColumnElement[str]]] = {
        "province": [], "district": [_district(counting)], "department": [counting.c.region, counting.c.department],
    }  # fmt: skip
    groups = by[scope]
    query = sa.select(*groups, *_counts(counting)).group_by(*groups).order_by(*groups)
    if region:
        query = query.where(counting.c.region.startswith(region, autoescape=True))
    rows = [dict(r) for r in tx.execute(query).mappings()]
    return [r for r in rows if r["total"]] if not groups else rows


def _district(of: sa.FromClause) -> sa.ColumnElement[str]:
    """The district of a region: a township's ratings are its district's too (DOMAIN §1.2)."""
    return sa.func.left(of.c.region, 6).label("region")


def _counting(day: date) -> sa.Select[Any]:
    """The one rating of each visit that counts, if it was given on ``day``."""
    visit = (rating.c.region, rating.c.project_no, rating.c.service_number)
    touched = sa.select(*visit).where(rating.c.rated_on == day)
    same = (standing.c[key.name] == rating.c[key.name] for key in standing.primary_key)
    out = sa.exists().where(~standing.c.effective, *same)
    effective = (
        sa.select(rating)
        .where(rating.c.operation != "D", rating.c.effective, ~out, sa.tuple_(*visit).in_(touched))
        .distinct(*visit)
        .order_by(*visit, rating.c.active.desc(), rating.c.assess_number.desc())
        .subquery()
    )
    return sa.select(effective).where(effective.c.rated_on == day)


def _counts(of: sa.FromClause) -> list[sa.Label[Any]]:
    def n(test: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
        return sa.func.count().filter(test)

    tests = {f"n{score}": of.c.score == score for score in range(1, 6)}
    tests |= {
        "total": sa.true(),
        "good": of.c.score >= 3,
        "bad": of.c.score <= 2,
        "defaults": ~of.c.active,
    }
    return [n(tests[name]).label(name) for name in COUNTS]


def findings(tx: sa.Connection, day: date) -> list[Row]:
    """Every district whose newest pushed DISTRICT rollup of ``day`` is not the sum of its single ratings."""
    computed = {r["region"]: {c: r[c] for c in COUNTS} for r in sums(tx, "district", day)}
    districts = (rollup.c.scope_kind == "DISTRICT", sa.func.length(rollup.c.region) == 6)  # once townships' too
    query = sa.select(rollup).where(rollup.c.rated_on == day, *districts)
    pushed = {r["region"]: {c: r[c] for c in COUNTS} for r in tx.execute(query).mappings()}
    nothing = dict.fromkeys(COUNTS, 0)
    regions = sorted(computed.keys() | pushed.keys())
    pairs = [(r, pushed.get(r, nothing), computed.get(r, nothing)) for r in regions]
    return [{"region": r, "day": day.isoformat(), "pushed": p, "computed": c} for r, p, c in pairs if p != c]
