"""The judgement of a case in which nothing is out of the ordinary, without the detours that the others need.

Most cases are submitted, accepted, handled and decided in time. Of these :func:`derive` gives exactly what
``judge.fold`` gives the long way, and nothing of any other; a property test holds both
together. What is ordinary is decided here; limits, cards and the calendar are the same functions.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence

from msgspec import Struct

from streams.rules import cards, clock, clocks
from streams.rules.calendar import DAY_MINUTES, Calendar, CalendarHistory, epoch_ms, minute_of
from streams.rules.cards import DELIVERY, HANDLING, STATUTORY
from streams.rules.clock import Deadline
from streams.rules.lifecycle import (
    ACCEPTED,
    CERTIFIED,
    DELIVERED,
    GRANTED,
    IN_PROCESS,
    NONE,
    RUNNING,
    SUBMITTED,
    CaseEvent,
    counted_from,
    in_order,
)
from streams.rules.limits import ItemVersion, counting, judging
from streams.rules.state import CaseState


class _Way(Struct):
    """How far the case has come."""

    status: str = NONE
    submitted: CaseEvent | None = None
    accepted: CaseEvent | None = None
    decided: CaseEvent | None = None
    delivered: CaseEvent | None = None
    responsible: str = ""


def derive(
    case_no: str,
    events: tuple[CaseEvent, ...],
    calendars: CalendarHistory,
    items: Mapping[str, tuple[ItemVersion, ...]],
    horizon: int,
    quiet: int,
) -> CaseState | None:
    """The accepted case after ``events`` (log order), judged up to ``horizon`` (epoch ms); None: look at it in full.

    ``quiet``: until when it is known to have no alert, whatever one derives (epoch ms). No rating may contradict it.
    """
    region, newest = events[0].region, events[-1].known_at
    changes = calendars.changes(region)
    last = bisect_right(changes, horizon)
    if last and changes[last - 1] > newest:
        newest = changes[last - 1]
    if newest > quiet:
        return None
    calendar = calendars.known_at(newest, region)
    way = _way(events, calendar)
    if way is None or way.accepted is None:
        return None
    day = minute_of(way.accepted.occurred_at) // DAY_MINUTES
    item = judging(items, events[0].item_code, day)
    if item is None or item.steps:
        return None
    nearest = changes[last] if last < len(changes) else None
    return _state(case_no, events, way, item, calendar, horizon, nearest)


def _way(events: Sequence[CaseEvent], calendar: Calendar) -> _Way | None:
    """The way of the case, or None where it is not the ordinary one."""
    way = _Way()
    for event in in_order(events):
        if event.special or not _went(way, event, calendar):
            return None
        if event.responsible:
            way.responsible = event.responsible
    return way


def _went(way: _Way, event: CaseEvent, calendar: Calendar) -> bool:
    """Go on with ``event``; False: it is not what comes next."""
    kind, status = event.type, way.status
    if kind == "submitted" and status == NONE:
        way.status, way.submitted = SUBMITTED, event
    elif kind == "accepted" and status in (NONE, SUBMITTED):
        way.status, way.accepted = ACCEPTED, event
        return not event.acceptance and _in_time(way.submitted, event, calendar)
    elif kind == "step_completed" and status in RUNNING:
        way.status = IN_PROCESS
    elif kind == "decided" and status in RUNNING:
        way.status, way.decided = GRANTED, event
        return cards.practice().results.get((event.result_set, event.result), GRANTED) == GRANTED
    elif kind == "certified" and status == GRANTED:
        way.status = CERTIFIED
    elif kind == "delivered" and status in (GRANTED, CERTIFIED):
        way.status, way.delivered = DELIVERED, event
    else:
        return False
    return True


def _in_time(submitted: CaseEvent | None, accepted: CaseEvent, calendar: Calendar) -> bool:
    """Whether the acceptance came before silence would have been one (行政许可法 32)."""
    if submitted is None:
        return True
    line = clock.deadline(calendar, minute_of(submitted.occurred_at), counting().acceptance, counting())
    return line.provisional or line.due is None or minute_of(accepted.occurred_at) <= line.due


def _state(
    case_no: str,
    events: tuple[CaseEvent, ...],
    way: _Way,
    item: ItemVersion,
    calendar: Calendar,
    horizon: int,
    nearest: int | None,
) -> CaseState | None:
    """The state, unless a clock has called for a card by the ``horizon``; ``nearest``: when the calendar changes."""
    assert way.accepted is not None
    accepted_at = way.accepted.occurred_at
    stopped = None if way.decided is None else way.decided.occurred_at
    accepted = minute_of(accepted_at)
    promise = clocks.promise(item, calendar, accepted)
    legal = clocks.legal(item, calendar, accepted)
    lines = [(HANDLING, promise, stopped)]
    if legal is not None:
        lines.append((STATUTORY, legal, stopped))
    if way.decided is not None and clocks.hands_over(item, way.decided):
        done = None if way.delivered is None else way.delivered.occurred_at
        lines.append((DELIVERY, clocks.handing_over(calendar, way.decided), done))
    counted_to = max(e.occurred_at for e in events)
    for name, line, stop in lines:
        first = _first_card(name, line, stop)
        if line.due is None or (first is not None and first <= horizon):
            return None
        counted_to = max(counted_to, epoch_ms(line.due))
        if first is not None and (nearest is None or first < nearest):
            nearest = first
    return CaseState(
        case_no,
        events,
        events[0].region,
        way.responsible or way.accepted.department,
        events[0].item_code,
        way.status,
        accepted_at,
        False,
        clocks.ms(promise.due),
        clocks.ms(promise.yellow),
        None if legal is None else clocks.ms(legal.due),
        stopped,
        None if stopped is None else promise.due is None or minute_of(stopped) <= promise.due,
        promise.provisional,
        None if stopped is None else clock.consumed(calendar, promise, minute_of(stopped), ()),
        promise.version,
        (),
        (),
        nearest,
        counted_from(events),
        counted_to,
    )


def _first_card(name: str, line: Deadline, stopped_at: int | None) -> int | None:
    """When the clock calls for its first card (epoch ms); None: for none."""
    first = None
    for rule in cards.rules(name, line.accepted // DAY_MINUTES):
        moment = clocks.called_from(rule, line, stopped_at)
        if moment is not None and (first is None or moment < first):
            first = moment
    return first
