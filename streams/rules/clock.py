"""When a limit is reached: rules 1-6 of DOMAIN 3.6 over one calendar. Pure integer arithmetic on local
minutes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

from msgspec import Struct, structs

from streams.rules.calendar import DAY_MINUTES, Calendar
from streams.rules.limits import HOUR, MINUTE, MONTH, NATURAL_DAY, WORKING_DAY, Counting, HalfDayMode, Limit

Pause = tuple[int, int | None]  # local minutes; None: still open
Pauses = tuple[Pause, ...]


class Warning(Struct, frozen=True, cache_hash=True):
    """When a limit is nearly reached: at ``percent`` consumed, or ``days_left`` left if the limit has more
    days.
    """

    percent: int = 80
    days_left: int = 1


USUAL = Warning()


class Deadline(Struct, frozen=True):
    """A limit laid on the calendar; local minutes. ``due`` or ``yellow`` None: an open pause comes before it.

    ``opened``: first minute that can count. ``budget``: minutes (office minutes, or natural ones for natural
    units).
    On time means a stop at or before the minute ``due``. ``provisional``: an unpublished year was counted.
    """

    accepted: int
    opened: int
    due: int | None
    yellow: int | None
    budget: int
    natural: bool
    provisional: bool
    version: str


def union(pauses: Iterable[Pause], stop: int | None = None) -> Pauses:
    """The union of intervals, rising and disjoint, closed at ``stop`` (DOMAIN 3.6 rule 3); empty ones
    vanish.
    """
    merged: list[Pause] = []
    for start, end in sorted(_closed(pauses, stop), key=lambda p: p[0]):
        if merged and (merged[-1][1] is None or start <= merged[-1][1]):
            last = merged[-1][1]
            merged[-1] = (merged[-1][0], None if last is None or end is None else max(last, end))
        else:
            merged.append((start, end))
    return tuple(merged)


def _closed(pauses: Iterable[Pause], stop: int | None) -> Iterator[Pause]:
    for start, end in pauses:
        closed = end if stop is None else stop if end is None else min(end, stop)
        if closed is None or start < closed:
            yield start, closed


KEPT = 1 << 10
"""Deadlines that a process remembers, about half a KB each: cases ask for the same ones again and again, and soon after
one another.
"""


def deadline(
    calendar: Calendar,
    accepted: int,
    limit: Limit,
    counting: Counting,
    pauses: Pauses = (),
    extension: float = 0.0,
    warning: Warning = USUAL,
) -> Deadline:
    """Due and warning minute of ``limit`` for a case accepted in the local minute ``accepted``.

    ``pauses`` must be a union (see :func:`union`). ``extension`` is an amount in the limit's own unit. Never
    raises.
    Source: DOMAIN 3.6; 行政许可法 45 and 82; 民法典 200-203.
    """
    total = Limit(limit.amount + extension, limit.unit) if extension else limit
    if total.amount <= 0:  # on the spot is on the spot in any unit
        total = Limit(0.0, WORKING_DAY)
    if not _opens_later(total):
        return _deadline(calendar, accepted, total, counting, pauses, warning)
    of_the_day = _deadline(calendar, accepted - accepted % DAY_MINUTES, total, counting, pauses, warning)
    return structs.replace(of_the_day, accepted=accepted)


def prolonged(
    calendar: Calendar, line: Deadline, more: Limit, counting: Counting, pauses: Pauses, warning: Warning = USUAL
) -> Deadline:
    """``line`` and ``more`` after its due minute, where that is a limit in a unit not comparable with its own."""
    if line.due is None:
        return line
    added = deadline(calendar, line.due, more, counting, pauses, 0.0, warning)
    seen = line.due if added.due is None else added.due
    whole = structs.replace(
        line,
        due=added.due,
        yellow=added.yellow,
        provisional=calendar.provisional(line.accepted, seen),
        version=calendar.version(line.accepted, seen),
    )
    return structs.replace(whole, budget=consumed(calendar, whole, seen, pauses))


def _opens_later(limit: Limit) -> bool:
    """Whether a clock opens on a day after the acceptance, so that only the day of that matters (rules 1 and 6)."""
    return limit.unit in (NATURAL_DAY, MONTH) or (limit.unit == WORKING_DAY and limit.amount >= 1)


@lru_cache(maxsize=KEPT)
def _deadline(
    calendar: Calendar, accepted: int, limit: Limit, counting: Counting, pauses: Pauses, warning: Warning
) -> Deadline:
    if limit.unit in (NATURAL_DAY, MONTH):
        return _natural(calendar, accepted, limit, counting, pauses, warning)
    return _business(calendar, accepted, limit, counting, pauses, warning)


def _business(
    calendar: Calendar, accepted: int, limit: Limit, counting: Counting, pauses: Pauses, warning: Warning
) -> Deadline:
    opened, budget, last_day = _opening(calendar, accepted, limit, counting)
    due = _advance(calendar, opened, budget, pauses)
    left = last_day * warning.days_left
    longer = limit.amount > warning.days_left if limit.unit == WORKING_DAY else budget > left
    warn = min(_share(budget, warning), max(budget - left, 0)) if longer else _share(budget, warning)
    yellow = _advance(calendar, opened, warn, pauses)
    seen = accepted if due is None else due
    return Deadline(
        accepted,
        opened,
        due,
        yellow,
        budget,
        False,
        calendar.provisional(accepted, seen),
        calendar.version(accepted, seen),
    )


def _opening(calendar: Calendar, accepted: int, limit: Limit, counting: Counting) -> tuple[int, int, int]:
    """Opening minute, office minutes to consume, and the length of the last day, of a limit in working
    time.
    """
    day = accepted // DAY_MINUTES
    if limit.unit == WORKING_DAY and limit.amount >= 1:
        return _whole_days(calendar, day, limit.amount)
    opened = _next_open(calendar, accepted)
    length = calendar.length(opened // DAY_MINUTES)
    if limit.unit == HOUR:
        return opened, round(limit.amount * 60), length
    if limit.unit == MINUTE:
        return opened, round(limit.amount), length
    return opened, _part_of_day(calendar, opened, limit.amount, counting), length


def _whole_days(calendar: Calendar, day: int, amount: float) -> tuple[int, int, int]:
    """Rule 1: opens with the first working day after acceptance; N days are the office minutes of N working
    days.
    """
    first = calendar.nth_working_day(day, 1)
    whole = int(amount)
    last = calendar.nth_working_day(day, whole)
    opened = first * DAY_MINUTES + _opens(calendar, first)
    budget = calendar.counted((last + 1) * DAY_MINUTES) - calendar.counted(opened)
    if amount > whole:
        last = calendar.nth_working_day(day, whole + 1)
        budget += round((amount - whole) * calendar.length(last))
    return opened, budget, calendar.length(last)


def _opens(calendar: Calendar, day: int) -> int:
    sessions = calendar.sessions(day)
    return sessions[0][0] if sessions else 0


def _next_open(calendar: Calendar, minute: int) -> int:
    """``minute`` if the office is open in it, else the next opening (rule 2)."""
    day, within = divmod(minute, DAY_MINUTES)
    for opens, closes in calendar.sessions(day):
        if within < closes:
            return day * DAY_MINUTES + max(within, opens)
    following = calendar.nth_working_day(day, 1)
    return following * DAY_MINUTES + _opens(calendar, following)


def _part_of_day(calendar: Calendar, opened: int, amount: float, counting: Counting) -> int:
    """Rule 2: office minutes of less than a day; 0 (即办, on the spot) lasts to the close of the day it
    opens in.
    """
    if amount <= 0:
        return calendar.counted((opened // DAY_MINUTES + 1) * DAY_MINUTES) - calendar.counted(opened)
    return _PART[counting.half_day_mode](calendar, opened, amount, counting)


def _by_minutes(calendar: Calendar, opened: int, amount: float, _: Counting) -> int:
    return round(amount * calendar.length(opened // DAY_MINUTES))


def _by_fixed(_: Calendar, __: int, amount: float, counting: Counting) -> int:
    return round(amount * 2 * counting.fixed_half_day_minutes)


def _by_session(calendar: Calendar, opened: int, _: float, __: Counting) -> int:
    """To the close of the session after the one the clock opens in."""
    end = _session_end(calendar, _next_open(calendar, _session_end(calendar, opened)))
    return calendar.counted(end) - calendar.counted(opened)


_PART = {"BUSINESS_MINUTES": _by_minutes, "FIXED_4H": _by_fixed, "SESSION": _by_session}


def _session_end(calendar: Calendar, opened: int) -> int:
    day, within = divmod(opened, DAY_MINUTES)
    return day * DAY_MINUTES + next((closes for _, closes in calendar.sessions(day) if within < closes), within)


def _natural(
    calendar: Calendar, accepted: int, limit: Limit, counting: Counting, pauses: Pauses, warning: Warning
) -> Deadline:
    """Rule 6: calendar days from the day after acceptance, to the close of business of the last, or the
    next working day. What pauses after that moment does not move it.
    """
    days = limit.amount * (counting.month_days if limit.unit == MONTH else 1)
    opened, budget = (accepted // DAY_MINUTES + 1) * DAY_MINUTES, round(days * DAY_MINUTES)
    due, before = _natural_due(calendar, opened, budget, pauses)
    span = budget if due is None else _consumed(None, opened, due, before)
    yellow = _advance(None, opened, _share(budget, warning), before)
    if due is not None and yellow is not None and days > warning.days_left:
        yellow = min(yellow, _days_left(calendar, opened, due, before, warning))
    seen = accepted if due is None else due
    return Deadline(
        accepted,
        opened,
        due,
        yellow,
        span,
        True,
        calendar.provisional(accepted, seen),
        calendar.version(accepted, seen),
    )


def _natural_due(calendar: Calendar, opened: int, budget: int, pauses: Pauses) -> tuple[int | None, Pauses]:
    """The due minute, and the pauses that begin before it: only they can move it."""
    for count in range(len(pauses) + 1):
        before = pauses[:count]
        end = _advance(None, opened, budget, before)
        due = None if end is None else _close_outside(calendar, (end - 1) // DAY_MINUTES, before)
        if due is None or count == len(pauses) or due <= pauses[count][0]:
            break
    return due, before


def _close_outside(calendar: Calendar, day: int, pauses: Pauses) -> int | None:
    """Close of business of ``day`` or the first working day after it that does not close in a pause."""
    close = calendar.close(day)
    for begin, end in pauses:
        if end is None and begin < close:
            return None
        if end is not None and begin < close <= end:
            resumed = calendar.close(end // DAY_MINUTES)
            close = resumed if resumed > end else calendar.close(end // DAY_MINUTES + 1)
    return close


def _share(budget: int, warning: Warning) -> int:
    """Minutes consumed at the warning, if it does not come with the days left before (DOMAIN 4.2)."""
    return -(-budget * warning.percent // 100)


def _days_left(calendar: Calendar, opened: int, due: int, pauses: Pauses, warning: Warning) -> int:
    """First minute at which no more than the working days of the warning are left until ``due``: on days off nobody
    could act on it (DOMAIN 4.2).
    """
    last = calendar.length((due - 1) // DAY_MINUTES) * warning.days_left
    office = _consumed(calendar, opened, due, pauses)
    found = _advance(calendar, opened, max(office - last, 0), pauses)
    return due if found is None else found


def _advance(calendar: Calendar | None, start: int, amount: int, pauses: Pauses) -> int | None:
    """First minute at which ``amount`` minutes outside ``pauses`` have passed since ``start``; None: never,
    as known.
    """
    for begin, end in pauses:
        if end is not None and end <= start:
            continue
        before = _between(calendar, start, max(begin, start))
        if amount <= before:
            break
        amount -= before
        if end is None:
            return None
        start = end
    return _reached(calendar, start, amount)


def _between(calendar: Calendar | None, start: int, end: int) -> int:
    return end - start if calendar is None else calendar.counted(end) - calendar.counted(start)


def _reached(calendar: Calendar | None, start: int, amount: int) -> int:
    if calendar is None:
        return start + amount
    return max(start, calendar.reached(calendar.counted(start) + amount))


def consumed(calendar: Calendar, line: Deadline, until: int, pauses: Pauses) -> int:
    """Minutes of ``line``'s measure that count between its opening and ``until``."""
    return _consumed(None if line.natural else calendar, line.opened, max(until, line.opened), pauses)


def _consumed(calendar: Calendar | None, opened: int, until: int, pauses: Pauses) -> int:
    paused = sum(
        _between(calendar, max(s, opened), min(until if e is None else e, until))
        for s, e in pauses
        if s < until and (e is None or e > opened)
    )
    return _between(calendar, opened, until) - paused


def counted_days(calendar: Calendar, line: Deadline, pauses: Pauses) -> list[tuple[int, int]]:
    """(local day, minutes counted on it) for every day that counts towards ``line``; empty while ``due`` is
    unknown.
    """
    if line.due is None:
        return []
    days = range(line.opened // DAY_MINUTES, line.due // DAY_MINUTES + 1)
    counts = ((day, _on_day(calendar, line, day, pauses)) for day in days)
    return [(day, count) for day, count in counts if count]


def _on_day(calendar: Calendar, line: Deadline, day: int, pauses: Pauses) -> int:
    due = line.due or 0
    until = consumed(calendar, line, min((day + 1) * DAY_MINUTES, due), pauses)
    return until - consumed(calendar, line, day * DAY_MINUTES, pauses)


def counting_in(counting: Counting, mode: HalfDayMode) -> Counting:
    """``counting`` with another half-day mode."""
    return structs.replace(counting, half_day_mode=mode)
