"""Who is told of an alert: rows of the queue ``delivery``, made in the transaction that moves the cursor.

Decides which subscriber wants which alert and from when on; sends nothing. The same statement is queued once a channel.
Whoever heard of an alert hears all that is said of it after, or it would stand there for ever; the decision on its
appeal too, which is an alert of its own in a partition of its own, and waits here for those who did not hear yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from consumers.alerts.quiet import Quiet
from schemas.clock import wall_clock
from schemas.topics import ALERT, Topic
from streams.store import bulk
from streams.store.projection import Event
from streams.store.tables import delivery

DIGEST = "digest"
RULING = "RULING"
"""Kind (govbus.alert-kind) of an appeal's decision; its first evidence is the alert that was appealed against."""
UNHEARD = 2**62
"""``not_before`` (epoch ms) of what is kept for a channel that has not heard of the alert that it is about."""


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
        alerts = sorted({event.record["alert_id"] for event in events})
        heard = {(channel, alert) for channel, alert in tx.execute(_HEARD, {"alerts": alerts})}
        now = self._clock()
        bulk.insert_new(tx, delivery, list(self._rows(events, now, heard)), ())
        tx.execute(_HEARD_NOW, {"channels": [channel.channel for channel in self._channels], "now": now})

    def _rows(self, events: Sequence[Event], now: int, heard: set[tuple[str, str]]) -> Iterable[dict[str, Any]]:
        for event in events:
            alert, young = event.record["alert_id"], now - event.record["received_at"] <= self._max_age_ms
            for channel in self._channels:
                if (channel.channel, alert) in heard or (young and channel.wants(event.record)):
                    heard.add((channel.channel, alert))
                    yield self._row(channel.channel, event, now)
                elif event.record["kind_code"] == RULING:
                    yield self._row(channel.channel, event, now) | {"not_before": UNHEARD}

    def _row(self, channel: str, event: Event, now: int) -> dict[str, Any]:
        held = now if channel == DIGEST else self._quiet.alert_until(event.record["colour_code"], now)
        return {
            "channel": channel,
            "event_id": event.event_id,
            "case_no": event.record["case_no"],
            "body": dict(event.record),
            "queued_at": now,
            "not_before": held,
        }


_HEARD = sa.text(
    "SELECT DISTINCT channel, body->>'alert_id' FROM delivery WHERE body->>'alert_id' = ANY(CAST(:alerts AS text[])) "
    f"AND not_before < {UNHEARD}"
)
_HEARD_NOW = sa.text(
    "UPDATE delivery AS ruling SET not_before = :now FROM delivery AS heard "
    "WHERE ruling.channel = ANY(CAST(:channels AS text[])) AND ruling.done_at IS NULL AND ruling.dead_at IS NULL "
    f"AND ruling.not_before = {UNHEARD} AND heard.channel = ruling.channel AND heard.not_before < {UNHEARD} "
    "AND heard.body->>'alert_id' = ruling.body->'evidence'->>0"
)
