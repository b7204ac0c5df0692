"""Sums of rating cells, up to department, district and whatever regions the database holds. Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import sqlalchemy as sa

from streams.store.tables import rating_cell

KEYS = {
    "region": rating_cell.c.region,
    "department": rating_cell.c.department,
    "item": rating_cell.c.item_code,
    "channel": rating_cell.c.channel,
    "day": rating_cell.c.rated_on,
}


@dataclass(frozen=True, slots=True)
class Filter:
    """Which cells; empty or None: all. Days are those of Asia/Shanghai, both ends included."""

    region: str = ""
    department: str = ""
    item: str = ""
    since: date | None = None
    until: date | None = None


def sums(tx: sa.Connection, by: Sequence[str], chosen: Filter = Filter()) -> list[dict[str, Any]]:
    """Per group (columns ``by``, keys of ``KEYS``): n1..n5 effective ratings, total, defaults, good_rate,
    bad_rate.

    好评率 and 差评率 are shares of the effective ratings, scores 3 to 5 and 1 to 2 (DOMAIN §5.2, §5.8);
    None without any.
    """
    keys = [KEYS[k].label(k) for k in by]
    levels = [_total(rating_cell.c.score == s).label(f"n{s}") for s in range(1, 6)]
    query = sa.select(*keys, *levels, _total().label("total"), _sum(rating_cell.c.defaults).label("defaults"))
    query = query.where(*_wanted(chosen)).group_by(*keys).having(_total() > 0).order_by(*keys)
    return [_rated(dict(row)) for row in tx.execute(query).mappings()]


def _total(*where: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    total = sa.func.sum(rating_cell.c.n)
    return sa.cast(sa.func.coalesce(total.filter(*where) if where else total, 0), sa.BigInteger)


def _sum(column: sa.ColumnElement[int]) -> sa.ColumnElement[int]:
    return sa.cast(sa.func.coalesce(sa.func.sum(column), 0), sa.BigInteger)


def _wanted(chosen: Filter) -> list[sa.ColumnElement[bool]]:
    c = rating_cell.c
    pairs = ((c.department, chosen.department), (c.item_code, chosen.item))
    wanted: list[sa.ColumnElement[bool]] = [column == value for column, value in pairs if value]
    wanted.append(c.region.startswith(chosen.region, autoescape=True))  # a district's townships are its own
    if chosen.since:
        wanted.append(c.rated_on >= chosen.since)
    if chosen.until:
        wanted.append(c.rated_on <= chosen.until)
    return wanted


def _rated(row: dict[str, Any]) -> dict[str, Any]:
    total, bad = row["total"], row["n1"] + row["n2"]
    return {
        **row,
        "good_rate": (total - bad) / total if total else None,
        "bad_rate": bad / total if total else None,
    }
