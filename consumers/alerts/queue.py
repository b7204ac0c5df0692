"""Who is told of an alert: rows of the queue ``delivery``, made in the transaction that moves the cursor.

Decides which subscriber wants which alert and from when on; sends nothing. The same statement is queued once a channel.
Whoever heard of an alert hears all that is said of it after, or it would stand there for ever; the decision on its
appeal too, which is an alert of its own in a partition of its own: it is kept for who hears of the appealed one later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import sqlalchemy as sa
import structlog

from consumers.alerts.quiet import Quiet
from schemas.clock import wall_clock
from schemas.topics import ALERT, Topic
from streams.store import bulk
from streams.store.projection import Event
from streams.store.tables import delivery, ruling

log = structlog.get_logger(__name__)
Heard = tuple[str, str]
"""A channel and the id of an alert of which something was queued for it."""
DIGEST = "digest"
RULING = "RULING"
"""Kind (govbus.alert-kind) of an appeal's decision; its first evidence is the alert that was appealed against."""
LOCK = 1_130_400_431
"""PostgreSQL advisory lock: two that queue at once would not see what the other lets a channel hear of."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a channel wants to hear; empty: everything."""

    channel: str
    kinds: frozenset[str] = frozenset()
    colours: frozenset[str] = frozenset()
    departments: frozenset[str] = frozenset()

    def wants(self, record: Mapping[str, Any]) -> bool:
        """Whether a record of ``oversight.alert.v1`` is for this channel."""
        pairs = ((self.kinds, "kind_code"), (self.colours, "colour_code"), (self.departments, "department"))
        return all(not wanted or record[name] in wanted for wanted, name in pairs)


class Queue:
    """Effect of ``oversight.alert.v1``: one row a statement and channel that wants it, unless it is older than
    ``max_age_ms``; and one for each channel that heard of its alert before.
    """

    name = "delivery"
    topics: tuple[Topic, ...] = (ALERT,)
    patience_ms = 100

    def __init__(
        self, channels: Sequence[Subscription], quiet: Quiet, max_age_ms: int, clock: Callable[[], int] = wall_clock
    ) -> None:
        self._channels, self._quiet, self._max_age_ms, self._clock = channels, quiet, max_age_ms, clock

    def apply(self, tx: sa.Connection, events: Sequence[Event]) -> None:
        """Queue ``events``."""
        if not events:
            return
        tx.execute(_ALONE)
        bulk.insert_new(tx, ruling, [row for event in events for row in _kept(event)], ())
        alerts = sorted({alert for event in events for alert in _about(event.record)})
        before = {(channel, alert) for channel, alert in tx.execute(_HEARD, {"alerts": alerts})}
        heard, now = set(before), self._clock()
        rows = list(self._rows(events, now, heard))
        rows += self._decided(tx, heard - before, now)
        bulk.insert_new(tx, delivery, rows, ())

    def _rows(self, events: Sequence[Event], now: int, heard: set[Heard]) -> Iterable[dict[str, Any]]:
        too_old = 0
        for event in events:
            record = event.record
            young = now - record["received_at"] <= self._max_age_ms
            hear = [c for c in self._channels if any((c.channel, alert) in heard for alert in _about(record))]
            want = [c for c in self._channels if c not in hear and c.wants(record)]
            too_old += bool(want) and not young
            for channel in (*hear, *(want if young else ())):
                heard.add((channel.channel, record["alert_id"]))
                yield self._row(channel.channel, event.event_id, record, now)
        if too_old:  # nobody would miss them: they have no row
            log.warning("delivery.too_old", statements=too_old, hours=round(self._max_age_ms / 3_600_000, 1),
                        mend="GOVBUS_DELIVERY_MAX_AGE_HOURS; govbus alerts list")  # fmt: skip

    def _decided(self, tx: sa.Connection, first: set[Heard], now: int) -> Iterable[dict[str, Any]]:
        """What appeals decided of alerts that a channel hears of for the first time."""
        if not first:
            return
        channels: dict[str, list[str]] = {}
        for channel, alert in sorted(first):
            channels.setdefault(alert, []).append(channel)
        for event_id, about, body in tx.execute(_DECIDED, {"alerts": list(channels)}):
            yield from (self._row(channel, event_id, body, now) for channel in channels[about])

    def _row(self, channel: str, event_id: UUID, record: Mapping[str, Any], now: int) -> dict[str, Any]:
        held = now if channel == DIGEST else self._quiet.alert_until(record["colour_code"], now)
        return {
            "channel": channel,
            "event_id": event_id,
            "case_no": record["case_no"],
            "body": dict(record),
            "queued_at": now,
            "not_before": held,
        }


def _about(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The alert; of an appeal's decision also the one that was appealed against."""
    return (record["alert_id"], *(record["evidence"][:1] if record["kind_code"] == RULING else ()))


def _kept(event: Event) -> Iterable[dict[str, Any]]:
    for about in _about(event.record)[1:]:
        yield {"event_id": event.event_id, "about": about, "body": dict(event.record)}


_ALONE = sa.select(sa.func.pg_advisory_xact_lock(LOCK))
_HEARD = sa.text(
    "SELECT DISTINCT channel, body->>'alert_id' FROM delivery WHERE body->>'alert_id' = ANY(CAST(:alerts AS text[]))"
)
_DECIDED = sa.select(ruling).where(bulk.any_of(ruling.c.about, "alerts")).order_by(ruling.c.about, ruling.c.event_id)
