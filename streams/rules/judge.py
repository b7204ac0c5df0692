"""The judgement of a case: its state, its deadlines, its cards, and what must be said about them.

Everything is derived from the case's events, the calendars and the items, up to a horizon
(docs/architecture.md,
"Knowledge time"). Decides nothing by the moment at which it is called; reads no clock, broker or database.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct, structs

from streams.rules import cards, clock, clocks, plain
from streams.rules.calendar import DAY_MINUTES, Calendar, CalendarHistory, date_of, epoch_ms, minute_of
from streams.rules.cards import HANDLING, STATUTORY, Alert, Ground, Knowledge
from streams.rules.claims import Claim, standing
from streams.rules.clock import Deadline
from streams.rules.clocks import Line
from streams.rules.lifecycle import (
    DECIDED,
    RETURNED,
    SUBMITTED,
    TRANSFERRED,
    VOID,
    CaseEvent,
    Course,
    Finding,
    counted_from,
    course,
)
from streams.rules.limits import ItemVersion, counting
from streams.rules.state import CaseState, Spoken

ISSUED, REVOKED, RETRACTED = "ISSUED", "REVOKED", "RETRACTED"
ON_TIME_COUNTS = (*DECIDED, RETURNED, TRANSFERRED)


@dataclass(frozen=True, slots=True)
class References:
    """What cases are judged by: calendars as they became known, items as they are (timeless), and what ratings claim
    about the cases (by case number).
    """

    calendars: CalendarHistory
    items: Mapping[str, tuple[ItemVersion, ...]] = field(default_factory=dict)
    claims: Mapping[str, tuple[Claim, ...]] = field(default_factory=dict)


class Decision(Struct, frozen=True):
    """One statement about an alert. ``known_at``: knowledge time it rests on, epoch ms; ``action`` ISSUED,
    REVOKED, RETRACTED.
    """

    action: str
    seq: int
    alert: Alert
    region: str
    department: str
    item_code: str
    known_at: int


def fold(
    state: CaseState, events: Sequence[CaseEvent], references: References, now: int
) -> tuple[CaseState, tuple[Decision, ...]]:
    """The case after ``events`` (log order, none seen before), judged up to ``now`` (epoch ms), and what to
    say.

    ``now`` below what the case knows or was told counts as that. Begin with ``CaseState(case_no, ())``.
    """
    history = _append(state.events, events)
    if not history:
        return state, ()
    horizon = max(now, history[-1].known_at, *(a.issued_at for a in state.alerts))
    quiet = 0 if references.claims.get(state.case_no) else _quiet(state, history)
    if quiet and not state.spoken:
        ordinary = plain.derive(state.case_no, history, references.calendars, references.items, horizon, quiet)
        if ordinary is not None:
            return ordinary, ()
    derived = _derive(state.case_no, history, references, horizon, quiet)
    about = About(derived.region, derived.department, derived.item_code, history[-1].known_at)
    decisions = tuple(differences(state.spoken, derived.alerts, about, horizon))
    return structs.replace(derived, spoken=remember(state.spoken, decisions)), decisions


def _quiet(state: CaseState, history: Sequence[CaseEvent]) -> int:
    """Until when the case is known to have no alert, whatever one derives (epoch ms; 0: unknown).

    A judged case without alerts has none before its ``next_check_at``, as long as nothing new is known. So most events,
    and most calendars, need no second look at the knowledge before them.
    """
    nearest, seen = state.next_check_at, len(state.events)
    if not seen or state.alerts or nearest == 0:
        return 0
    if nearest is not None and nearest < 0:
        return -nearest if len(history) == seen else min(-nearest, history[seen].known_at)
    if len(history) == seen:
        return history[-1].known_at if nearest is None else nearest
    return history[seen].known_at if nearest is None or nearest >= history[seen].known_at else 0


def _append(known: tuple[CaseEvent, ...], events: Iterable[CaseEvent]) -> tuple[CaseEvent, ...]:
    """The history with new events; knowledge time never falls in log order."""
    history = list(known)
    at = history[-1].known_at if history else 0
    for event in events:
        at = max(at, event.known_at)
        history.append(event if event.known_at == at else structs.replace(event, known_at=at))
    return tuple(history)


# --- one state of knowledge
# -----------------------------------------------------------------------------------------


class _View(Struct, frozen=True):
    """The case under one state of knowledge."""

    course: Course
    calendar: Calendar
    lines: tuple[Line, ...] = ()
    grounds: tuple[Ground, ...] = ()

    def line(self, name: str) -> Line | None:
        """The clock of that name."""
        return next((line for line in self.lines if line.clock == name), None)


def _derive(case_no: str, events: tuple[CaseEvent, ...], references: References, horizon: int, quiet: int) -> CaseState:
    region = events[0].region
    claims, changes = references.claims.get(case_no, ()), references.calendars.changes(region)
    if claims:
        changes = tuple(sorted({*changes, *(c.at for c in claims)}))
    first, last = bisect_right(changes, events[0].known_at), bisect_right(changes, horizon)
    history: list[Knowledge] = []
    for at, count in _moments(events, changes[first:last], quiet):
        view = _view(events[:count], references.calendars.known_at(at, region), references)
        if claims:
            view = _contradicted(view, standing(claims, at))
        history.append(_knowledge(at, view, events, count, claims))
    alerts, upcoming = cards.alerts(case_no, history, horizon)
    ahead = [upcoming, view.course.deemed_at, changes[last] if last < len(changes) else None]
    nearest = min((t for t in ahead if t is not None and t > horizon), default=None)
    return _state(case_no, events, view, alerts, nearest, horizon)


def _moments(events: Sequence[CaseEvent], changes: Sequence[int], quiet: int) -> list[tuple[int, int]]:
    """(moment, events known then) for every moment at which knowledge grew, rising; without those whose time is over
    before ``quiet``.
    """
    newest = max((events[-1].known_at, *changes[-1:]))
    if newest <= quiet:
        return [(newest, len(events))]
    known = {e.known_at: number for number, e in enumerate(events, 1)}
    times = [e.known_at for e in events]
    moments = sorted({**{c: bisect_right(times, c) for c in changes}, **known}.items())
    begin = bisect_right(moments, (quiet, 1 << 62)) - 1
    return moments[begin:] if begin > 0 else moments


def _contradicted(view: _View, claims: Sequence[Claim]) -> _View:
    """Findings about ratings that say the case took too long where the clock says that it did not (DOMAIN 5.4)."""
    handling = view.line(HANDLING)
    if handling is None or not handling.on_time or view.course.status not in ON_TIME_COUNTS:
        return view
    found = (Finding("tag_contradicts_clock", c.event_id) for c in claims)
    return structs.replace(view, grounds=(*view.grounds, *clocks.finding_grounds(found)))


def _knowledge(
    at: int, view: _View, events: Sequence[CaseEvent], count: int, claims: Sequence[Claim]
) -> Knowledge:
    pauses = clocks.in_ms(view.course.pauses)
    new = [e for e in events[:count] if e.known_at == at]
    amended = not new and any(c.at == at for c in claims)
    reason = "rating_corrected" if amended else why([told(e) for e in new])
    if new and view.course.status == VOID:
        reason = "case_voided"
    return Knowledge(at, view.grounds, pauses, view.course.hold_until, reason, view.course.department)


_REASONS = (
    ("voided", "case_voided"),
    ("corrected", "case_corrected"),
    ("special_started", "late_pause"),
    ("special_ended", "late_pause"),
    ("extended", "late_extension"),
)
_STOPS = frozenset(("decided", "withdrawn", "returned", "transferred", "not_accepted"))


def told(event: CaseEvent) -> str:
    """What an event does to its case: an annulment of one event corrects it, the case goes on."""
    return "corrected" if event.type == "voided" and event.corrects else event.type


def why(new: Sequence[str]) -> str:
    """Code of ``govbus.revocation`` for what the new events, each as ``told``, or without any a new calendar, take
    back.
    """
    if not new:
        return "calendar_revised"
    if not _STOPS.isdisjoint(new):
        return "case_voided" if "voided" in new else "late_stop"
    return next((code for name, code in _REASONS if name in new), "no_longer_derived")


def _view(events: tuple[CaseEvent, ...], calendar: Calendar, references: References) -> _View:
    seen = course(events, calendar, counting(), cards.practice())
    if seen.status == VOID:
        return _View(seen, calendar)
    seen, lines = clocks.lines(seen, events[0].item_code, calendar, references.items)
    called = [ground for line in lines for ground in clocks.grounds(line)]
    return _View(seen, calendar, lines, (*called, *clocks.finding_grounds(seen.findings)))


# --- the state at the horizon
# ---------------------------------------------------------------------------------------


def _state(
    case_no: str,
    events: tuple[CaseEvent, ...],
    view: _View,
    alerts: tuple[Alert, ...],
    nearest: int | None,
    horizon: int,
) -> CaseState:
    seen = view.course
    pending = seen.deemed_at is not None and seen.deemed_at > horizon
    handling, statutory = (None, None) if pending else (view.line(HANDLING), view.line(STATUTORY))
    promise = None if handling is None else handling.deadline
    stopped = seen.stopped_at
    return CaseState(
        case_no,
        events,
        events[0].region,
        seen.department,
        events[0].item_code,
        SUBMITTED if pending else seen.status,
        None if pending else seen.accepted_at,
        seen.deemed_at is not None and not pending,
        None if promise is None else clocks.ms(promise.due),
        None if promise is None else clocks.ms(promise.yellow),
        None if statutory is None else clocks.ms(statutory.deadline.due),
        stopped,
        None if handling is None or seen.status not in ON_TIME_COUNTS else handling.on_time,
        promise is not None and promise.provisional,
        _used(view, promise),
        "" if promise is None else promise.version,
        seen.parked,
        alerts,
        nearest,
        counted_from(events),
        _counted_to(view, events),
    )


def _counted_to(view: _View, events: Sequence[CaseEvent]) -> int | None:
    """The last moment up to which the judgement looked into the calendar."""
    seen, ends = view.course, [e.occurred_at for e in events]
    if seen.accepted_at is None and seen.stopped_at is None:
        return None
    for line in view.lines:
        if line.deadline.due is None:
            return None
        ends.append(epoch_ms(line.deadline.due))
    return max(*ends, seen.stopped_at or 0, seen.deemed_at or 0)


def _used(view: _View, promise: Deadline | None) -> int | None:
    if promise is None or view.course.stopped_at is None:
        return None
    return clock.consumed(view.calendar, promise, minute_of(view.course.stopped_at), view.course.pauses)


# --- what to say
# ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class About:
    """What a statement says of its alert besides the alert, its ``department`` where the alert does not say who answers
    for it; ``known_at``: the newest knowledge, epoch ms.
    """

    region: str
    department: str
    item_code: str
    known_at: int


def _content(alert: Alert) -> str:
    content = f"{alert.issued_at}/{alert.revoked_at}/{alert.revoked_reason}/{alert.due_at}/{alert.provisional}"
    return content if len(alert.answering) < 2 else f"{content}/{len(alert.answering)}/{alert.answering[-1][1]}"


def differences(
    spoken: Mapping[str, Spoken], alerts: Sequence[Alert], about: About, horizon: int
) -> Iterable[Decision]:
    """What must be said. What was said of a time beyond ``horizon`` stands: a replay is not there yet."""
    for alert in alerts:
        said = spoken.get(alert.alert_id)
        if said is None or _told_until(said.alert) <= horizon:
            yield from _statements(said, alert, about)
    if spoken:
        derived = {a.alert_id for a in alerts}
        for alert_id in sorted(spoken):
            said = spoken[alert_id]
            if alert_id not in derived and said.action != RETRACTED and said.alert.issued_at <= horizon:
                known = max(about.known_at, said.alert.issued_at)
                yield _decision(RETRACTED, said.seq + 1, said.alert, about, known)


def _told_until(alert: Alert) -> int:
    """The newest knowledge that a statement about ``alert`` told of."""
    return max([alert.revoked_at or 0, *(at for at, _ in alert.answering[1:])])


def _statements(said: Spoken | None, alert: Alert, about: About) -> Iterable[Decision]:
    """What is still to be said of ``alert``: each of its words once, whether they are said as they become true or all
    together; where another one was said last, the last of its standing and what follows.
    """
    words = _words(alert)
    same = [n for n, (_, version, _) in enumerate(words) if said is not None and _says(said, version)]
    last_issued = max(n for n, (action, _, _) in enumerate(words) if action == ISSUED)
    done = 0 if said is None else 1 + same[0] if same else last_issued
    for seq, (action, version, at) in enumerate(words[done:], 1 if said is None else said.seq + 1):
        yield _decision(action, seq, version, about, at)


def _says(said: Spoken, version: Alert) -> bool:
    """Whether that was said last, to the same department: one that became known late may have answered already."""
    to, meant = (alert.answering[-1][1] if alert.answering else "" for alert in (said.alert, version))
    return said.action != RETRACTED and said.content == _content(version) and to in ("", meant)


def _words(alert: Alert) -> list[tuple[str, Alert, int]]:
    """All that is ever said of ``alert``: action, the alert as it was then, known at. It is issued, told anew whenever
    another department answers for it, and revoked.
    """
    standing = structs.replace(alert, revoked_at=None, revoked_reason="")
    words = [(ISSUED, structs.replace(standing, answering=alert.answering[:1]), alert.issued_at)]
    for n, (at, _) in enumerate(alert.answering[1:], 2):
        words.append((ISSUED, structs.replace(standing, answering=alert.answering[:n]), at))
    if alert.revoked_at is not None:
        words.append((REVOKED, alert, alert.revoked_at))
    return words


def _decision(action: str, seq: int, alert: Alert, about: About, known_at: int) -> Decision:
    department = alert.answering[-1][1] if alert.answering else about.department
    return Decision(action, seq, alert, about.region, department, about.item_code, known_at)


def remember(spoken: Mapping[str, Spoken], decisions: Sequence[Decision]) -> Mapping[str, Spoken]:
    """What was said last of each alert, after ``decisions``."""
    if not decisions:
        return spoken
    return {
        **spoken,
        **{d.alert.alert_id: Spoken(d.seq, d.action, _content(d.alert), d.alert) for d in decisions},
    }


def alert_record(case_no: str, decision: Decision, finding: str = "") -> dict[str, Any]:
    """The decision as a record of ``oversight.alert.v1`` without ``event_id``; ``finding``: the finding's
    Chinese name.
    """
    alert = decision.alert
    return worded(case_no, decision, cards.summary(case_no, alert, local_text(alert.due_at), finding))


def worded(case_no: str, decision: Decision, summary: str) -> dict[str, Any]:
    """The decision as a record of ``oversight.alert.v1`` without ``event_id``; ``summary``: the sentence a supervisor
    reads.
    """
    alert = decision.alert
    return {
        "event_type": f"alert.{decision.action.lower()}",
        "region": decision.region,
        "department": decision.department,
        "occurred_at": decision.known_at,
        "occurred_text": "",
        "entered_at": None,
        "received_at": decision.known_at,
        "alert_id": alert.alert_id,
        "alert_seq": decision.seq,
        "kind_code": alert.kind,
        "colour_code": alert.colour,
        "rule_id": alert.rule_id,
        "rule_version": alert.rule_version,
        "calendar_version": alert.calendar_version,
        "case_no": case_no,
        "item_code": decision.item_code,
        "summary": summary,
        "due_at": alert.due_at,
        "issued_at": alert.issued_at,
        "revoked_reason_code": "no_longer_derived" if decision.action == RETRACTED else alert.revoked_reason,
        "provisional": alert.provisional,
        "evidence": list(alert.evidence),
    }


def local_text(moment: int | None) -> str:
    """``2020-10-14 17:00`` in Asia/Shanghai; empty for None."""
    if moment is None:
        return ""
    day, within = divmod(minute_of(moment), DAY_MINUTES)
    return f"{date_of(day).isoformat()} {within // 60:02}:{within % 60:02}"
