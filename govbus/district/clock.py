"""A second clock, slow, day by day, sharing nothing with ``streams``: the simulator's own, and the recount's.

Counts after DOMAIN §3.6 by what :class:`Offices` says of working days and hours. The simulator's are 09:00-12:00 and
13:00-17:00, 420 minutes a day, on the working days of ``chinesecalendar``; for 2020, what was known before the State
Council extended the Spring Festival differs (DOMAIN §3.7). Times are epoch milliseconds UTC; minutes of the day are
Asia/Shanghai.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from functools import lru_cache
from itertools import islice

import chinese_calendar

SHANGHAI = timezone(timedelta(hours=8))
EPOCH = date(1970, 1, 1).toordinal()
MINUTE = 60_000
DAY = timedelta(days=1)
SESSIONS = ((9 * 60, 12 * 60), (13 * 60, 17 * 60))
MINUTES_A_DAY = sum(closes - opens for opens, closes in SESSIONS)
WORKED_BEFORE_THE_REVISION = frozenset({date(2020, 1, 31), date(2020, 2, 1)})
FAR = 1_500  # days after which a clock gives up; a hundred working days overrun fourfold take fewer
WORKING_DAY, NATURAL_DAY, HOUR, MINUTES, MONTH = "1", "2", "3", "4", "5"  # units of limits (govbus.limit-unit)
MONTH_DAYS = 30  # DOMAIN §2.5
WEEKEND = 5  # of date.weekday

Span = tuple[int, int]
Hours = Callable[[date], Sequence[Span]]


def at(day: date, minute: int) -> int:
    """Epoch ms of ``minute`` of the day ``day`` in Asia/Shanghai."""
    return (day.toordinal() - EPOCH) * 1440 * MINUTE + (minute - 8 * 60) * MINUTE


def day_of(moment: int) -> date:
    """Day in Asia/Shanghai of an epoch-ms moment."""
    return datetime.fromtimestamp(moment / 1000, SHANGHAI).date()


def text_of(moment: int) -> str:
    """``yyyy-MM-dd HH:mm:ss`` in Asia/Shanghai, as most systems send it (DOMAIN §3.4)."""
    return datetime.fromtimestamp(moment / 1000, SHANGHAI).strftime("%Y-%m-%d %H:%M:%S")


@lru_cache(maxsize=4096)
def is_working(day: date, revised: bool = True) -> bool:
    """Whether ``day`` is worked; ``revised``: with the Spring Festival revision of 2020 known."""
    if not revised and day in WORKED_BEFORE_THE_REVISION:
        return True
    return bool(chinese_calendar.is_workday(day))


def without(span: Span, pauses: Sequence[Span]) -> list[Span]:
    """``span`` less the union of ``pauses``."""
    pieces = [span]
    for begin, end in pauses:
        pieces = [p for s, e in pieces for p in ((s, min(e, begin)), (max(s, end), e)) if p[0] < p[1]]
    return pieces


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Yellow and due moments of one limit; None: never (always paused). ``provisional``: a year counts whose calendar
    is not published. Limits in calendar days have no ``yellow`` here.
    """

    yellow: int | None
    due: int | None
    provisional: bool = False


