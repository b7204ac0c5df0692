"""Groups of cases in the database: which case belongs to which, and their states, derived by the timer alone.

Members are different keys, so they lie in different partitions, which other workers may hold. A group is therefore
derived only up to the lowest horizon of its members' partitions (``cursor.horizon``, written by whoever holds the
partition), under its advisory lock and its members' row locks, from their stored events. Whoever derives it, and in
which order the members came, it is the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import sqlalchemy as sa
import structlog

from schemas.topics import ALERT, CASE
from streams.rules import groups
from streams.rules.groups import GroupState
from streams.rules.judge import Decision, alert_record
from streams.rules.lifecycle import CaseEvent
from streams.rules.state import CaseState, Spoken
from streams.store import bulk, cards, references
from streams.store.failure import place
from streams.store.projection import Said
from streams.store.steps import say
from streams.store.tables import case_group, group_state
from streams.store.unfit import together

log = structlog.get_logger(__name__)
BLOCK = 500
"""Groups that one call of ``tick`` derives at most."""


def touched(tx: sa.Connection, cases: Iterable[tuple[int, CaseState]]) -> None:
    """Note the groups of these cases (partition, state) as stale; call it after the cases are stored."""
    rows = {
        (key, state.case_no): {"group_key": key, "case_no": state.case_no, "partition": partition, "stale": True}
        for partition, state in cases
        for key in groups.keys(state.events)
    }
    bulk.upsert(tx, case_group, [rows[key] for key in sorted(rows)])


def tick(
    tx: sa.Connection,
    processor: str,
    reader: references.ReferenceReader,
    epochs: Mapping[str, int],
    partition: int,
    horizon: int,
) -> bool:
    """Derive the groups with a member in ``partition``, known up to ``horizon``; True if a full block was due."""
    asked = {"processor": processor, "topic": CASE.name, "partition": partition, "horizon": horizon}
    if not tx.execute(_ANY_DUE, asked).scalar_one():
        return False
    tx.execute(_KNOWN, asked)
    found = list(tx.execute(_DUE, {**asked, "block": BLOCK}).scalars())
    mine = sorted(tx.execute(_LOCK, {"keys": found}).scalars())
    _derive(tx, reader, epochs, _members(tx, processor, mine))
    return len(mine) == BLOCK


def events(tx: sa.Connection, keys: Sequence[str]) -> dict[str, dict[str, tuple[CaseEvent, ...]]]:
    """The events of every member as they are stored, by group and case; to read, under no lock."""
    found: dict[str, dict[str, tuple[CaseEvent, ...]]] = {}
    for row in tx.execute(_EVENTS, {"keys": list(keys)}):
        found.setdefault(row.group_key, {})[row.case_no] = CaseState.load(row.case_no, row.folded, None, {}).events
    return found


class _Members:
    """A group's members, and up to when all their partitions are known (epoch ms; 0: one is not)."""

    def __init__(self) -> None:
        self.cases: list[str] = []
        self.horizon = 1 << 62

    def add(self, case_no: str, horizon: int) -> None:
        self.cases.append(case_no)
        self.horizon = min(self.horizon, horizon)


def _members(tx: sa.Connection, processor: str, keys: Sequence[str]) -> dict[str, _Members]:
    """The members of the groups ``keys``, locked, so that none changes before the group is written. Horizons are
    read first: what lies below them was committed before.
    """
    rows = tx.execute(_HORIZONS, {"processor": processor, "topic": CASE.name})
    known: dict[int, int] = {row.partition: row.horizon for row in rows}
    found: dict[str, _Members] = {}
    for key, case_no, partition in tx.execute(_MEMBERS, {"keys": list(keys)}):
        found.setdefault(key, _Members()).add(case_no, known.get(partition, 0))
    return {key: members for key, members in found.items() if members.horizon}


def _derive(
    tx: sa.Connection,
    reader: references.ReferenceReader,
    epochs: Mapping[str, int],
    members: Mapping[str, _Members],
) -> None:
    if not members:
        return
    cases = _cases(tx, sorted({case_no for m in members.values() for case_no in m.cases}))
    known = reader.read(tx, epochs, {e.item_code for case in cases.values() for e in case.events})
    spoken, latest = cards.spoken(tx, list(members)), cards.latest(tx, list(members))
    derived: list[tuple[GroupState, tuple[Decision, ...]]] = []
    unfit: dict[str, Exception] = {}
    for key, group in members.items():
        events = {no: cases[no].events for no in group.cases if no in cases}
        horizon = max(group.horizon, latest.get(key, 0))
        try:
            derived.append(groups.derive(key, events, known, horizon, spoken.get(key, {})))
        except Exception as error:  # one group holds up no other (docs/decisions/0015)
            unfit[key] = error
    unwritten = together(tx, partial(_write, tx), derived)
    _let_be(tx, unfit | {state.key: error for (state, _), error in unwritten})
    pairs = [(key, case_no) for key, group in members.items() for case_no in group.cases]
    tx.execute(_FRESH, {"keys": [key for key, _ in pairs], "cases": [case_no for _, case_no in pairs]})


