"""Cases that share a clock or are handled as one: construction projects and joint applications (一件事一次办).

A group is derived from the *sets* of its members' events, up to a horizon below which all of them are known; in which
order the members came cannot matter. Which case belongs to which group is said by ``keys``. Decides nothing about a
single case, and reads no clock, broker or database.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from msgspec import structs

from streams.rules import cards, clock, clocks
from streams.rules.calendar import DAY_MINUTES, DISTRICT_DIGITS, Calendar, minute_of
from streams.rules.cards import GROUP, Alert, Knowledge
from streams.rules.clocks import Line
from streams.rules.judge import About, Decision, References, differences, remember, told, why
from streams.rules.lifecycle import VAIN, VOID, CaseEvent, Course, course
from streams.rules.limits import (
    GroupRule,
    Limit,
    counting,
    group_rules,
    in_force,
    item_versions,
    judging,
    policy,
    versions_of,
)
from streams.rules.state import Spoken

PROJECT, BUNDLE = "project", "bundle"
BEFORE, DURING, AFTER = "BEFORE", "DURING", "AFTER"
Members = Mapping[str, Sequence[CaseEvent]]


def keys(events: Iterable[CaseEvent]) -> tuple[str, ...]:
    """The groups that a case with these events belongs to, as ``project/430903/<investment project code>`` or
    ``bundle/430903/<bundle_no>``.
    """
    found = {f"{PROJECT}/{e.region[:DISTRICT_DIGITS]}/{e.project}" for e in events if _names(e.project)}
    found |= {f"{BUNDLE}/{e.region[:DISTRICT_DIGITS]}/{e.bundle}" for e in events if _names(e.bundle)}
    return tuple(sorted(found))


def _names(code: str) -> bool:
    """Whether it can be the number of anything: 无, 0 or / stand in the field of cases that have nothing in common."""
    return any(digit in code for digit in "123456789")


@dataclass(frozen=True, slots=True)
class Planned:
    """An item that a joint application consists of, and the limit it promises."""

    item_code: str
    name: str
    department: str
    promise: Limit


def plan(code: str, items: Mapping[str, Sequence[Mapping[str, Any]]], day: int) -> tuple[Planned, ...]:
    """What a joint application consists of by the versions in force on ``day`` (local day number). ``code``: what cases
    bear in bundle_code; ``items``: records of ``service.item.v1`` by item code.
    """
    found: list[Planned] = []
    for item_code, records in sorted(items.items()):
        version = in_force(item_versions(records), day)
        if version is None:
            continue
        published = (r for r in reversed(records) if r["event_type"] == "item.published")
        record = next(r for r in published if r["item_version"] == version.version)
        if code in record.get("bundle_codes", ()):
            found.append(Planned(item_code, record["name"], record["department"], version.promise))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Part:
    """One member as far as known."""

    case_no: str
    item_code: str
    department: str
    status: str
    accepted_at: int | None
    stopped_at: int | None


@dataclass(frozen=True, slots=True)
class GroupState:
    """A group as derived up to its horizon. Times epoch ms UTC. ``stage``: BEFORE any member is accepted, DURING, AFTER
    all have ended. ``limit_rule`` and the times are empty where the group has no clock of its own.

    ``next_check_at``: when it must be derived again though nothing new is told; None: never.
    """

    key: str
    region: str
    department: str
    stage: str = BEFORE
    limit_rule: str = ""
    parts: tuple[Part, ...] = ()
    accepted_at: int | None = None
    due_at: int | None = None
    yellow_at: int | None = None
    ended_at: int | None = None
    on_time: bool | None = None
    provisional: bool = False
    used_minutes: int | None = None
    calendar_version: str = ""
    alerts: tuple[Alert, ...] = ()
    next_check_at: int | None = None
    spoken: Mapping[str, Spoken] = field(default_factory=dict, compare=False)

    def dump(self) -> list[list[Any]]:
        """The parts, as JSON."""
        return [[p.case_no, p.item_code, p.department, p.status, p.accepted_at, p.stopped_at] for p in self.parts]


def derive(
    key: str, members: Members, references: References, horizon: int, spoken: Mapping[str, Spoken]
) -> tuple[GroupState, tuple[Decision, ...]]:
    """The group whose members have the events ``members`` (each in log order), as known up to ``horizon`` (epoch
    ms), and what to say. What becomes known later is left for later.
    """
    known = {no: events[: _count(events, horizon)] for no, events in sorted(members.items())}
    lives = [_Life(no, tuple(events), references, horizon) for no, events in known.items() if events]
    ahead = [events[len(known[no])].known_at for no, events in members.items() if len(events) > len(known[no])]
    if not lives:
        return GroupState(key, key.split("/")[1], "", next_check_at=min(ahead, default=None)), ()
    state = _judged(key, lives, references, horizon, ahead)
    about = About(state.region, state.department, "", max(life.events[-1].known_at for life in lives))
    decisions = tuple(differences(spoken, state.alerts, about, horizon))
    return replace(state, spoken=remember(spoken, decisions)), decisions


def explained(key: str, members: Members, references: References, at: int) -> tuple[Line, Calendar] | None:
    """The group's own clock as known at ``at`` (epoch ms) and the calendar it counts by; None if it has none."""
    known = {no: tuple(events[: _count(events, at)]) for no, events in sorted(members.items())}
    view = _view(key, [_Life(no, events, references, at) for no, events in known.items() if events], references, at)
    return None if view.line is None or view.calendar is None else (view.line, view.calendar)


