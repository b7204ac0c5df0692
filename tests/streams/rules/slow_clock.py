"""A second clock, written from DOMAIN 3.6 and 3.7 alone, that looks at every single minute; slow, and it shows.

Shares with ``streams.rules.clock`` nothing but the calendars as published (rows of ``reference.calendar.v1``). Run as a
program it compares the two on random cases: ``python tests/streams/rules/slow_clock.py 100000 [SEED]``; exit code 1 if
they differ. Minutes are local (Asia/Shanghai) since 1970-01-01 00:00.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

Minutes = npt.NDArray[np.bool_]
DAY = 1440
FIRST, LAST = 2002, 2032  # years that a comparison can reach
FIXED = {(1, 1), (5, 1), (10, 1), (10, 2), (10, 3)}  # DOMAIN 3.7: Mon-Fri minus fixed-date holidays
SECOND_OF_MAY = 2025  # a holiday since
REFERENCE_HOURS = ((540, 720), (780, 1020))  # DOMAIN 3.6: 09:00-12:00, 13:00-17:00
WORKING_DAY, NATURAL_DAY, HOUR, MINUTE, MONTH = "1", "2", "3", "4", "5"


@dataclass(frozen=True)
class Case:
    """What a clock is asked; ``pauses`` in any order, overlapping or not; None: still open."""

    accepted: int
    amount: float
    unit: str
    extension: float
    pauses: tuple[tuple[int, int | None], ...]
    mode: str


@dataclass(frozen=True)
class Answer:
    """What a clock says; None: an open pause comes before it."""

    due: int | None
    yellow: int | None
    provisional: bool


def number(on: date) -> int:
    """Day number since 1970-01-01."""
    return (on - date(1970, 1, 1)).days


class Offices:
    """Which minutes are office minutes, one flag for each minute of ``FIRST`` to ``LAST``."""

    def __init__(self, nation: Sequence[dict[str, Any]], district: Sequence[dict[str, Any]] = ()) -> None:
        self.base = number(date(FIRST, 1, 1)) * DAY
        self.open: Minutes = np.zeros((number(date(LAST + 1, 1, 1)) * DAY) - self.base, dtype=np.bool_)
        self.published: set[int] = set()
        for year in range(FIRST, LAST + 1):
            self._year(year, [r for rows in (district, nation) for r in rows if r["year"] == year])

    def _year(self, year: int, rows: list[dict[str, Any]]) -> None:
        days = next((r["days"] for r in rows if r["days"]), None)
        hours: list[dict[str, Any]] = next((r["hours"] for r in rows if r["hours"]), [])
        if days is not None:
            self.published.add(year)
        different = {d["day"]: d["working"] for d in days or ()}
        on = date(year, 1, 1)
        while on.year == year:
            off = (on.month, on.day) in FIXED or ((on.month, on.day) == (5, 2) and on.year >= SECOND_OF_MAY)
            usual = on.weekday() < 5 and (days is not None or not off)
            if different.get(on, usual):
                self._day(on, hours)
            on += timedelta(1)

    def _day(self, on: date, hours: Sequence[dict[str, Any]]) -> None:
        sessions: Iterable[tuple[int, int]] = REFERENCE_HOURS
        for span in hours:
            if span["from_on"] <= on and (span["to_on"] is None or on <= span["to_on"]):
                sessions = [(s["opens"], s["closes"]) for s in span["sessions"]]
        start = number(on) * DAY - self.base
        for opens, closes in sessions:
            self.open[start + opens : start + closes] = True

    def is_open(self, minute: int) -> bool:
        return bool(self.open[minute - self.base])

    def minutes_of(self, day: int) -> int:
        return int(self.open[day * DAY - self.base : (day + 1) * DAY - self.base].sum())

    def closing(self, day: int) -> int:
        """The minute after the day's last office minute."""
        return max(m + 1 for m in range(day * DAY, (day + 1) * DAY) if self.is_open(m))

    def next_open(self, minute: int) -> int:
        while not self.is_open(minute):
            minute += 1
        return minute

    def working_days_after(self, day: int, count: int) -> list[int]:
        """The next ``count`` working days; the day itself is not counted (民法典 201)."""
        found: list[int] = []
        while len(found) < count:
            day += 1
            if self.minutes_of(day):
                found.append(day)
        return found


