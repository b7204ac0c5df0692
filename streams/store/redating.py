"""Reads what a published calendar did: the clocks it moved, the cards it took back and brought, what is still to be
judged. Writes nothing, and holds up nobody: ``tx`` must be one snapshot (REPEATABLE READ).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from schemas.errors import Fault, Rejected
from streams.rules.calendar import NATION, Publication
from streams.rules.redating import Redated, group_redated, redated
from streams.rules.schedule import Concern, concern
from streams.rules.state import CaseState
from streams.store import groups, references

BLOCK = 2_000


def published(tx: sa.Connection, version: str, region: str = NATION) -> tuple[Publication, Concern]:
    """The calendar of that version and whom it concerned when it came; raises ``Rejected`` if none was published."""
    known = references.publications(tx)
    found = next((p for p in known if (p.version, p.region) == (version, region)), None)
    if found is None:
        names = ", ".join(sorted(p.version for p in known if p.region == region)) or "none"
        raise Rejected(Fault("unknown_code", "version", f"region {region} has no such calendar", f"there are {names}"))
    return found, concern(found, [p for p in known if p.received_at <= found.received_at])


def concerned(tx: sa.Connection, whom: Concern) -> int:
    """How many cases and groups may have been moved."""
    return int(tx.execute(_CONCERNED, references.asked(whom)).scalar_one())


def pending(tx: sa.Connection) -> int:
    """Cases and groups that wait to be judged again because references changed."""
    return int(tx.execute(_PENDING).scalar_one())


def moved(tx: sa.Connection, calendar: Publication, whom: Concern) -> Iterator[tuple[int, list[Redated]]]:
    """The clocks that ``calendar`` moved, block by block, with the number of cases looked at, by case number."""
    reader, last = references.ReferenceReader(), ""
    epochs = references.epochs(tx)
    while rows := tx.execute(_CASES, {**references.asked(whom), "after": last, "block": BLOCK}).all():
        last = rows[-1].case_no
        events = [CaseState.load(row.case_no, row.folded, None, {}).events for row in rows]
        known = reader.read(tx, epochs, {e.item_code for told in events for e in told})
        at = calendar.received_at
        found = [r for row, told in zip(rows, events, strict=True)
                 for r in redated(row.case_no, told, row.accepted_at is not None, known, at)]  # fmt: skip
        yield len(rows), found


def moved_groups(tx: sa.Connection, calendar: Publication, whom: Concern) -> Iterator[tuple[int, list[Redated]]]:
    """The clocks of groups that ``calendar`` moved, block by block, with the number of groups looked at, by key."""
    reader, last = references.ReferenceReader(), ""
    epochs = references.epochs(tx)
    while rows := tx.execute(_GROUPS, {**references.asked(whom), "after": last, "block": BLOCK}).all():
        last = rows[-1].group_key
        members = groups.events(tx, [row.group_key for row in rows])
        codes = {e.item_code for group in members.values() for events in group.values() for e in events}
        known = reader.read(tx, epochs, codes)
        found = [group_redated(row.group_key, row.department, members.get(row.group_key, {}), known,
                               calendar.received_at) for row in rows]  # fmt: skip
        yield len(rows), [r for r in found if r is not None]


def cards(tx: sa.Connection, calendar: Publication) -> list[dict[str, Any]]:
    """The cards that ``calendar`` took back, and those that it brought at the moment it was known."""
    return [dict(row._mapping) for row in tx.execute(_CARDS, {"at": calendar.received_at})]


_CONCERNED = sa.text(
    f"SELECT (SELECT count(*) FROM case_state WHERE {references.WHOM}) + "
    f"(SELECT count(*) FROM group_state WHERE {references.REGION})"
)
_CASES = sa.text(
    "SELECT case_no, accepted_at, folded::text FROM case_state JOIN case_history USING (case_no) "
    f"WHERE {references.WHOM} AND case_no > :after ORDER BY case_no LIMIT :block"
)
_GROUPS = sa.text(
    f"SELECT group_key, department FROM group_state WHERE {references.REGION} AND group_key > :after "
    "ORDER BY group_key LIMIT :block"
)
_PENDING = sa.text(
    "SELECT (SELECT count(*) FROM case_state WHERE next_check_at <= 0) + "
    "(SELECT count(*) FROM group_state WHERE next_check_at = 0)"
)
_CARDS = sa.text(
    "SELECT case_no, department, colour, rule_id, calendar_version, due_at, issued_at, revoked_at, revoked_reason "
    "FROM card WHERE kind = 'CARD' AND ((revoked_reason = 'calendar_revised' AND revoked_at = :at) OR issued_at = :at) "
    "ORDER BY case_no, issued_at, rule_id"
)
