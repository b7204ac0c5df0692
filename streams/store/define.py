"""Stores service items' versions, marks the cases that are judged by them, and tells where their copies differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from schemas.topics import ALERT, ITEM
from streams.rules import define
from streams.rules.judge import About, alert_record, differences, remember
from streams.rules.state import Spoken
from streams.store import cards, references, sets
from streams.store.projection import Carried, Event, Refused, Said
from streams.store.steps import bury, decode_rows, keep_new, say
from streams.store.tables import item_event


class DefineProjection:
    """``service.item.v1`` to ``item_event``, and findings to ``card``."""

    name = "define"
    topic = ITEM

    def apply(self, tx: sa.Connection, carried: Sequence[Carried]) -> None:
        """Keep new versions; cases of these items are due for a check at once. A version that no case may be judged
        by is refused.
        """
        events, refused = decode_rows(carried)
        unsound = [Refused(e.carried, fault, e) for e in events if (fault := define.fault(e.record))]
        bury(tx, [*refused, *unsound])
        bad = {id(r.event) for r in unsound}
        sound = [e for e in events if id(e) not in bad]
        if sound:
            references.changed(tx, references.ITEM)
        new = keep_new(tx, item_event, sound, _columns)
        references.judge_items_again(tx, define.concern(e.record for e in new))
        _compare(tx, new)


def _columns(event: Event) -> dict[str, Any]:
    record = event.record
    return {
        "item_code": record["item_code"],
        "item_version": record["item_version"],
        "body": sets.body(event),
    }


def _compare(tx: sa.Connection, new: Sequence[Event]) -> None:
    """Derive the findings about the items whose copies are told, or were found to differ before."""
    codes = {e.record["item_code"] for e in new}
    spoken = cards.spoken(tx, [define.owner(code) for code in sorted(codes)]) if codes else {}
    told = {e.record["item_code"] for e in new if e.record["elements"]}
    told |= {code for code in codes if define.owner(code) in spoken}
    if told:
        for code, events in sorted(sets.stored(tx, item_event, "item_code", told).items()):
            _tell(tx, code, events, spoken.get(define.owner(code), {}))


def _tell(tx: sa.Connection, code: str, events: Sequence[sets.Body], spoken: Mapping[str, Spoken]) -> None:
    latest = max(events, key=lambda e: (e["received_at"], e["event_id"]))
    about = About(latest["region"], latest["department"], code, latest["received_at"])
    found = define.findings(code, events)
    owner = define.owner(code)
    cards.replace(tx, [owner], cards.rows(owner, about, code, found))
    decisions = tuple(differences(spoken, found, about, latest["received_at"]))
    after = remember(spoken, decisions)
    cards.remember(tx, {(owner, d.alert.alert_id): after[d.alert.alert_id] for d in decisions})
    say(tx, [Said(ALERT, alert_record(owner, decision)) for decision in decisions])