class Counter:
    """Counts minutes one by one from ``start``: those that ``flags`` has (all, if None) outside the pauses."""

    def __init__(self, start: int, flags: Minutes | None, base: int, pauses: Iterable[tuple[int, int | None]]) -> None:
        self.start, self._flags, self._base, self._pauses = start, flags, base, list(pauses)
        self._count(200 * DAY)

    def _count(self, size: int) -> None:
        """Look at the next ``size`` minutes."""
        start, base = self.start, self._base
        self.whole = size >= number(date(LAST + 1, 1, 1)) * DAY - start
        size = min(size, number(date(LAST + 1, 1, 1)) * DAY - start)
        if self._flags is None:
            counts = np.ones(size, dtype=np.bool_)
        else:
            counts = self._flags[start - base : start - base + size].copy()
        for begin, end in self._pauses:
            counts[max(begin - start, 0) : size if end is None else max(end - start, 0)] = False
        self.consumed = np.concatenate(([0], np.cumsum(counts)))

    def passed(self, minute: int) -> int:
        """Minutes counted before ``minute``."""
        while minute - self.start >= len(self.consumed):
            self._count(8 * len(self.consumed))
        return int(self.consumed[minute - self.start])

    def first(self, reached: Any) -> int | None:
        """The first minute at which ``reached(consumed)`` holds; None: never."""
        found = np.flatnonzero(reached(self.consumed))
        if len(found):
            return self.start + int(found[0])
        if self.whole or any(end is None for _, end in self._pauses):
            return None
        self._count(8 * len(self.consumed))
        return self.first(reached)


