"""Cases and cards in the database: loads the touched cases, lets the rule judge them, writes what changed,
says it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any

import sqlalchemy as sa
import structlog

from schemas import codesets
from schemas.topics import ALERT, CASE
from streams.rules.judge import Decision, alert_record, fold
from streams.rules.lifecycle import VOID, CaseEvent, voids
from streams.rules.state import CaseState, Spoken
from streams.rules.tally import Standing
from streams.store import bulk, cards, claims, desk, frames, groups, references, standing
from streams.store.failure import place
from streams.store.projection import Carried, Event, Said
from streams.store.steps import bury, keep_new, say
from streams.store.tables import case_event, case_history, case_state
from streams.store.unfit import together

log = structlog.get_logger(__name__)
BLOCK = 500
"""Cases that one call of ``tick`` judges at most. A tick of a worker that has all twelve partitions is one transaction,
and while it lasts no event is applied: alerts wait for it.
"""


class JudgeProjection:
    """Processor ``judge`` of ``service.case.v1``: table ``case_event`` in, ``case_state``, ``card`` and
    alerts out.
    """

    name = "judge"
    topic = CASE

    def __init__(self) -> None:
        self._references = references.ReferenceReader()

    def apply(self, tx: sa.Connection, carried: Sequence[Carried]) -> None:
        """Fold ``carried`` into the cases; each case is judged up to its own newest knowledge, never
        further.
        """
        events, refused = frames.events(self.topic, carried)
        bury(tx, refused)
        epochs = references.held(tx)
        new = keep_new(tx, case_event, events, lambda e: {"case_no": e.record["case_no"]})
        if cases := _by_case(new):
            self._judge(tx, epochs, cases, tx.execute(_STATES, {"cases": list(cases)}).all(), 0)

    def due(self, tx: sa.Connection, until: int) -> set[int]:
        """The partitions that have cases to judge up to ``until`` (epoch ms). Locks nothing, so looking is cheap."""
        asked = {"processor": self.name, "topic": CASE.name, "until": until}
        return set(tx.execute(_PARTITIONS_DUE, asked).scalars())

    def tick(self, tx: sa.Connection, partition: int, horizon: int) -> bool:
        """Judge the cases of ``partition`` that fall due up to ``horizon`` (epoch ms), a block of them."""
        epochs = references.held(tx)
        asked = {"partition": partition, "horizon": horizon, "topic": CASE.name, "block": BLOCK}
        if due := sorted(tx.execute(_DUE, asked).all(), key=_case_no):  # two runs write in the same order
            unfit: dict[str, Exception] = {}

            def judge(some: Sequence[sa.Row[Any]]) -> None:
                unfit.update(self._judge(tx, epochs, {row.case_no: (partition, []) for row in some}, some, horizon))

            unwritten = together(tx, judge, due)
            _let_be(tx, unfit | {row.case_no: error for row, error in unwritten})
        more = groups.tick(tx, self.name, self._references, epochs, partition, horizon)
        return more or len(due) == BLOCK

    def _judge(
        self,
        tx: sa.Connection,
        epochs: Mapping[str, int],
        cases: Mapping[str, tuple[int, list[CaseEvent]]],
        stored: Sequence[sa.Row[Any]],
        horizon: int,
    ) -> dict[str, Exception]:
        """Judge ``cases``, each with its new events, and write what came of it. A case without new events at which the
        rule fails is left as it is, and named with its exception; with new events, the exception is the caller's.
        """
        unfit: dict[str, Exception] = {}
        states = _load(tx, list(cases), stored)
        codes = {e.item_code for _, events in cases.values() for e in events}
        codes.update(e.item_code for state in states.values() for e in state.events)
        known = replace(self._references.read(tx, epochs, codes), claims=claims.of_cases(tx, list(cases)))
        judged = _Judged(standing.noted(tx, list(cases)))
        for case_no, (partition, events) in cases.items():
            before = states.get(case_no) or CaseState(case_no, ())
            try:
                after, decisions = fold(before, events, known, horizon)
            except Exception as error:
                if events:
                    raise
                unfit[case_no] = error
            else:
                judged.add(partition, before, after, decisions)
        judged.write(tx)
        return unfit


def _let_be(tx: sa.Connection, unfit: Mapping[str, Exception]) -> None:
    """One case at which the rule fails stops no other's clock: it is due again when something new is known of it."""
    for case_no, error in unfit.items():
        log.error("a rule failed at a due time; the case waits for news", case_no=case_no, where=place(error))
        tx.execute(_LET_BE, {"case_no": case_no})


def _by_case(events: Sequence[Event]) -> dict[str, tuple[int, list[CaseEvent]]]:
    cases: dict[str, tuple[int, list[CaseEvent]]] = {}
    for event in events:
        case = cases.setdefault(event.record["case_no"], (event.carried.partition, []))
        case[1].append(CaseEvent.of(str(event.event_id), event.record))
    return cases