def _let_be(tx: sa.Connection, unfit: Mapping[str, Exception]) -> None:
    for key, error in unfit.items():
        log.error("a rule failed at a due time; the group waits for news", group=key, where=place(error))
    if unfit:
        tx.execute(_LET_BE, {"keys": list(unfit)})


def _cases(tx: sa.Connection, numbers: list[str]) -> dict[str, CaseState]:
    rows = tx.execute(_CASES, {"cases": numbers})
    return {row.case_no: CaseState.load(row.case_no, row.folded, None, {}) for row in rows}


def _write(tx: sa.Connection, derived: Sequence[tuple[GroupState, tuple[Decision, ...]]]) -> None:
    states = [state for state, _ in derived]
    bulk.upsert(tx, group_state, [_row(state) for state in states])
    rows = [row for state in states for row in cards.rows(state.key, state, "", state.alerts)]
    cards.replace(tx, [state.key for state in states], rows)
    said: list[Said] = []
    told: dict[tuple[str, str], Spoken] = {}
    for state, decisions in derived:
        said += [Said(ALERT, alert_record(state.key, decision)) for decision in decisions]
        told |= {(state.key, d.alert.alert_id): state.spoken[d.alert.alert_id] for d in decisions}
    cards.remember(tx, told)
    say(tx, said)


def _row(state: GroupState) -> dict[str, Any]:
    return {
        "group_key": state.key,
        "region": state.region,
        "department": state.department,
        "stage": state.stage,
        "limit_rule": state.limit_rule,
        "accepted_at": state.accepted_at,
        "due_at": state.due_at,
        "yellow_at": state.yellow_at,
        "ended_at": state.ended_at,
        "on_time": state.on_time,
        "provisional": state.provisional,
        "used_minutes": state.used_minutes,
        "calendar_version": state.calendar_version,
        "parts": state.dump(),
        "next_check_at": state.next_check_at,
    }


PARTITIONS_DUE = (
    "SELECT partition FROM case_group WHERE group_key IN (SELECT group_key FROM case_group WHERE stale "
    "UNION SELECT group_key FROM group_state WHERE next_check_at <= :until)"
)
"""The partitions of the members of all groups that have something to derive up to ``until`` (epoch ms)."""
_CANDIDATES = (
    "SELECT g.group_key FROM case_group g WHERE g.partition = :partition AND g.group_key IN (SELECT group_key "
    "FROM case_group WHERE stale UNION SELECT group_key FROM group_state WHERE next_check_at <= :horizon)"
)
_ANY_DUE = sa.text(f"SELECT EXISTS ({_CANDIDATES})")
_UNSENT = "SELECT FROM outbox o WHERE o.topic = :topic AND o.key = m.case_no AND o.sent_at IS NULL"
_DUE = sa.text(  # a member's event that is published and not sent is still to come: silence until it is known
    "SELECT m.group_key FROM case_group m LEFT JOIN group_state s ON s.group_key = m.group_key "
    "LEFT JOIN cursor c ON c.processor = :processor AND c.topic = :topic AND c.partition = m.partition "
    f"WHERE m.group_key IN ({_CANDIDATES}) GROUP BY m.group_key "
    "HAVING min(coalesce(c.horizon, 0)) > 0 AND (bool_or(m.stale) OR min(c.horizon) >= min(s.next_check_at)) "
    f"AND NOT bool_or(EXISTS ({_UNSENT})) ORDER BY m.group_key LIMIT :block"
)
_KNOWN = sa.text(
    "UPDATE cursor SET horizon = greatest(horizon, :horizon) "
    "WHERE processor = :processor AND topic = :topic AND partition = :partition"
)
_LOCK = sa.text(  # who finds it taken leaves the group to the other worker, and looks again at the next tick
    "SELECT k FROM unnest(CAST(:keys AS text[])) AS k "
    "WHERE pg_try_advisory_xact_lock(hashtext('group_state'), hashtext(k))"
)
_HORIZONS = sa.text("SELECT partition, horizon FROM cursor WHERE processor = :processor AND topic = :topic")
_MEMBERS = sa.text(
    "SELECT group_key, case_no, partition FROM case_group WHERE group_key = ANY(:keys) "
    "ORDER BY group_key, case_no FOR UPDATE"
)
_EVENTS = sa.text(
    "SELECT g.group_key, g.case_no, h.folded::text FROM case_group g JOIN case_history h ON h.case_no = g.case_no "
    "WHERE g.group_key = ANY(:keys)"
)
_CASES = sa.text("SELECT case_no, folded::text FROM case_history WHERE case_no = ANY(:cases)")
_LET_BE = sa.text("UPDATE group_state SET next_check_at = NULL WHERE group_key = ANY(:keys)")
_FRESH = sa.text(  # those that were read, and no other: a member may have joined since
    "UPDATE case_group g SET stale = false FROM unnest(CAST(:keys AS text[]), CAST(:cases AS text[])) AS t(k, c) "
    "WHERE g.group_key = t.k AND g.case_no = t.c AND g.stale"
)
