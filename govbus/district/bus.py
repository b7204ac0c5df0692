"""What a running bus shows from outside: counts, what is unsettled, latencies. Only reads."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from consumers.loop import reader
from govbus.behind import gaps, lag, lost
from govbus.district.generator import SPAN

PUBLISHED_SQL = "SELECT topic, count(*), count(*) FILTER (WHERE sent_at IS NULL) FROM outbox GROUP BY topic"
CARDS_SQL = """SELECT colour || CASE WHEN revoked_at IS NULL THEN '' ELSE ' revoked' END, count(*)
               FROM card WHERE kind = 'CARD' GROUP BY 1 ORDER BY 1"""
BAD_SQL = "SELECT count(*) FROM alert_inbox WHERE kind = 'BAD_RATING'"
DEAD_SQL = "SELECT reason, count(*) FROM dead_letter GROUP BY reason ORDER BY reason"
DUE_SQL = """SELECT (SELECT count(*) FROM case_state WHERE next_check_at <= :end) +
                    (SELECT count(*) FROM group_state WHERE next_check_at <= :end) +
                    (SELECT count(*) FROM desk_check WHERE next_check_at <= :end) +
                    (SELECT count(*) FROM case_group WHERE stale) +
                    (SELECT count(*) FROM rating_claim_news) + (SELECT count(*) FROM rating_out_news)"""


@dataclass(frozen=True, slots=True)
class Look:
    """Figures of one moment."""

    published: dict[str, int]
    unsent: int
    cards: dict[str, int]
    bad: int
    dead: dict[str, int]


def look(engine: sa.Engine) -> Look:
    """The figures as they are now; a few milliseconds."""
    with engine.connect() as tx:
        rows = tx.execute(sa.text(PUBLISHED_SQL)).all()
        return Look(
            {topic: n for topic, n, _ in sorted(rows)},
            sum(unsent for *_, unsent in rows),
            {row[0]: row[1] for row in tx.execute(sa.text(CARDS_SQL))},
            int(tx.execute(sa.text(BAD_SQL)).scalar_one()),
            {row[0]: row[1] for row in tx.execute(sa.text(DEAD_SQL))},
        )


# --- settled? ---


class Settling:
    """Names what is not settled yet. Holds one Kafka consumer; use as a context manager."""

    def __init__(self, engine: sa.Engine, bootstrap: str) -> None:
        self._engine = engine
        self._consumer = reader(bootstrap)

    def __enter__(self) -> Settling:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def unsettled(self) -> list[str]:
        """What is still under way, in words; empty: all is settled."""
        from connectors.province.push import waiting

        with self._engine.connect() as tx:
            unsent = tx.execute(sa.text("SELECT count(*) FROM outbox WHERE sent_at IS NULL")).scalar_one()
            due = tx.execute(sa.text(DUE_SQL), {"end": SPAN.end}).scalar_one()
            dirty = _dirty(tx)
            unacknowledged = waiting(tx)
            open_ends = gaps(tx, self._consumer)
        found = [f"{line}: {n:,} records behind" for line, n in lag(open_ends).items()]
        found += [f"{line}: {n:,} records lost (govbus resend)" for line, n in lost(open_ends).items()]
        words = ((unsent, "events not yet sent"), (due, "cases, groups or alerts due for a look"),
                 (dirty, "rollups not yet said"),
                 (unacknowledged, "records not acknowledged by the province"))  # fmt: skip
        return [f"{n:,} {text}" for n, text in words if n] + found


def _dirty(tx: sa.Connection) -> int:
    """Changes of rollups that were not merged or not said yet."""
    query = "SELECT (SELECT count(*) FROM rollup_dirty) + (SELECT count(*) FROM rating_cell_change)"
    return int(tx.execute(sa.text(query)).scalar_one())


# --- latency ---


def percentile(values: Sequence[int], share: float) -> float | None:
    """The value below which ``share`` of ``values`` (sorted) lie; None without values."""
    if len(values) < 2:
        return float(values[0]) if values else None
    return round(statistics.quantiles(values, n=1000, method="inclusive")[int(share * 1000) - 1], 1)
