"""What a calendar did to a case's clocks: each of them before and after it. Pure; the cards that it took back or
brought are in ``card``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from streams.rules import cards, clocks
from streams.rules.calendar import Calendar
from streams.rules.clocks import Line
from streams.rules.judge import References
from streams.rules.lifecycle import VOID, CaseEvent, Course, course
from streams.rules.limits import counting


@dataclass(frozen=True, slots=True)
class Redated:
    """One clock that a calendar moved. Times epoch ms UTC, None: no due time while a special procedure is open."""

    case_no: str
    department: str
    clock: str
    subject: str
    open: bool
    due_before: int | None
    due_after: int | None
    provisional_before: bool
    provisional_after: bool


def redated(case_no: str, events: Sequence[CaseEvent], references: References, at: int) -> Iterator[Redated]:
    """The clocks of a case (all its events) that the calendars received at ``at`` (epoch ms) moved or made certain."""
    region = events[0].region
    before = _lines(events, references.calendars.known_at(at - 1, region), references)
    after = _lines(events, references.calendars.known_at(at, region), references)
    for key, (department, line) in after.items():
        old = before.get(key)
        if old is None:
            continue
        was, now = old[1].deadline, line.deadline
        if (was.due, was.provisional) != (now.due, now.provisional):
            yield Redated(case_no, department, line.clock, line.subject, line.stopped_at is None, clocks.ms(was.due),
                          clocks.ms(now.due), was.provisional, now.provisional)  # fmt: skip


def _lines(
    events: Sequence[CaseEvent], calendar: Calendar, references: References
) -> Mapping[tuple[str, str], tuple[str, Line]]:
    seen, lines = explained(events, calendar, references)
    return {(line.clock, line.subject): (seen.department, line) for line in lines}


def explained(
    events: Sequence[CaseEvent], calendar: Calendar, references: References
) -> tuple[Course, tuple[Line, ...]]:
    """The course of a case with these events, and its clocks; none for a void case."""
    seen = course(events, calendar, counting(), cards.practice())
    if seen.status == VOID:
        return seen, ()
    return clocks.lines(seen, events[0].item_code, calendar, references.items)
