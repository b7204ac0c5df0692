"""What a calendar did to the clocks of cases and groups: each of them before and after it. Pure; the cards that it took
back or brought are in ``card``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from streams.rules import cards, clocks, groups
from streams.rules.calendar import Calendar
from streams.rules.clocks import Line
from streams.rules.judge import References
from streams.rules.lifecycle import VOID, CaseEvent, Course, course
from streams.rules.limits import counting


@dataclass(frozen=True, slots=True)
class Redated:
    """One clock that a calendar moved. Times epoch ms UTC, None: no due time while a special procedure is open.

    ``case_no``: the case, or the key of the group (``groups.keys``); ``department``: who answers for it.
    """

    case_no: str
    department: str
    clock: str
    subject: str
    open: bool
    due_before: int | None
    due_after: int | None
    provisional_before: bool
    provisional_after: bool


def redated(
    case_no: str, events: Sequence[CaseEvent], accepted: bool, references: References, at: int
) -> Iterator[Redated]:
    """The clocks of a case (all its events; ``accepted``: as it is by now) that the calendars received at ``at`` (epoch
    ms) moved or made certain.
    """
    region = events[0].region
    before = _lines(events, accepted, references.calendars.known_at(at - 1, region), references)
    after = _lines(events, accepted, references.calendars.known_at(at, region), references)
    for key, (department, line) in after.items():
        change = _change(case_no, department, before[key][1], line) if key in before else None
        if change is not None:
            yield change


def group_redated(
    key: str, department: str, members: groups.Members, references: References, at: int
) -> Redated | None:
    """The group's own clock, if the calendars received at ``at`` (epoch ms) moved it or made it certain; by what was
    known then.
    """
    before, after = (groups.explained(key, members, references, moment) for moment in (at - 1, at))
    return None if before is None or after is None else _change(key, department, before[0], after[0])


def _change(case_no: str, department: str, before: Line, after: Line) -> Redated | None:
    was, now = before.deadline, after.deadline
    if (was.due, was.provisional) == (now.due, now.provisional):
        return None
    return Redated(case_no, department, after.clock, after.subject, after.stopped_at is None, clocks.ms(was.due),
                   clocks.ms(now.due), was.provisional, now.provisional)  # fmt: skip


def _lines(
    events: Sequence[CaseEvent], accepted: bool, calendar: Calendar, references: References
) -> Mapping[tuple[str, str], tuple[str, Line]]:
    seen, lines = explained(events, accepted, calendar, references)
    return {(line.clock, line.subject): (seen.department, line) for line in lines}


def explained(
    events: Sequence[CaseEvent], accepted: bool, calendar: Calendar, references: References
) -> tuple[Course, tuple[Line, ...]]:
    """The course of a case with these events, and its clocks; none for a void case, and only that of the answer for one
    that silence will make accepted and has not yet (``accepted``).
    """
    seen = course(events, calendar, counting(), cards.practice())
    if seen.status == VOID:
        return seen, ()
    if seen.deemed_at is not None and not accepted:
        return seen, (clocks.answer(seen, calendar),)
    return clocks.lines(seen, events[0].item_code, calendar, references.items)
