"""Which minutes are office minutes, as known at a moment. Decides from published records alone; knows no
clock.

Local time is Asia/Shanghai, a fixed UTC+8. A *minute* is a count of local minutes since 1970-01-01 00:00
local time, a
*day* a count of local days since then; both are plain integers, so that counting is subtraction and
bisection.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache, lru_cache
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from schemas.clock import OFFSET_MS
from schemas.errors import Fault
from streams.rules.data import data

EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
DAY_MINUTES = 1440
MINUTE_MS = 60_000
OFFSET_MINUTES = OFFSET_MS // MINUTE_MS
NATION = "000000"
DISTRICT_DIGITS = 6
"""Of a region code (GB/T 2260); three more name a township (DOMAIN §1.2)."""
Sessions = tuple[tuple[int, int], ...]


def minute_of(epoch_ms: int) -> int:
    """Local minute in which ``epoch_ms`` (UTC) falls; seconds are cut, after DOMAIN 3.6 rule 4 (minute
    precision).
    """
    return epoch_ms // MINUTE_MS + OFFSET_MINUTES


def epoch_ms(minute: int) -> int:
    """Epoch milliseconds UTC at which the local ``minute`` begins."""
    return (minute - OFFSET_MINUTES) * MINUTE_MS


def day_of(on: date) -> int:
    """Local day number of a date."""
    return on.toordinal() - EPOCH_ORDINAL


def date_of(day: int) -> date:
    """Date of a local day number; days beyond what ``date`` can name give its last one."""
    return date.fromordinal(min(day + EPOCH_ORDINAL, date.max.toordinal()))


def day_at(ms: int) -> date:
    """Day in Asia/Shanghai of an epoch-ms moment."""
    return date_of(minute_of(ms) // DAY_MINUTES)


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds where nothing is published: office hours, fixed holidays as (month, day) with the first year of each,
    years.
    """

    sessions: Sessions
    fixed: Mapping[tuple[int, int], int]
    first: int
    last: int

    def holiday(self, on: date) -> bool:
        """Whether ``on`` is a fixed holiday."""
        since = self.fixed.get((on.month, on.day))
        return since is not None and since <= on.year


@cache
def defaults() -> Defaults:
    """The defaults of ``calendar.toml``."""
    raw = data("calendar")
    fixed = {(int(text[:2]), int(text[3:])): since for text, since in raw["holidays"]["fixed"].items()}
    return Defaults(_sessions(raw["hours"]["sessions"]), fixed, raw["range"]["first"], raw["range"]["last"])


def _sessions(raw: Iterable[Sequence[int]]) -> Sessions:
    return tuple((opens, closes) for opens, closes in sorted((s[0], s[1]) for s in raw) if closes > opens)


@dataclass(frozen=True, slots=True)
class Hours:
    """Office hours from day ``first`` to day ``last`` inclusive (None: for good)."""

    first: int
    last: int | None
    sessions: Sessions


@dataclass(frozen=True, slots=True)
class Publication:
    """One ``reference.calendar.v1`` record: the year's days that differ from Mon-Fri, its hours, when it
    was known.
    """

    region: str
    year: int
    revision: int
    version: str
    received_at: int
    days: tuple[tuple[int, bool], ...]
    hours: tuple[Hours, ...]

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Publication:
        """From a record of the contract (dates as ``date`` or ISO text)."""
        days = tuple(sorted((day_of(_date(d["day"])), bool(d["working"])) for d in record["days"]))
        return cls(
            record["region"],
            record["year"],
            record["revision"],
            record["calendar_version"],
            record["received_at"],
            days,
            tuple(_hours(h) for h in record["hours"]),
        )