class Offices:
    """When offices are open, by ``hours``: from and to which minutes of a day, none on days off. ``published`` says
    of which years the calendar is known, ``half_day`` how less than a day is counted (§3.6 rule 2), ``fixed`` the
    minutes of half a day where they are fixed.
    """

    def __init__(
        self,
        hours: Hours,
        published: Callable[[int], bool] = lambda _: True,
        half_day: str = "BUSINESS_MINUTES",
        fixed: int = 240,
    ) -> None:
        self._hours, self._published, self._half_day, self._fixed = hours, published, half_day, fixed
        self._opened: dict[date, tuple[Span, ...]] = {}
        self._remembered = lru_cache(maxsize=262_144)(self._after)

    def deadlines(
        self, accepted: int, amount: float, pauses: Sequence[Span] = (), unit: str = WORKING_DAY
    ) -> Deadlines:
        """Due when ``amount`` is consumed; yellow at 80 % or with one day left, whichever is first (§4.2). All of it to
        the minute (§3.6 rule 4).
        """
        begin, cut = _minute(accepted), tuple(sorted((_minute(s), _minute(e)) for s, e in pauses))
        if unit in (NATURAL_DAY, MONTH) and amount > 0:
            yellow, due = None, self._natural(begin, amount * (MONTH_DAYS if unit == MONTH else 1), cut)
        else:
            start, total, warn = self._budget(begin, amount, unit)
            yellow, due = self.after(start, warn, cut), self.after(start, total, cut)
        years = range(day_of(begin).year, day_of(begin if due is None else due).year + 1)
        return Deadlines(yellow, due, not all(map(self._published, years)))

    def after(self, start: int, minutes: float, pauses: Sequence[Span] = ()) -> int | None:
        """The moment at which ``minutes`` of open hours have been consumed since ``start``; None if never."""
        return self._remembered(start, minutes, tuple(pauses))

    def next_working(self, day: date) -> date:
        """The first working day after ``day``."""
        return next(d for d in _days(day + DAY) if self._open_on(d))

    def _after(self, start: int, minutes: float, pauses: tuple[Span, ...]) -> int | None:
        left = round(minutes * MINUTE)
        for day in _days(day_of(start)):
            for opens, closes in self._open_on(day):
                if closes <= start:
                    continue
                for begin, end in without((max(opens, start), closes), pauses):
                    if end - begin >= left:
                        return begin + left
                    left -= end - begin
        return None

    def _budget(self, begin: int, amount: float, unit: str) -> tuple[int, float, float]:
        """When a limit in working time opens, its minutes, and those until the warning (§3.6 rules 1 and 2)."""
        if unit == WORKING_DAY and amount >= 1:
            day = first = self.next_working(day_of(begin))
            total = float(self._minutes(day))
            for _ in range(int(amount) - 1):
                day = self.next_working(day)
                total += self._minutes(day)
            if amount > int(amount):
                day = self.next_working(day)
                total += round((amount - int(amount)) * self._minutes(day))
            warn = 0.8 * total if amount <= 1 else min(0.8 * total, total - self._minutes(day))
            return at(first, 0), total, warn
        opens = next(max(o, begin) for d in _days(day_of(begin)) for o, c in self._open_on(d) if c > begin)
        day = day_of(opens)
        if amount <= 0:  # on the spot: until the office closes
            total = sum(c - max(o, opens) for o, c in self._open_on(day) if c > opens) / MINUTE
        else:
            total = self._part(opens, amount) if unit == WORKING_DAY else round(amount * {HOUR: 60, MINUTES: 1}[unit])
        return opens, total, 0.8 * total

    def _part(self, opens: int, amount: float) -> int:
        """Minutes of less than a working day: of that day's, of two fixed halves, or to the end of the next session."""
        if self._half_day == "FIXED_4H":
            return round(amount * 2 * self._fixed)
        if self._half_day == "SESSION":
            this, following = islice((s for d in _days(day_of(opens)) for s in self._open_on(d) if s[1] > opens), 2)
            return (this[1] - opens + following[1] - following[0]) // MINUTE
        return round(amount * self._minutes(day_of(opens)))

    def _natural(self, begin: int, days: float, pauses: tuple[Span, ...]) -> int | None:
        """Calendar days from the day after acceptance, to the close of the last or of the next working day (§3.6 rule
        6). What pauses only after that does not move it, and it does not end in a pause.
        """
        start, counted = at(day_of(begin) + DAY, 0), 0
        while True:
            before = pauses[:counted]
            end = _moved(start, round(days * 1440) * MINUTE, before)
            due = None if end is None else self._close(day_of(end - 1), before)
            more = sum(due is None or s < due for s, _ in pauses)
            if more <= counted:
                return due
            counted = more

    def _close(self, day: date, pauses: Sequence[Span]) -> int | None:
        """Close of business of the first working day from ``day`` on that does not close in a pause."""
        for on in _days(day):
            if spans := self._open_on(on):
                close = spans[-1][1]
                if not any(s < close <= e for s, e in pauses):
                    return close
        return None

    def _open_on(self, day: date) -> tuple[Span, ...]:
        if day not in self._opened:
            self._opened[day] = tuple((at(day, opens), at(day, closes)) for opens, closes in self._hours(day))
        return self._opened[day]

    def _minutes(self, day: date) -> int:
        return sum(closes - opens for opens, closes in self._open_on(day)) // MINUTE


def _days(first: date) -> Iterator[date]:
    return (first + timedelta(days=n) for n in range(FAR))


def _minute(moment: int) -> int:
    return moment - moment % MINUTE


def _moved(start: int, left: int, pauses: Sequence[Span]) -> int | None:
    """When ``left`` ms have passed since ``start`` outside the pauses; None: beyond what a clock follows."""
    for begin, end in pauses:
        if begin - start >= left:
            break
        left -= max(begin - start, 0)
        start = max(start, end)
    reached = start + left
    return None if reached >= at(date.max - DAY, 0) else reached


REVISED = Offices(lambda day: SESSIONS if is_working(day) else ())
"""The simulated district's, with the revision of 2020 known."""
BEFORE_REVISION = Offices(lambda day: SESSIONS if is_working(day, False) else ())
