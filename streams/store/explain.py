"""Reads what is needed to explain the clocks of one case or group, and what a joint application consists of. Writes
nothing, decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from schemas.errors import Fault, Rejected
from streams.rules import groups, redating
from streams.rules.calendar import DAY_MINUTES, DISTRICT_DIGITS, Calendar, minute_of
from streams.rules.clocks import Line
from streams.rules.groups import Planned
from streams.rules.judge import References
from streams.rules.limits import implementing
from streams.rules.state import CaseState
from streams.store import groups as stored
from streams.store import references
from streams.store.tables import card, case_history, case_state, group_state

FAR = 1 << 62


@dataclass(frozen=True, slots=True)
class Explained:
    """One row of ``case_state`` or ``group_state``, its clocks, the calendar they count by, and its cards; ``planned``:
    what of a joint application was not applied for yet.
    """

    row: Mapping[str, Any]
    lines: tuple[Line, ...]
    calendar: Calendar
    cards: tuple[Mapping[str, Any], ...]
    planned: tuple[Planned, ...] = ()


def case(tx: sa.Connection, case_no: str) -> Explained:
    """A case by all that is known of it; raises ``Rejected`` if nothing is."""
    text = sa.cast(case_history.c.folded, sa.Text).label("text")
    both = sa.select(case_state, text).join(case_history, case_history.c.case_no == case_state.c.case_no)
    row = tx.execute(both.where(case_state.c.case_no == case_no)).mappings().first()
    if row is None:
        raise Rejected(Fault("unknown_code", "case", "no event of this case was applied", "check its number"))
    events = CaseState.load(case_no, row["text"], None, {}).events
    known = _references(tx, {e.item_code for e in events})
    calendar = known.calendars.known_at(FAR, events[0].region)
    lines = redating.explained(events, row["accepted_at"] is not None, calendar, known)[1]
    return Explained(dict(row), lines, calendar, _cards(tx, case_no))


def group(tx: sa.Connection, key: str) -> Explained:
    """A project or joint application by all that is known of its members; raises ``Rejected`` if nothing is."""
    row = tx.execute(sa.select(group_state).where(group_state.c.group_key == key)).mappings().first()
    if row is None:
        mend = "write project/<region>/<investment project code> or bundle/<region>/<bundle_no>"
        raise Rejected(Fault("unknown_code", "group", "no case of this group was applied", mend))
    members = stored.events(tx, [key]).get(key, {})
    known = _references(tx, {e.item_code for events in members.values() for e in events})
    found = groups.explained(key, members, known, FAR)
    calendar = known.calendars.known_at(FAR, row["region"])
    lines = () if found is None else (found[0],)
    return Explained(dict(row), lines, calendar, _cards(tx, key), _to_come(tx, row["region"], members))


def plan(tx: sa.Connection, region: str, code: str, day: int) -> tuple[Planned, ...]:
    """What a joint application of that ``bundle_code`` consists of in ``region`` (6 digits), by the items in force on
    ``day`` (local day number); nothing if no item says that it is a part of one.
    """
    items: dict[str, list[Mapping[str, Any]]] = {}
    for row in tx.execute(_ITEMS_OF, {"region": region, "code": code}):
        items.setdefault(row.item_code, []).append(row.body)
    return groups.plan(code, items, day)


_ITEMS_OF = sa.text(
    "SELECT item_code, body FROM item_event WHERE item_code IN (SELECT item_code FROM item_event WHERE "
    f"left(region, {DISTRICT_DIGITS}) = :region "
    "AND body @> jsonb_build_object('bundle_codes', jsonb_build_array(CAST(:code AS text)))) "
    "ORDER BY received_at, event_id"
)


def _to_come(tx: sa.Connection, region: str, members: groups.Members) -> tuple[Planned, ...]:
    """The parts that no member is a case of, by the items in force when the first one was applied for."""
    events = [e for member in members.values() for e in member]
    begun = {code for e in events for code in (e.item_code, implementing(e.item_code))}
    day = minute_of(min((e.occurred_at for e in events), default=0)) // DAY_MINUTES
    codes = sorted({e.bundle_code for e in events if e.bundle_code})
    return tuple(p for code in codes for p in plan(tx, region, code, day) if p.item_code not in begun)


def _references(tx: sa.Connection, item_codes: set[str]) -> References:
    return references.ReferenceReader().read(tx, references.held(tx), item_codes)


def _cards(tx: sa.Connection, owner: str) -> tuple[Mapping[str, Any], ...]:
    query = sa.select(card).where(card.c.case_no == owner).order_by(card.c.issued_at, card.c.alert_id)
    return tuple(dict(row) for row in tx.execute(query).mappings())