def _count(events: Sequence[CaseEvent], horizon: int) -> int:
    return bisect_right(events, horizon, key=lambda e: e.known_at)


class _Life:
    """A member over knowledge time: what it was from which moment on. Lives for one call of :func:`derive`."""

    def __init__(self, case_no: str, events: tuple[CaseEvent, ...], references: References, horizon: int) -> None:
        self.case_no, self.events = case_no, events
        self.changes = references.calendars.changes(events[0].region)
        self.later: list[int] = []
        self._at: list[int] = []
        self._seen: list[Course | None] = []
        moments = sorted({e.known_at for e in events} | {c for c in self.changes if events[0].known_at < c <= horizon})
        for number, at in enumerate(moments):
            until = moments[number + 1] if number + 1 < len(moments) else None
            self._live(at, until, references.calendars.known_at(at, events[0].region), horizon)

    def _live(self, at: int, until: int | None, calendar: Calendar, horizon: int) -> None:
        """The course under one state of knowledge; silence may make it accepted before the next."""
        told = self.events[: _count(self.events, at)]
        seen = course(told, calendar, counting(), cards.practice())
        deemed = seen.deemed_at
        if deemed is None or deemed <= at:
            self._begin(at, seen)
            return
        self._begin(at, structs.replace(seen, accepted_at=None, status="SUBMITTED"))
        if deemed <= horizon and (until is None or deemed < until):
            self._begin(deemed, seen)
        elif until is None:
            self.later.append(deemed)

    def _begin(self, at: int, seen: Course) -> None:
        self._at.append(at)
        self._seen.append(seen)

    @property
    def moments(self) -> list[int]:
        """When anything about it changed."""
        return self._at

    def at(self, moment: int) -> Course | None:
        """What it was at ``moment``; None: not yet known."""
        index = bisect_right(self._at, moment)
        return self._seen[index - 1] if index else None

    def told_at(self, moment: int) -> list[str]:
        """What the events that became known at ``moment`` do."""
        return [told(e) for e in self.events if e.known_at == moment]


Known = list[tuple[_Life, Course]]


@dataclass(frozen=True, slots=True)
class _View:
    """The group under one state of knowledge."""

    known: Known
    rule: str = ""
    lead: str = ""
    line: Line | None = None
    calendar: Calendar | None = None


def _judged(
    key: str, lives: Sequence[_Life], references: References, horizon: int, ahead: Iterable[int]
) -> GroupState:
    moments = sorted({at for life in lives for at in life.moments})
    codes = {life.events[0].item_code for life in lives}
    clocked = any(version.rule in policy() for code in codes for version in versions_of(references.items, code))
    history: list[Knowledge] = []
    for at in moments if clocked else moments[-1:]:  # without a clock there never is a card
        view = _view(key, lives, references, at)
        found = () if view.line is None else tuple(clocks.grounds(view.line))
        pauses = () if view.line is None else clocks.in_ms(view.line.pauses)
        hold = max((seen.hold_until for _, seen in view.known if seen.status != VOID), default=0)
        history.append(Knowledge(at, found, pauses, hold, _why(lives, at), _lead(view)))
    alerts, upcoming = cards.alerts(key, history, horizon)
    later = (t for life in lives for t in (*life.later, *life.changes))
    waiting = [*ahead, *later, *([upcoming] if upcoming else [])]
    return _state(key, view, alerts, min((t for t in waiting if t > horizon), default=None))


def _why(lives: Sequence[_Life], at: int) -> str:
    new = [name for life in lives for name in life.told_at(at)]
    return why(new) if new or any(at in life.changes for life in lives) else "no_longer_derived"


def _view(key: str, lives: Sequence[_Life], references: References, at: int) -> _View:
    known = [(life, seen) for life in lives if (seen := life.at(at)) is not None]
    begun = [(life, seen) for life, seen in known if seen.accepted_at is not None and seen.status != VOID]
    named = _rule(key, begun, references) if begun else None
    if named is None:
        return _View(known)
    rule, limit_rule = named
    calendar = references.calendars.known_at(at, key.split("/")[1])
    line = _line(rule, limit_rule, _parts(rule, begun, references), _parts(rule, known, references), calendar)
    return _View(known, limit_rule, rule.lead, line, calendar)


def _parts(rule: GroupRule, members: Known, references: References) -> Known:
    """The members by which the clock runs. Where a rule counts its parts, those are the items that bear it: others of
    the same joint application have limits of their own (DOMAIN 4.1, R2: three steps).
    """
    if not rule.parts:
        return members
    items = references.items
    return [(life, seen) for life, seen in members
            if any(v.rule in rule.rules for v in versions_of(items, life.events[0].item_code))]  # fmt: skip


