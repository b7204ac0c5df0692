"""Writes many rows with one statement. Decides how Python columns travel to PostgreSQL; must not know any
table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

import psycopg
import sqlalchemy as sa
from msgspec import json
from sqlalchemy.dialects.postgresql import JSONB, UUID

# JSONB columns travel as text[] and are cast row by row: an array of JSON documents has no plain text form.
_ARRAYS: tuple[tuple[type[sa.types.TypeEngine[Any]], str], ...] = (
    (UUID, "uuid[]"),
    (JSONB, "text[]"),
    (sa.SmallInteger, "smallint[]"),
    (sa.BigInteger, "bigint[]"),
    (sa.Integer, "integer[]"),
    (sa.Boolean, "boolean[]"),
    (sa.Date, "date[]"),
    (sa.LargeBinary, "bytea[]"),
    (sa.Text, "text[]"),
)


def any_of(column: sa.Column[Any], name: str) -> sa.ColumnElement[bool]:
    """Whether ``column`` is among the values of the parameter ``name``, a list. For statements that are made once: one
    made for every call costs more than it asks, and leaves cycles to the garbage collector.
    """
    return column == sa.any_(sa.cast(sa.bindparam(name), sa.ARRAY(column.type)))


def driver(tx: sa.Connection) -> psycopg.Connection[Any]:
    """The psycopg connection under ``tx``; what is done on it belongs to the same transaction."""
    raw: psycopg.Connection[Any] = tx.connection.driver_connection  # type: ignore[assignment]
    return raw


def insert_new(
    tx: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]], returning: Sequence[str], wake: str = ""
) -> list[tuple[Any, ...]]:
    """Insert the rows that are new, in the order given; those that meet a unique key are left out.

    All rows have the same columns. Returns the ``returning`` columns of the rows that were inserted. The
    identity column of ``table`` follows the order of ``rows``. ``wake``: the channel on which the commit tells that
    there are new ones (PostgreSQL tells it once, however many rows say so).
    """
    found = _write(tx, table, rows, "DO NOTHING", tuple(returning), wake)
    return [row[: len(returning)] for row in found] if wake else found


def upsert(tx: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert or overwrite rows by primary key. ``rows`` must not hold the same key twice."""
    keys = [c.name for c in table.primary_key]
    names = tuple(rows[0]) if rows else ()
    sets = ", ".join(f'"{n}" = excluded."{n}"' for n in names if n not in keys)
    target = ", ".join(f'"{k}"' for k in keys)
    _write(tx, table, rows, f"({target}) DO UPDATE SET {sets}" if sets else "DO NOTHING", ())


def update(tx: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Overwrite columns of rows that exist, by primary key."""
    if rows:
        driver(tx).execute(_updating(table, tuple(rows[0])), _columns(table, rows))


def take(tx: sa.Connection, table: sa.Table, column: str, most: int) -> list[Any]:
    """Delete ``most`` rows that nobody else is taking, or what there is; their values of ``column``."""
    return list(tx.execute(_taking(table, column), {"most": most}).scalars())


@cache
def _taking(table: sa.Table, column: str) -> sa.TextClause:
    rows = f"SELECT ctid FROM {table.name} LIMIT :most FOR UPDATE SKIP LOCKED"
    return sa.text(f"DELETE FROM {table.name} WHERE ctid = ANY(ARRAY({rows})) RETURNING {column}")


def _write(
    tx: sa.Connection,
    table: sa.Table,
    rows: Sequence[Mapping[str, Any]],
    on_conflict: str,
    returning: tuple[str, ...],
    wake: str = "",
) -> list[tuple[Any, ...]]:
    if not rows:
        return []
    with driver(tx).cursor() as cursor:
        cursor.execute(_statement(table, tuple(rows[0]), on_conflict, returning, wake), _columns(table, rows))
        return cursor.fetchall() if returning else []


def _columns(table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    return [_column(table.c[n], [row[n] for row in rows]) for n in rows[0]]


def _column(column: sa.Column[Any], values: list[Any]) -> list[Any]:
    if isinstance(column.type, JSONB):
        return [json.encode(v).decode() for v in values]
    return values


@lru_cache(maxsize=256)
def _statement(
    table: sa.Table, names: tuple[str, ...], on_conflict: str, returning: tuple[str, ...], wake: str
) -> bytes:
    into = ", ".join(f'"{n}"' for n in names)
    arrays = ", ".join(f"%b::{_array(table.c[n])}" for n in names)
    select = ", ".join(f's."{n}"' + ("::jsonb" if isinstance(table.c[n].type, JSONB) else "") for n in names)
    told = [*(f'"{n}"' for n in returning), *([f"pg_notify('{wake}', '')"] if wake else [])]
    back = " RETURNING " + ", ".join(told) if told else ""
    return (
        f'INSERT INTO "{table.name}" ({into}) SELECT {select} FROM unnest({arrays}) WITH ORDINALITY '
        f"AS s({into}, place) ORDER BY s.place ON CONFLICT {on_conflict}{back}"
    ).encode()


@lru_cache(maxsize=256)
def _updating(table: sa.Table, names: tuple[str, ...]) -> bytes:
    keys = [c.name for c in table.primary_key]
    into, arrays = ", ".join(f'"{n}"' for n in names), ", ".join(f"%b::{_array(table.c[n])}" for n in names)
    values = {n: f's."{n}"' + ("::jsonb" if isinstance(table.c[n].type, JSONB) else "") for n in names}
    sets = ", ".join(f'"{n}" = {value}' for n, value in values.items() if n not in keys)
    same = " AND ".join(f't."{k}" = s."{k}"' for k in keys)
    return f'UPDATE "{table.name}" t SET {sets} FROM unnest({arrays}) AS s({into}) WHERE {same}'.encode()


def _array(column: sa.Column[Any]) -> str:
    for kind, array in _ARRAYS:
        if isinstance(column.type, kind):
            return array
    raise TypeError(f"no array type for column {column.name}")