def fault(record: Mapping[str, Any]) -> Fault | None:
    """Why a record of ``reference.calendar.v1`` is no calendar, if it is none."""
    span = defaults()
    if not span.first <= record["year"] <= span.last:
        return Fault("bad_format", "year", f"lies outside the years {span.first} to {span.last}, which can be counted")
    days = [_date(d["day"]) for d in record["days"]]
    if any(day.year != record["year"] for day in days):
        return Fault("bad_format", "days", "a day lies in another year", "put it into that year's calendar")
    if len(set(days)) < len(days):
        return Fault("bad_format", "days", "a day is there twice", "say of each day once whether it is worked")
    if not all(_fit(hours["sessions"]) for hours in record["hours"]):
        mend = "give opens before closes, minutes of the day from 0 to 1440, one session after the other"
        return Fault("bad_format", "hours", "the sessions of a day do not follow each other", mend)
    return None


def _fit(sessions: Iterable[Mapping[str, int]]) -> bool:
    spans = sorted((s["opens"], s["closes"]) for s in sessions)
    follow = all(closed <= opens for (_, closed), (opens, _) in pairwise(spans))
    return follow and all(0 <= opens < closes <= DAY_MINUTES for opens, closes in spans)


def _date(value: date | str) -> date:
    return date.fromisoformat(value) if isinstance(value, str) else value


def _hours(raw: Mapping[str, Any]) -> Hours:
    last = raw.get("to_on")
    sessions = _sessions((s["opens"], s["closes"]) for s in raw["sessions"])
    return Hours(day_of(_date(raw["from_on"])), None if last is None else day_of(_date(last)), sessions)


Chosen = tuple[Publication, ...]  # the publications in force for one year: the district's first, then the nation's
Chain = tuple[Publication, ...]  # one region's publications of one year, rising in revision; the last is in force
Ranges = tuple[tuple[int, int], ...]  # first and last days, rising and disjoint


@lru_cache(maxsize=1024)
def changed(old: Publication, new: Publication) -> Ranges:
    """The days about which two publications of one region and year say otherwise; all of the year where one has days or
    hours and the other leaves them to somebody else.
    """
    first, last = day_of(date(new.year, 1, 1)), day_of(date(new.year, 12, 31))
    if bool(old.days) != bool(new.days) or bool(old.hours) != bool(new.hours):
        return ((first, last),)
    before, after = dict(old.days), dict(new.days)
    ranges: list[tuple[int, int]] = []
    for day in range(first, last + 1):
        if before.get(day) != after.get(day) or _hours_on(day, old.hours) != _hours_on(day, new.hours):
            begin = ranges.pop()[0] if ranges and ranges[-1][1] == day - 1 else day
            ranges.append((begin, day))
    return tuple(ranges)


def touched(ranges: Ranges, first: int, last: int) -> bool:
    """Whether one of ``ranges`` has a day from ``first`` to ``last``."""
    return any(begin <= last and end >= first for begin, end in ranges)


class Year(NamedTuple):
    """The days of one year: the sessions of each, empty on days off; office minutes and working days before each of
    them and before the next year.
    """

    sessions: tuple[Sessions, ...]
    minutes: Sequence[int]
    days: Sequence[int]


@lru_cache(maxsize=2048)
def _year(year: int, chosen: Chosen) -> Year:
    """``year`` as ``chosen`` has it, shared by all calendars; ``chosen`` empty: Mon-Fri without fixed holidays."""
    first = day_of(date(year, 1, 1))
    count = day_of(date(year + 1, 1, 1)) - first
    different = dict(next((p.days for p in chosen if p.days), ()))
    hours = next((p.hours for p in chosen if p.hours), ())
    known = any(p.days for p in chosen)  # office hours alone are no calendar
    sessions = tuple(
        _hours_on(day, hours) if _working(day, different, known) else () for day in range(first, first + count)
    )
    lengths = [sum(closes - opens for opens, closes in of_day) for of_day in sessions]
    return Year(sessions, _sums(lengths), _sums(1 if n else 0 for n in lengths))


def _sums(numbers: Iterable[int]) -> Sequence[int]:
    return array("i", accumulate(numbers, initial=0))


def _working(day: int, different: Mapping[int, bool], known: bool) -> bool:
    if day in different:
        return different[day]
    on = date_of(day)
    return on.weekday() < 5 and (known or not defaults().holiday(on))


