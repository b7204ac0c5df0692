"""Which ratings do not count: those of void cases, and those that an appeal found mistaken or malicious (DOMAIN §5.8).

That a case is void is the judge's word, what an appeal decided the desk's, each in a transaction of its own and before
or after the ratings. Whoever changes either leaves news here, in the same transaction; so does the tally when it meets
a rating of a case of which something is out. ``streams.store.settling`` takes the news.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from streams.rules.tally import Assessment, Standing, Standings
from streams.store import bulk
from streams.store.tables import rating_out, rating_out_news

CASE: Assessment = ("", "", 0, 0)
"""Stands for the case itself: out if it is void."""
COUNTED = Standing()
BLOCK = 1_000


def judged(tx: sa.Connection, cases: Mapping[str, Standing]) -> None:
    """Note which cases have become void, or are so no more."""
    tx.execute(_JUDGED, [{"case_no": c, "out": cases[c].out, "known_at": cases[c].known_at} for c in sorted(cases)])
    look(tx, cases)


def noted(tx: sa.Connection, cases: list[str]) -> dict[str, Standing]:
    """What is noted of these cases themselves, which a rebuild leaves; of most of them nothing."""
    return {case_no: held[CASE] for case_no, held in of_cases(tx, cases).items() if CASE in held}


def look(tx: sa.Connection, cases: Collection[str]) -> None:
    """Have the ratings of these cases looked at."""
    bulk.insert_new(tx, rating_out_news, [{"case_no": case_no} for case_no in sorted(cases)], ())


def news(tx: sa.Connection) -> list[str]:
    """Some cases that must be looked at, no longer waiting."""
    return sorted(set(bulk.take(tx, rating_out_news, "case_no", BLOCK)))


def excluded(tx: sa.Connection, cases: list[str]) -> Sequence[sa.Row[Any]]:
    """``case_no``, ``alert_id`` and ``out_at`` (epoch ms) of the bad ratings that an appeal excluded, by alert id."""
    return tx.execute(_EXCLUDED, {"cases": cases}).all()


def of_cases(tx: sa.Connection, cases: str | Sequence[str]) -> dict[str, Standings]:
    """What is, or was, out of these cases (a list or a text[] literal); nearly always nothing."""
    if not tx.execute(_ANYTHING).scalar_one():  # to ask for ten thousands of cases takes some milliseconds
        return {}
    found: dict[str, dict[Assessment, Standing]] = {}
    for case_no, region, department, service_no, assess_no, *rest in bulk.driver(tx).execute(_OF_CASES, [cases]):
        found.setdefault(case_no, {})[region, department, service_no, assess_no] = Standing(*rest)
    return dict(found)


def keep(tx: sa.Connection, turned: Iterable[tuple[str, Assessment, Standing]]) -> None:
    """Store what was turned, case by case."""
    rows = [
        {**dict(zip(_KEY, (case_no, *key), strict=True)), "out": s.out, "changes": s.changes, "known_at": s.known_at}
        for case_no, key, s in turned
    ]
    bulk.upsert(tx, rating_out, rows)


_KEY = ("case_no", "region", "department", "service_no", "assess_no")
_ANYTHING = sa.text("SELECT EXISTS (SELECT FROM rating_out)")
_OF_CASES = f"""SELECT {", ".join(_KEY)}, "out", changes, known_at
FROM unnest(%s::text[]) AS asked(case_no) JOIN rating_out USING (case_no)""".encode()
_JUDGED = sa.text(
    f"""INSERT INTO rating_out AS o ({", ".join(_KEY)}, "out", changes, known_at) """
    "VALUES (:case_no, '', '', 0, 0, :out, 1, :known_at) "
    f"ON CONFLICT ({', '.join(_KEY)}) DO UPDATE "
    'SET "out" = excluded."out", changes = o.changes + 1, known_at = excluded.known_at '
    'WHERE o."out" <> excluded."out"'
)
_EXCLUDED = sa.text(
    "SELECT case_no, alert_id, out_at FROM alert_life WHERE case_no = ANY(:cases) AND kind = 'BAD_RATING' "
    "AND out_reason = 'appeal_upheld' ORDER BY alert_id"
)