_case_no = attrgetter("case_no")
_PARTITIONS_DUE = sa.text(
    "SELECT partition FROM cursor AS at WHERE processor = :processor AND topic = :topic AND EXISTS "
    "(SELECT FROM case_state WHERE partition = at.partition AND next_check_at <= :until) "
    f"UNION {groups.PARTITIONS_DUE}"
)
_DUE = sa.text(
    "SELECT case_no, next_check_at, folded::text FROM case_state c JOIN case_history USING (case_no) "
    "WHERE partition = :partition AND next_check_at <= :horizon AND NOT EXISTS (SELECT FROM outbox o "
    "WHERE o.topic = :topic AND o.key = c.case_no AND o.sent_at IS NULL) "
    "ORDER BY next_check_at LIMIT :block"  # as the index has it: after a revised calendar, all of a partition are due
)
_LET_BE = sa.text("UPDATE case_state SET next_check_at = NULL WHERE case_no = :case_no")
_STATES = sa.text(
    "SELECT case_no, next_check_at, folded::text FROM case_state JOIN case_history USING (case_no) "
    "WHERE case_no = ANY(:cases)"
)


def _load(tx: sa.Connection, cases: list[str], rows: Sequence[sa.Row[Any]]) -> dict[str, CaseState]:
    spoken = cards.spoken(tx, cases)
    states = {
        row.case_no: CaseState.load(row.case_no, row.folded, row.next_check_at, spoken.get(row.case_no, {}))
        for row in rows
    }
    lost = spoken.keys() - states.keys()  # said before the state was emptied for a rebuild
    return states | {case_no: CaseState(case_no, (), spoken=spoken[case_no]) for case_no in lost}


def _turned_at(after: CaseState) -> int:
    """Since when it is known that a case is void, or that it is no more."""
    turned = after.known_at
    for known in range(len(after.events), 0, -1):
        if after.status != VOID or not voids(after.events[:known]):
            break
        turned = after.events[known - 1].known_at
    return turned


class _Judged:
    """What one transaction has to write, gathered case by case; ``noted``: which cases were said to be void."""

    def __init__(self, noted: Mapping[str, Standing]) -> None:
        self._noted = noted
        self._turned: dict[str, Standing] = {}
        self._states: list[dict[str, Any]] = []
        self._histories: list[dict[str, Any]] = []
        self._redated: list[dict[str, Any]] = []
        self._recarded: list[str] = []
        self._cards: list[dict[str, Any]] = []
        self._saids: list[Said] = []
        self._spoken: dict[tuple[str, str], Spoken] = {}
        self._told: list[tuple[int, CaseState]] = []

    def add(self, partition: int, before: CaseState, after: CaseState, decisions: Sequence[Decision]) -> None:
        if len(before.events) == len(after.events) and before.alerts == after.alerts:
            self._redated.append(_derived_row(after))
        else:
            self._states.append(_state_row(partition, after))
            self._histories.append({"case_no": after.case_no, "folded": after.dump()})
        again = before.next_check_at is not None and before.next_check_at <= 0  # what it is judged by has changed
        if again or len(before.events) != len(after.events):
            self._told.append((partition, after))
        if before.alerts != after.alerts or (after.alerts and len(before.events) != len(after.events)):
            # an event may change nothing of a card but who answers for it
            self._recarded.append(after.case_no)
            self._cards.extend(cards.rows(after.case_no, after, after.item_code, after.alerts))
        if self._turns(after):
            self._turned[after.case_no] = Standing(after.status == VOID, known_at=_turned_at(after))
        for decision in decisions:
            self._saids.append(Said(ALERT, alert_record(after.case_no, decision, _finding(decision))))
            alert_id = decision.alert.alert_id
            self._spoken[after.case_no, alert_id] = after.spoken[alert_id]

    def _turns(self, after: CaseState) -> bool:
        """Whether it has become void, or is so no more; a replay that knows less than was known says neither."""
        held = self._noted.get(after.case_no, standing.COUNTED)
        return (after.status == VOID) != held.out and after.known_at >= held.known_at

    def write(self, tx: sa.Connection) -> None:
        bulk.upsert(tx, case_state, self._states)
        bulk.upsert(tx, case_history, self._histories)
        bulk.update(tx, case_state, self._redated)
        cards.replace(tx, self._recarded, self._cards)
        if self._saids:
            cards.remember(tx, self._spoken)
            say(tx, self._saids)
        if self._turned:
            standing.judged(tx, self._turned)
            desk.mark(tx, desk.CASE, {case_no: desk.partition_of(case_no) for case_no in self._turned})
        groups.touched(tx, self._told)


def _finding(decision: Decision) -> str:
    if decision.alert.kind != "FINDING":
        return ""
    return codesets.load("govbus.finding").values[decision.alert.rule_id]


def _state_row(partition: int, state: CaseState) -> dict[str, Any]:
    return {
        **_derived_row(state),
        "partition": partition,
        "region": state.region,
        "item_code": state.item_code,
        "counted_from": state.counted_from,
        "known_at": state.known_at,
    }


def _derived_row(state: CaseState) -> dict[str, Any]:
    """What may be another though nothing happened to the case."""
    return {
        "case_no": state.case_no,
        "department": state.department,
        "status": state.status,
        "accepted_at": state.accepted_at,
        "due_at": state.due_at,
        "yellow_at": state.yellow_at,
        "statutory_due_at": state.statutory_due_at,
        "stopped_at": state.stopped_at,
        "on_time": state.on_time,
        "provisional": state.provisional,
        "state": state.dump_derived(),
        "next_check_at": state.next_check_at,
        "counted_to": state.counted_to,
    }