def _hours_on(day: int, hours: Sequence[Hours]) -> Sessions:
    for span in reversed(hours):
        if span.first <= day and (span.last is None or day <= span.last):
            return span.sessions
    return defaults().sessions


class Calendar:
    """Working days and office minutes of one region, as one set of publications has them. Immutable; equal by
    identity. ``chains``: for each year those of the region itself, of its district and of the nation, in this order.

    Never raises for a date: an unknown year is counted Mon-Fri without fixed holidays and is *provisional*,
    days
    outside the countable range saturate. Look-ups take O(log n).
    """

    __slots__ = ("_days", "_firsts", "_minutes", "_versions", "_years")

    def __init__(self, chains: Mapping[int, tuple[Chain, ...]]) -> None:
        span = range(defaults().first, defaults().last + 1)
        chosen = {year: tuple(chain[-1] for chain in found) for year, found in chains.items()}
        self._years = [_year(year, chosen.get(year, ())) for year in span]
        self._firsts = [day_of(date(year, 1, 1)) for year in (*span, span.stop)]
        self._minutes = _sums(y.minutes[-1] for y in self._years)
        self._days = _sums(y.days[-1] for y in self._years)
        known = {year for year, ps in chosen.items() if any(p.days for p in ps)}
        self._versions = {year: tuple(_steps(chain) for chain in chains[year]) for year in known}

    def _at(self, day: int) -> tuple[int, int]:
        """Which year of the range, which day of it; ``day`` lies in the range."""
        year = bisect_right(self._firsts, day) - 1
        return year, day - self._firsts[year]

    def sessions(self, day: int) -> Sessions:
        """Office sessions of a day as (opens, closes) minutes of the day; empty: a day off."""
        if not self._firsts[0] <= day < self._firsts[-1]:
            return ()
        year, index = self._at(day)
        return self._years[year].sessions[index]

    def working(self, day: int) -> bool:
        """Whether the day is a working day."""
        return bool(self.sessions(day))

    def length(self, day: int) -> int:
        """Office minutes of a day."""
        return sum(closes - opens for opens, closes in self.sessions(day))

    def counted(self, minute: int) -> int:
        """Office minutes before ``minute``, from the beginning of the countable range."""
        day = minute // DAY_MINUTES
        if not self._firsts[0] <= day < self._firsts[-1]:
            return 0 if day < self._firsts[0] else self._minutes[-1]
        number, index = self._at(day)
        year, within = self._years[number], minute % DAY_MINUTES
        today = sum(min(within, c) - o for o, c in year.sessions[index] if within > o)
        return self._minutes[number] + year.minutes[index] + today

    def reached(self, counted: int) -> int:
        """The first minute before which ``counted`` office minutes have passed (the close of a session, not
        the next).
        """
        number = _before(self._minutes, counted)
        year, left = self._years[number], counted - self._minutes[number]
        index = _before(year.minutes, left)
        left, start = left - year.minutes[index], (self._firsts[number] + index) * DAY_MINUTES
        for opens, closes in year.sessions[index]:
            if left <= closes - opens:
                return start + opens + left
            left -= closes - opens
        return start + DAY_MINUTES

    def nth_working_day(self, after: int, count: int) -> int:
        """The ``count``-th working day after the day ``after`` (that day itself is not counted, 民法典
        201).
        """
        wanted = self._worked(after + 1) + count
        year = _before(self._days, wanted)
        return self._firsts[year] + _before(self._years[year].days, wanted - self._days[year])

    def _worked(self, day: int) -> int:
        """Working days before ``day``, from the beginning of the countable range."""
        if not self._firsts[0] <= day < self._firsts[-1]:
            return 0 if day < self._firsts[0] else self._days[-1]
        year, index = self._at(day)
        return self._days[year] + self._years[year].days[index]

    def close(self, day: int) -> int:
        """Close of business of ``day``, or of the next working day where it is a day off (民法典 203)."""
        if not self.sessions(day):
            day = self.nth_working_day(day, 1)
        return day * DAY_MINUTES + self.sessions(day)[-1][1] if self.sessions(day) else (day + 1) * DAY_MINUTES

    def provisional(self, first: int, last: int) -> bool:
        """Whether a day between two minutes lies in a year without a published calendar."""
        return any(year not in self._versions for year in _years(first, last))

    def version(self, first: int, last: int) -> str:
        """Versions of the calendars used between two minutes, e.g. ``2020-r1`` or ``2026-r1 2027-provisional``.

        A revision that changes none of these days leaves the version that settled them, so that nothing that counts
        them need be judged again.
        """
        days = first // DAY_MINUTES, max(first, last) // DAY_MINUTES
        return " ".join(self._version(year, *days) for year in _years(first, last))

    def _version(self, year: int, first: int, last: int) -> str:
        if year not in self._versions:
            return f"{year}-provisional"
        return "+".join(_settled(steps, first, last) for steps in self._versions[year])