def answer(offices: Offices, case: Case) -> Answer:
    """Due and yellow minute by counting (DOMAIN 3.6 rules 1-6, 4.2)."""
    total = case.amount + case.extension
    if case.unit in (NATURAL_DAY, MONTH) and total > 0:
        due, yellow = _natural(offices, case, total * (30 if case.unit == MONTH else 1))
    else:
        due, yellow = _office(offices, case, total)
    first, last = (date(1970, 1, 1) + timedelta(m // DAY) for m in (case.accepted, due or case.accepted))
    years = set(range(first.year, last.year + 1))
    return Answer(due, yellow, not years <= offices.published)


def _office(offices: Offices, case: Case, total: float) -> tuple[int | None, int | None]:
    opened, budget, last = _budget(offices, case, total)
    counter = Counter(opened, offices.open, offices.base, case.pauses)
    longer = total > 1 if case.unit == WORKING_DAY else budget > last
    yellow = counter.first(lambda c: (c * 100 >= budget * 80) | (longer & (budget - c <= last)))
    return counter.first(lambda c: c >= budget), yellow


def _budget(offices: Offices, case: Case, total: float) -> tuple[int, int, int]:
    """(first minute that counts, office minutes to consume, office minutes of the last day)."""
    accepted_on = case.accepted // DAY
    if case.unit == WORKING_DAY and total >= 1:
        days = offices.working_days_after(accepted_on, int(total) + (total > int(total)))
        opened = offices.next_open(days[0] * DAY)
        budget = sum(offices.minutes_of(d) for d in days[: int(total)])
        part = round((total - int(total)) * offices.minutes_of(days[-1]))
        return opened, budget + part, offices.minutes_of(days[-1])
    opened = offices.next_open(case.accepted)
    length = offices.minutes_of(opened // DAY)
    if total <= 0:  # on the spot: until the office closes
        return opened, sum(map(offices.is_open, range(opened, (opened // DAY + 1) * DAY))), length
    if case.unit in (HOUR, MINUTE):
        return opened, round(total * (60 if case.unit == HOUR else 1)), length
    return opened, _half_day(offices, case.mode, opened, total, length), length


def _half_day(offices: Offices, mode: str, opened: int, total: float, length: int) -> int:
    if mode == "FIXED_4H":
        return round(total * 480)
    if mode == "BUSINESS_MINUTES":
        return round(total * length)
    minute = opened  # SESSION: the session it opens in, and the next one
    for _ in range(2):
        minute = offices.next_open(minute)
        while offices.is_open(minute):
            minute += 1
    return sum(map(offices.is_open, range(opened, minute)))


def _natural(offices: Offices, case: Case, days: float) -> tuple[int | None, int | None]:
    """Calendar days from the day after acceptance. The limit ends with the office hours of the last day, or of the
    next working day; what begins after it has ended does not move it, and it does not end in a pause.
    """
    opened = (case.accepted // DAY + 1) * DAY
    budget = round(days * DAY)
    pauses: list[tuple[int, int | None]] = []
    while True:
        counter = Counter(opened, None, offices.base, pauses)
        end = counter.first(lambda c: c >= budget)
        due = None if end is None else _closing(offices, (end - 1) // DAY, pauses)
        more = [p for p in case.pauses if p not in pauses and (due is None or p[0] < due)]
        if not more:
            break
        pauses += more
    yellow = counter.first(lambda c: c * 100 >= budget * 80)
    if due is not None and yellow is not None and days > 1:
        office = Counter(opened, offices.open, offices.base, pauses)
        until, last = office.passed(due), offices.minutes_of((due - 1) // DAY)
        left = office.first(lambda c: until - c <= last)
        yellow = yellow if left is None else min(yellow, left)
    return due, yellow


def _closing(offices: Offices, day: int, pauses: Iterable[tuple[int, int | None]]) -> int | None:
    """Close of business of the first working day from ``day`` on that does not close in a pause."""
    pauses = list(pauses)
    while day * DAY < offices.base + len(offices.open):
        if offices.minutes_of(day):
            close = offices.closing(day)
            if not any(begin < close and (end is None or close <= end) for begin, end in pauses):
                return close
        day += 1
    return None


# --- random cases -----------------------------------------------------------------------------------------------------


def calendars(rng: random.Random, rows: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The nation's rows without a few years, and a district's own: summer hours, a closure, both or nothing."""
    nation = [r for r in rows if rng.random() < 0.9]
    district = []
    for row in nation:
        if rng.random() < 0.3:
            district.append({**row, "region": "430903", "days": [], "hours": _summer(rng, row["year"])})
        elif rng.random() < 0.2:
            on = date(row["year"], 1, 1) + timedelta(rng.randrange(365))
            days = [d for d in row["days"] if d["day"] != on]
            closed = {"day": on, "working": False, "name": "local closure"}
            district.append({**row, "region": "430903", "days": [*days, closed], "hours": []})
    for year in (2003, 2027, 2028):  # a district may know its hours before the nation has a calendar
        if rng.random() < 0.3:
            district.append({**rows[0], "region": "430903", "year": year, "days": [], "hours": _summer(rng, year)})
    return nation, district


def _summer(rng: random.Random, year: int) -> list[dict[str, Any]]:
    """All year the reference hours, in summer others; sometimes an afternoon off for good."""
    whole = {"from_on": date(year, 1, 1), "to_on": None, "sessions": _sessions(*REFERENCE_HOURS)}
    summer = rng.choice([((510, 720), (870, 1050)), ((540, 735), (900, 1080)), ((480, 840),), ((540, 720),)])
    span = {"from_on": date(year, 6, rng.randint(1, 30)), "to_on": date(year, 9, rng.randint(1, 30))}
    return [whole, {**span, "sessions": _sessions(*summer)}]


def _sessions(*pairs: tuple[int, int]) -> list[dict[str, int]]:
    return [{"opens": opens, "closes": closes} for opens, closes in pairs]


def random_case(rng: random.Random) -> Case:
    """Accepted 2003-2027, at any minute or in one where something opens or closes."""
    day = rng.randrange(number(date(2003, 6, 1)), number(date(2027, 12, 31)))
    minute = rng.choice((rng.randrange(DAY), 539, 540, 719, 720, 780, 1010, 1019, 1020))
    unit = rng.choice((WORKING_DAY, WORKING_DAY, WORKING_DAY, NATURAL_DAY, HOUR, MINUTE, MONTH))
    amounts = {WORKING_DAY: (0, 0.25, 0.5, 0.5, 1, 1.5, 2, 3, 5, 10, 20, 40, 100), NATURAL_DAY: (0, 1, 2, 7, 15, 60),
               HOUR: (0, 1, 3, 7.5, 24), MINUTE: (1, 30, 500), MONTH: (0.5, 1, 2)}  # fmt: skip
    extension = rng.choice((0, 0, 0, 0.5, 1, 5, 10)) if unit != MINUTE else 0
    accepted = day * DAY + minute
    return Case(accepted, rng.choice(amounts[unit]), unit, extension, _pauses(rng, accepted), _mode(rng))


def _mode(rng: random.Random) -> str:
    return rng.choice(("BUSINESS_MINUTES", "BUSINESS_MINUTES", "FIXED_4H", "SESSION"))


def _pauses(rng: random.Random, accepted: int) -> tuple[tuple[int, int | None], ...]:
    found: list[tuple[int, int | None]] = []
    reach = rng.choice((2, 10, 60)) * DAY
    for _ in range(rng.choice((0, 0, 1, 1, 2, 3))):
        begin = accepted + rng.randrange(-DAY, reach)
        end = None if rng.random() < 0.1 else begin + rng.choice((rng.randrange(1, 300), rng.randrange(1, 15 * DAY)))
        found.append((begin, end))
    return tuple(found)


def differences(count: int, seed: int, calendar_every: int = 500) -> Iterable[tuple[Case, Answer, Answer]]:
    """The cases, of ``count``, on which the slow clock and the product's differ: (case, slow, fast)."""
    from connectors.intake.calendar import calendar_rows

    rng = random.Random(seed)
    rows = list(calendar_rows(occurred_at=0, department="HS-XZSPJ"))
    for begin in range(0, count, calendar_every):
        nation, district = calendars(rng, rows)
        offices, fast = Offices(nation, district), _fast(nation, district)
        for _ in range(min(calendar_every, count - begin)):
            case = random_case(rng)
            said, wanted = fast(case), answer(offices, case)
            if said != wanted:
                yield case, wanted, said


def _fast(nation: Sequence[dict[str, Any]], district: Sequence[dict[str, Any]]) -> Any:
    """The product's clock over the same rows."""
    from streams.rules import clock
    from streams.rules.calendar import CalendarHistory, Publication
    from streams.rules.limits import Limit, counting

    known = CalendarHistory(Publication.of({**r, "received_at": 0}) for r in (*nation, *district))
    calendar = known.known_at(0, "430903")

    def ask(case: Case) -> Answer:
        how = clock.counting_in(counting(), case.mode)  # type: ignore[arg-type]
        limit = Limit(case.amount, case.unit)
        line = clock.deadline(calendar, case.accepted, limit, how, clock.union(case.pauses), case.extension)
        return Answer(line.due, line.yellow, line.provisional)

    return ask


def main(count: int, seed: int) -> int:
    """Compare, show what differs, and how many."""
    found = 0
    for case, wanted, said in differences(count, seed):
        found += 1
        if found <= 10:
            print(case, f"  slow {wanted}", f"  fast {said}", sep="\n")
    print(f"{count} cases, seed {seed}: {found} differences")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1))
