"""The simulator's own working-day clock: slow, day by day, sharing nothing with ``streams``.

Office hours 09:00-12:00 and 13:00-17:00, 420 minutes a day (DOMAIN §3.6). Working days are those of
``chinesecalendar``; for 2020, what was known before the State Council extended the Spring Festival differs
(DOMAIN §3.7). Times are epoch milliseconds UTC; minutes of the day are Asia/Shanghai.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from functools import lru_cache

import chinese_calendar

SHANGHAI = timezone(timedelta(hours=8))
EPOCH = date(1970, 1, 1).toordinal()
MINUTE = 60_000
DAY = timedelta(days=1)
SESSIONS = ((9 * 60, 12 * 60), (13 * 60, 17 * 60))
MINUTES_A_DAY = sum(closes - opens for opens, closes in SESSIONS)
WORKED_BEFORE_THE_REVISION = frozenset({date(2020, 1, 31), date(2020, 2, 1)})
FAR = 1_500  # days after which a clock gives up; a hundred working days overrun fourfold take fewer

Span = tuple[int, int]


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


def next_working(day: date, revised: bool = True) -> date:
    """The first working day after ``day``."""
    day += DAY
    while not is_working(day, revised):
        day += DAY
    return day


def sessions(start: date, revised: bool) -> Iterator[Span]:
    """Open hours from ``start`` on, as (opens, closes) in epoch ms."""
    for offset in range(FAR):
        yield from _open_on(start + timedelta(days=offset), revised)


@lru_cache(maxsize=4096)
def _open_on(day: date, revised: bool) -> tuple[Span, ...]:
    if not is_working(day, revised):
        return ()
    return tuple((at(day, opens), at(day, closes)) for opens, closes in SESSIONS)


def without(span: Span, pauses: Sequence[Span]) -> list[Span]:
    """``span`` less the union of ``pauses``."""
    pieces = [span]
    for begin, end in pauses:
        pieces = [p for s, e in pieces for p in ((s, min(e, begin)), (max(s, end), e)) if p[0] < p[1]]
    return pieces


def after(start: int, minutes: float, pauses: Sequence[Span] = (), revised: bool = True) -> int | None:
    """The moment at which ``minutes`` of open hours have been consumed since ``start``; None if never."""
    return _after(start, minutes, tuple(pauses), revised)


@lru_cache(maxsize=262_144)
def _after(start: int, minutes: float, pauses: tuple[Span, ...], revised: bool) -> int | None:
    left = round(minutes * MINUTE)
    for opens, closes in sessions(day_of(start), revised):
        if closes <= start:
            continue
        for begin, end in without((max(opens, start), closes), pauses):
            if end - begin >= left:
                return begin + left
            left -= end - begin
    return None


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Yellow and due moments of one limit; None: never (always paused)."""

    yellow: int | None
    due: int | None


def deadlines(accepted: int, days: float, pauses: Sequence[Span] = (), revised: bool = True) -> Deadlines:
    """Due after ``days`` working days; yellow at 80 % consumed or one day left, whichever is first (§4.2)."""
    start = accepted if days < 1 else at(next_working(day_of(accepted), revised), 0)
    total = days * MINUTES_A_DAY
    warn = 0.8 * total if days <= 1 else min(0.8 * total, total - MINUTES_A_DAY)
    return Deadlines(after(start, warn, pauses, revised), after(start, total, pauses, revised))