def _rule(key: str, begun: Known, references: References) -> tuple[GroupRule, str] | None:
    """The group clock and the limit by which it runs: the first by precedence that a member's item has."""
    found: set[str] = set()
    for life, seen in begun:
        day = minute_of(seen.accepted_at or 0) // DAY_MINUTES
        item = judging(references.items, life.events[0].item_code, day)
        if item is not None and item.rule in policy() and policy()[item.rule].effective <= day:
            found.add(item.rule)
    for rule in group_rules(key.split("/")[0]):
        for name in rule.rules:
            if name in found:
                return rule, name
    return None


def _line(rule: GroupRule, limit_rule: str, begun: Known, known: Known, calendar: Calendar) -> Line:
    """The group's clock: from the first acceptance on, while a member runs (DOMAIN 4.1)."""
    first = min(seen.accepted_at or 0 for _, seen in begun)
    accepted = minute_of(first)
    pauses = _pauses(rule, begun, accepted)
    warning = cards.warning(GROUP, accepted // DAY_MINUTES)
    limit = policy()[limit_rule].limit
    deadline = clock.deadline(calendar, accepted, limit, counting(), pauses, 0.0, warning)
    evidence = sorted({seen.accepted_by for _, seen in begun} | {e for _, seen in begun for e in seen.paused_by})
    ended_at, ended_by = _end(rule, begun, known)
    if ended_at is not None:  # nothing idles after the end: what is told later must still be said
        pauses = clock.union(pauses, minute_of(ended_at))
    return Line(GROUP, deadline, limit, tuple(evidence), pauses, ended_at, ended_by)


def _end(rule: GroupRule, begun: Known, known: Known) -> tuple[int | None, str]:
    """When the last member ended, and by which event, once all parts have or one has come to nothing, be it before it
    was accepted.
    """
    if any(seen.stopped_at is None for _, seen in begun):
        return None, ""
    ends = [seen for _, seen in begun]
    if len({life.events[0].item_code for life, _ in begun}) < rule.parts:
        vain = [seen for _, seen in known if seen.status in VAIN]
        if not vain:
            return None, ""
        ends += vain
    return max((seen.stopped_at or 0, seen.stopped_by) for seen in ends)


def _pauses(rule: GroupRule, begun: Known, accepted: int) -> clock.Pauses:
    """When no member runs: all of it if gaps pause, else as far as a member is in a special procedure."""
    idle = _without(((accepted, None),), clock.union(span for _, seen in begun for span in _running(seen)))
    if rule.gaps_pause:
        return idle
    special = clock.union(span for _, seen in begun for span in seen.pauses)
    return _without(special, _without(((accepted, None),), idle))


def _running(seen: Course) -> Iterator[clock.Pause]:
    stop = None if seen.stopped_at is None else minute_of(seen.stopped_at)
    yield from _without(((minute_of(seen.accepted_at or 0), stop),), seen.pauses)


def _without(spans: Iterable[clock.Pause], gone: clock.Pauses) -> clock.Pauses:
    """``spans`` less ``gone``; both rising and disjoint."""
    left: list[clock.Pause] = []
    for start, end in spans:
        for begin, stop in gone:
            if stop is not None and stop <= start:
                continue
            if end is not None and begin >= end:
                break
            if begin > start:
                left.append((start, begin))
            if stop is None:
                start, end = begin, begin
                break
            start = stop
        if end is None or start < end:
            left.append((start, end))
    return tuple(left)


def _lead(view: _View) -> str:
    """The department that answers for the group: the rule's, or that of its first member."""
    return view.lead or next((seen.department for _, seen in view.known if seen.status != VOID), "")


def _state(key: str, view: _View, alerts: tuple[Alert, ...], nearest: int | None) -> GroupState:
    parts = tuple(
        Part(life.case_no, life.events[0].item_code, seen.department, seen.status, seen.accepted_at, seen.stopped_at)
        for life, seen in view.known
        if seen.status != VOID
    )
    lead = _lead(view)
    region, stage = key.split("/")[1], _stage(parts)
    state = GroupState(key, region, lead, stage, view.rule, parts, alerts=alerts, next_check_at=nearest)
    line = view.line
    if line is None or view.calendar is None:
        return state
    deadline, stop = line.deadline, line.stopped_at
    used = None if stop is None else clock.consumed(view.calendar, deadline, minute_of(stop), line.pauses)
    return replace(
        state,
        accepted_at=clocks.ms(deadline.accepted),
        due_at=clocks.ms(deadline.due),
        yellow_at=clocks.ms(deadline.yellow),
        ended_at=stop,
        on_time=line.on_time,
        provisional=deadline.provisional,
        used_minutes=used,
        calendar_version=deadline.version,
    )


def _stage(parts: Sequence[Part]) -> str:
    if not any(p.accepted_at is not None for p in parts):
        return AFTER if parts and all(p.stopped_at is not None for p in parts) else BEFORE
    return AFTER if all(p.stopped_at is not None for p in parts) else DURING