def _before(sums: Sequence[int], number: int) -> int:
    """The last place whose sum is less than ``number``, among those that another follows."""
    return min(max(bisect_left(sums, number) - 1, 0), len(sums) - 2)


Steps = tuple[tuple[str, Ranges | None], ...]  # version and what it changed, newest first; None: the first one


def _steps(chain: Chain) -> Steps:
    before = (None, *chain[:-1])
    steps = ((p.version, None if old is None else changed(old, p)) for old, p in zip(before, chain, strict=True))
    return tuple(reversed(list(steps)))


def _settled(steps: Steps, first: int, last: int) -> str:
    """The last version that changed a day from ``first`` to ``last``."""
    return next(version for version, ranges in steps if ranges is None or touched(ranges, first, last))


def _years(first: int, last: int) -> range:
    return range(date_of(first // DAY_MINUTES).year, date_of(max(last, first) // DAY_MINUTES).year + 1)


def _names(region: str) -> tuple[str, str, str]:
    """Whose calendar a region goes by, nearest first: its own, its district's, the nation's."""
    return region, region[:DISTRICT_DIGITS], NATION


class CalendarHistory:
    """Every publication, and what was known of a region's calendar at any moment. Immutable."""

    def __init__(self, publications: Iterable[Publication] = ()) -> None:
        self._all = tuple(sorted(publications, key=lambda p: (p.received_at, p.region, p.year, p.revision)))
        self._changes: dict[str, tuple[int, ...]] = {}
        self._known: dict[tuple[str, int], Calendar] = {}

    def changes(self, region: str) -> tuple[int, ...]:
        """The moments (epoch ms, rising) at which knowledge of ``region``'s calendar changed."""
        if region not in self._changes:
            names = _names(region)
            self._changes[region] = tuple(sorted({p.received_at for p in self._all if p.region in names}))
        return self._changes[region]

    def known_at(self, moment: int, region: str) -> Calendar:
        """The calendar of ``region`` as known at ``moment``: its own publications, else the nation's, year
        by year.
        """
        changes = self.changes(region)
        index = bisect_right(changes, moment)
        return self._at(region, changes[index - 1] if index else -1)

    def _at(self, region: str, moment: int) -> Calendar:
        known = self._known.get((region, moment))
        if known is None:
            known = self._known[region, moment] = self._build(region, moment)
        return known

    def _build(self, region: str, moment: int) -> Calendar:
        chains: dict[tuple[int, int], list[Publication]] = {}
        for p in self._all:
            if p.received_at <= moment and p.region in _names(region):
                chains.setdefault((p.year, _names(region).index(p.region)), []).append(p)
        rising = (tuple(sorted(found, key=lambda p: p.revision)) for _, found in sorted(chains.items()))
        return _calendar(tuple(rising))


@lru_cache(maxsize=32)
def _calendar(chains: tuple[Chain, ...]) -> Calendar:
    """The calendar of publications ordered by year, the district's before the nation's."""
    years: dict[int, tuple[Chain, ...]] = {}
    for chain in chains:
        years[chain[-1].year] = (*years.get(chain[-1].year, ()), chain)
    return Calendar(years)
