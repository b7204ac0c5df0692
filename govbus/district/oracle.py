"""What must come of a simulated district, from its makers' own knowledge, and the comparison with a database.

Written from DOMAIN §3-§6 alone: imports nothing of ``streams`` and reads the database by plain SQL, so that
it and the product can only agree by both being right. Knowledge time (docs/architecture.md): at each moment
only what had reached the bus by then counts; a card is issued when that knowledge first supports it and
revoked when later knowledge does not. Times are epoch ms UTC.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa

from govbus.district import ratings
from govbus.district.cases import in_force
from govbus.district.clock import (
    BEFORE_REVISION,
    HOUR,
    MINUTE,
    MINUTES,
    MONTH,
    MONTH_DAYS,
    NATURAL_DAY,
    REVISED,
    WORKING_DAY,
    Deadlines,
    Offices,
    Span,
)
from govbus.district.generator import REVISION_HEARD, Made
from govbus.district.model import Item, Row, Story, Told
from govbus.district.ratings import Opinion
from schemas import codec
from schemas.topics import ALERT

ANSWER_DAYS = 5  # working days for an answer to the applicant (行政许可法 32)
DELIVERY_DAYS = 10  # working days from the grant of a licence to its handing over (行政许可法 44)
EXTENSION, JOINT_EXTENSION, JOINT_DAYS = 10.0, 15.0, 45.0  # working days (行政许可法 42)
LICENCE = "01"  # places 22 and 23 of an item's code: its kind (DOMAIN §2.1, §2.2)
FAR = 2**53
RANK = ("submitted", "prechecked", "correction_requested", "correction_received", "accepted", "not_accepted",
        "step_completed", "special_started", "special_ended", "extended", "decided", "transferred", "returned",
        "withdrawn", "certified", "delivered", "voided")  # fmt: skip
"""Order among events of one moment; among the last ones it is a convention that both sides keep."""
CARDS = ("RED_STATUTORY", "RED", "YELLOW", "delivery RED", "delivery YELLOW")
WARNINGS = frozenset({"YELLOW", "delivery YELLOW"})
YIELDS = {"YELLOW": {"RED_STATUTORY", "RED"}, "RED": {"RED_STATUTORY"}, "delivery YELLOW": {"delivery RED"}}
"""Colours only escalate, each clock's by themselves (§4.2): what keeps a lower card from being issued."""
STOPPED = {"returned": "RETURNED", "withdrawn": "WITHDRAWN", "transferred": "TRANSFERRED"}
TIMED = frozenset({"GRANTED", "DENIED", "CERTIFIED", "DELIVERED", "RETURNED", "TRANSFERRED"})
"""Statuses for which on time or late is asked; a withdrawn case is in no overdue rate (DOMAIN §10, 26)."""
OLDER, NEWER = "province.result-older", "province.result-newer"
DECISIONS = {
    (OLDER, "1"): "RETURNED", (OLDER, "2"): "VOID", (OLDER, "3"): "VOID", (OLDER, "4"): "TRANSFERRED",
    (OLDER, "5"): "RETURNED",
    (NEWER, "1"): "DENIED", (NEWER, "2"): "VOID", (NEWER, "3"): "VOID", (NEWER, "4"): "TRANSFERRED",
    (NEWER, "5"): "RETURNED", (NEWER, "6"): "REFUSED",
}  # fmt: skip
"""What a decision with such a result is (DOMAIN §3.4); all others grant."""

UNACCEPTED = {"RETURNED": "RETURNED", "VOID": "VOID", "TRANSFERRED": "TRANSFERRED", "REFUSED": "NOT_ACCEPTED"}
"""The decisions that need no acceptance, and what they make of a case without one."""

Expected = dict[str, Any]


# --- one case, as far as known ---


@dataclass(slots=True)
class Course:
    """What the events known so far make of a case."""

    status: str = ""
    waiting_since: int | None = None
    accepted: int | None = None
    stopped: int | None = None
    extensions: list[tuple[int, float, str]] = field(default_factory=list)
    pauses: list[tuple[int, int]] = field(default_factory=list)
    parked: list[Told] = field(default_factory=list)
    granted: int | None = None
    delivered: int | None = None

    def answer_due(self, offices: Offices) -> int | None:
        """Until when the applicant must be answered, while an answer is owed; a decision is an answer. While a year's
        calendar is missing nothing is accepted by silence.
        """
        if self.waiting_since is None or any(_verb(t) == "decided" for t in self.parked):
            return None
        line = offices.deadlines(self.waiting_since, ANSWER_DAYS)
        return None if line.provisional else line.due


def course(told: Sequence[Told], moment: int, offices: Offices = REVISED) -> Course:
    """The course of a case by the events ``told``, seen at ``moment``: silence accepts it, and one that is void is so
    whatever else was told (§3.5).
    """
    if any(_verb(t) == "voided" for t in told):
        return Course("VOID")
    state = Course()
    for event in sorted(told, key=lambda t: (_begins(t), RANK.index(_verb(t)))):
        _silence(state, _begins(event), offices)
        _step(state, event)
    if state.status == "SUBMITTED":
        _silence(state, moment, offices)
    if state.status in ("ACCEPTED", "IN_PROCESS") and state.pauses:
        state.status = "SUSPENDED" if any(end == FAR for _, end in state.pauses) else "IN_PROCESS"
    return state


def _verb(told: Told) -> str:
    return told.event.removeprefix("case.")


def _begins(told: Told) -> int:
    """When what an event tells of began: the record of a special procedure may be sent after its end."""
    return int(told.fields.get("special_started_at") or told.occurred_at)


def _silence(state: Course, moment: int, offices: Offices) -> None:
    """Without an answer within the minute it was due the case is accepted from its receipt (行政许可法 32)."""
    due = state.answer_due(offices)
    if due is not None and moment >= due + MINUTE:
        _accept(state, state.waiting_since)


def _accept(state: Course, at: int | None) -> None:
    state.status, state.accepted, state.waiting_since = "ACCEPTED", at, None
    _go_on(state)


def _go_on(state: Course) -> None:
    """What waited for its predecessor has its turn."""
    waiting, state.parked = state.parked, []
    for told in waiting:
        _step(state, told)


def _step(state: Course, told: Told) -> None:
    verb, at = _verb(told), told.occurred_at
    if verb.startswith("special"):
        _special(state, told)
    elif state.stopped is not None:
        _afterwards(state, verb, at)
    elif verb in STOPPED or (verb == "not_accepted" and state.accepted is None):
        _stop(state, STOPPED.get(verb, "NOT_ACCEPTED"), at)
    elif state.accepted is None:
        _before(state, told)
    else:
        _handle(state, told)


def _before(state: Course, told: Told) -> None:
    """Up to acceptance."""
    verb, at = _verb(told), told.occurred_at
    begun = verb == "submitted" and not state.status  # a second one is irregular and changes nothing
    if begun or (verb == "correction_received" and state.status == "WAIT_CORRECTION"):
        state.status, state.waiting_since = "SUBMITTED", at
    elif verb == "correction_requested":
        state.status, state.waiting_since = "WAIT_CORRECTION", None
        _go_on(state)
    elif verb == "accepted":
        _accept(state, at)
    elif verb == "decided" and state.status and (ended := UNACCEPTED.get(_decided(told))):
        _stop(state, ended, at)
    elif verb != "prechecked":
        state.parked.append(told)


def _decided(told: Told) -> str:
    return DECISIONS.get((told.fields.get("result_set", ""), told.fields["result_code"]), "GRANTED")


def _handle(state: Course, told: Told) -> None:
    """Between acceptance and the end; a correction asked for now is a finding and changes nothing (§3.5)."""
    verb, at = _verb(told), told.occurred_at
    if verb == "step_completed":
        state.status = "IN_PROCESS"
    elif verb == "extended":
        if (amount := told.fields["extension_limit"]) is not None:
            state.extensions.append((at, float(amount), told.fields.get("extension_unit_code", "")))
    elif verb == "decided":
        status = _decided(told).replace("REFUSED", "DENIED")
        told_all = told.fields.get("result_set") and told.fields["result_code"]  # else it may have been a denial
        state.granted = at if status == "GRANTED" and told_all else None
        _stop(state, status, at)
    elif verb in ("certified", "delivered"):
        state.parked.append(told)


def _stop(state: Course, status: str, at: int) -> None:
    state.status, state.waiting_since = status, None
    state.stopped = max(at, state.accepted or 0)
    _go_on(state)


def _afterwards(state: Course, verb: str, at: int) -> None:
    """After the end only the paper moves."""
    if (verb, state.status) in (("certified", "GRANTED"), ("delivered", "GRANTED"), ("delivered", "CERTIFIED")):
        state.status = verb.upper()
        state.delivered = at if verb == "delivered" else None


def _special(state: Course, told: Told) -> None:
    """An end carries its start, because a start may never be told (DOMAIN §3.3)."""
    if state.accepted is None and state.stopped is None:
        state.parked.append(told)
        return
    start = int(told.fields["special_started_at"])
    if _verb(told) == "special_ended":
        state.pauses = [p for p in state.pauses if p != (start, FAR)] + [(start, told.occurred_at)]
    elif not any(p[0] == start for p in state.pauses) and start < (state.stopped or FAR):
        state.pauses.append((start, FAR))


# --- its deadlines and cards ---


def limits(story: Story, state: Course, offices: Offices = REVISED) -> tuple[Deadlines, int | None]:
    """Promise's deadlines and the statutory due moment, by the item version in force at acceptance."""
    if state.accepted is None:
        return Deadlines(None, None), None
    item: Item = in_force(story.versions, state.accepted)
    pauses = _until_stop(state)
    promises = [(item.promise, item.unit), *([item.bound] if item.bound else [])]
    promise = _first(offices.deadlines(state.accepted, amount, pauses, unit) for amount, unit in promises)
    extra = _extra(state, promise.due)
    if extra:
        promise = _first(_at_most(offices, state.accepted, item, one, pauses, extra) for one in promises)
    if item.statutory is None:
        return promise, None
    statutory = item.statutory, item.statutory_unit
    return promise, _at_most(offices, state.accepted, item, statutory, pauses, extra or (0.0, "")).due


def _at_most(
    offices: Offices, accepted: int, item: Item, limit: tuple[float, str], pauses: Sequence[Span],
    extra: tuple[float, str],
) -> Deadlines:  # fmt: skip
    """The deadlines with an extension; that of a licence is at most 10 working days, and 15 where the law gives 45
    (行政许可法 42): what is due first counts.
    """
    asked = _longer(offices, accepted, *limit, pauses, extra)
    if (item.code[21:23] if item.kind is None else item.kind) != LICENCE:
        return asked
    most = JOINT_EXTENSION if (item.statutory, item.statutory_unit) == (JOINT_DAYS, WORKING_DAY) else EXTENSION
    longest = _longer(offices, accepted, *limit, pauses, (most, WORKING_DAY))
    return _first((asked, longest))


def _first(lines: Iterable[Deadlines]) -> Deadlines:
    return min(lines, key=lambda line: FAR if line.due is None else line.due)


def _longer(
    offices: Offices, accepted: int, amount: float, unit: str, pauses: Sequence[Span], extra: tuple[float, str]
) -> Deadlines:
    """The deadlines with an extension, in its own unit: of days and months, hours and minutes one is made, any other
    follows the limit that it extends (§2.5).
    """
    more, other = extra
    if other in ("", unit) or not more:
        return offices.deadlines(accepted, amount + more, pauses, unit)
    for small, sizes in ((NATURAL_DAY, {NATURAL_DAY: 1, MONTH: MONTH_DAYS}), (MINUTES, {HOUR: 60, MINUTES: 1})):
        if unit in sizes and other in sizes:
            return offices.deadlines(accepted, amount * sizes[unit] + more * sizes[other], pauses, small)
    first = offices.deadlines(accepted, amount, pauses, unit)
    if first.due is None:
        return first
    then = offices.deadlines(first.due, more, pauses, other)
    return replace(then, provisional=first.provisional or then.provisional)


def _until_stop(state: Course) -> list[tuple[int, int]]:
    """The special procedures as far as they lie before the end; a decision closes what is open (§3.5)."""
    stop = FAR if state.stopped is None else state.stopped
    return [(start, min(end, stop)) for start, end in state.pauses if start < min(end, stop)]


def _extra(state: Course, due: int | None) -> tuple[float, str] | None:
    """Amount and unit of the one extension that counts: the first told before the limit passed (§3.5)."""
    return next(((more, unit) for at, more, unit in state.extensions if due is None or at < due + MINUTE), None)


def grounds(story: Story, state: Course, offices: Offices) -> dict[str, int]:
    """For each card the moment from which the course supports it: red from the minute after due on."""
    if state.status == "VOID":
        return {}
    promise, statutory = limits(story, state, offices)
    marks = {"YELLOW": promise.yellow, "RED": _after(promise.due), "RED_STATUTORY": _after(statutory)}
    held = _held(marks, state.stopped, _until_stop(state))
    if state.granted is None or story.item.code[21:23] != LICENCE:
        return held
    over = offices.deadlines(state.granted, DELIVERY_DAYS)
    return held | _held({"delivery YELLOW": over.yellow, "delivery RED": _after(over.due)}, state.delivered, ())


def _after(due: int | None) -> int | None:
    return None if due is None else due + MINUTE


def _held(
    marks: Mapping[str, int | None], stopped: int | None, pauses: Sequence[tuple[int, int]]
) -> dict[str, int]:
    """The marks that the clock reached before it stopped, moved out of pauses."""
    stop = FAR if stopped is None else stopped
    return {
        card: moved
        for card, mark in marks.items()
        if mark is not None
        and (mark < stop or (mark == stop and card not in WARNINGS))
        and (moved := _unpaused(mark, pauses)) < FAR
        and not (card in WARNINGS and moved >= stop)
    }


def _unpaused(moment: int, pauses: Sequence[tuple[int, int]]) -> int:
    """``moment``, or when the pauses that cover it are over: a paused case gets no card (§4.2)."""
    while ends := [end for start, end in pauses if start <= moment < end]:
        moment = max(ends)
    return moment


def cards(story: Story, horizon: int) -> list[str]:
    """The cards that finally exist, as ``COLOUR`` or ``COLOUR revoked``, whatever clock they are about."""
    standing: dict[str, int] = {}
    revoked: list[str] = []
    for since, until in _periods(story, horizon):
        offices = _known(since)
        state = course([t for t in story.told if t.received_at <= since], since, offices)
        marks = grounds(story, state, offices)
        pauses = _until_stop(state)
        for colour in [c for c, at in standing.items() if marks.get(c, FAR) > since or _unpaused(at, pauses) > at]:
            del standing[colour]
            revoked.append(f"{colour} revoked")
        spoken = {c: _unpaused(max(mark, since), pauses) for c, mark in marks.items()}
        _issue(standing, {c: moment for c, moment in spoken.items() if moment < until})
    return sorted(card.removeprefix("delivery ") for card in [*standing, *revoked])


def _issue(standing: dict[str, int], moments: Mapping[str, int]) -> None:
    """Give the cards in the order of their moments, red before yellow; those that stand keep theirs."""
    for card in sorted(moments, key=lambda c: (moments[c], CARDS.index(c))):
        if standing.keys().isdisjoint(YIELDS.get(card, ())):
            standing.setdefault(card, moments[card])


def _known(moment: int) -> Offices:
    return REVISED if moment >= REVISION_HEARD else BEFORE_REVISION


def _periods(story: Story, horizon: int) -> list[tuple[int, int]]:
    """Stretches of constant knowledge; silence becoming acceptance begins one too."""
    points = {t.received_at for t in story.told}
    first = min(points)
    points |= {REVISION_HEARD} if first < REVISION_HEARD < horizon else set()
    for since in sorted(points):
        offices = _known(since)
        state = course([t for t in story.told if t.received_at <= since], 0, offices)
        due = state.answer_due(offices) if state.status == "SUBMITTED" else None
        if due is not None and since < due + MINUTE <= horizon:
            points.add(due + MINUTE)
    ordered = [p for p in sorted(points) if p <= horizon]
    return list(zip(ordered, [*ordered[1:], horizon + 1], strict=True))


# --- all of it ---


def expect(made: Made) -> Expected:
    """The right outcome as plain dicts (JSON-able); takes a few seconds for 2,000 cases."""
    district = made.district
    rows = [*district.rows, *district.live]
    cases = {s.case_no: _case(s, district.span.end) for s in district.stories if s.told}
    void = {case_no for case_no, case in cases.items() if case["status"] == "VOID"}
    return {
        "cases": cases,
        "cells": _cells([o for o in made.opinions if o.story.case_no not in void]),
        "bad": dict(word for said in _visits(made.opinions).values() for word in _raised(said)),
        "out": {_assessment(o): True for o in made.opinions if o.story.case_no in void},
        "licences": {k.family: [k.standing, k.valid_to] for k in made.licences if k.rows},
        "directory": {r.code: [r.last_update, r.disputed, r.withdrawn] for r in made.resources},
        "events": _events(rows),
        "dead": _dead(rows, [p.kind for p in district.poison]),
    }


def _case(story: Story, horizon: int) -> dict[str, Any]:
    state = course(story.told, horizon)
    due = None if state.status == "VOID" else limits(story, state)[0].due
    timed = state.status in TIMED and due is not None and state.stopped is not None
    on_time = (state.stopped or 0) < (due or 0) + MINUTE if timed else None
    return {"status": state.status, "due_at": due, "on_time": on_time, "cards": cards(story, horizon)}


def _events(rows: Sequence[Row]) -> dict[str, int]:
    return dict(sorted(Counter(r.topic.name for r in rows if r.outcome == "new").items()))


def _dead(rows: Sequence[Row], kinds: Sequence[str]) -> dict[str, int]:
    found = Counter(r.reason for r in rows if r.reason)
    found.update(k for k in kinds if k != "duplicate")
    return dict(sorted(found.items()))


# --- ratings ---

Visit = tuple[str, int]


def _visits(opinions: Sequence[Opinion]) -> dict[Visit, list[Opinion]]:
    found: dict[Visit, list[Opinion]] = {}
    for opinion in sorted(opinions, key=lambda o: (o.assess_no, o.revision)):
        found.setdefault((opinion.story.case_no, opinion.service_no), []).append(opinion)
    return found


def _last(said: Sequence[Opinion]) -> Opinion | None:
    """The effective rating of one visit: the latest one, unless it was withdrawn (DOMAIN §5.6)."""
    return None if said[-1].operation == "D" else said[-1]


def _cells(opinions: Sequence[Opinion]) -> dict[str, list[int]]:
    """Effective ratings and defaults by region, department, item, channel, score and day."""
    cells: dict[str, list[int]] = {}
    for said in _visits(opinions).values():
        if last := _last(said):
            item = last.story.item
            parts = (
                item.region,
                item.department,
                item.code,
                ratings.CHANNELS[last.channel][2],
                str(last.score),
            )
            cell = cells.setdefault("|".join((*parts, ratings.day(last))), [0, 0])
            cell[0] += 1
            cell[1] += last.is_default
    return cells


def _raised(said: Sequence[Opinion]) -> Iterator[tuple[str, str]]:
    """The alerts a visit raises, one for each rating that was bad in one of its versions, and their last words."""
    for number in sorted({o.assess_no for o in said}):
        bad = {o.revision: o.score <= 2 and o.operation != "D" for o in said if o.assess_no == number}
        if any(bad.values()):
            alert = next(ratings.alert_id(o) for o in said if o.assess_no == number)
            yield alert, "alert.issued" if bad[max(bad)] else "alert.revoked"


def _assessment(opinion: Opinion) -> str:
    """What is out of all counting when its case is void (§5.8)."""
    place = (opinion.story.case_no, opinion.story.item.department, opinion.service_no, opinion.assess_no)
    return "/".join(map(str, place))


# --- comparison ---

CASES_SQL = "SELECT case_no, status, due_at, on_time FROM case_state"
CARDS_SQL = "SELECT case_no, colour, revoked_at IS NOT NULL FROM card WHERE kind = 'CARD' ORDER BY case_no, colour"
CELLS_SQL = """SELECT concat_ws('|', region, department, item_code, channel, score, rated_on), n, defaults
               FROM rating_cell WHERE n <> 0"""
OUT_SQL = """SELECT concat_ws('/', case_no, department, service_no, assess_no), true FROM rating_out
             WHERE "out" AND department <> ''"""
LICENCES_SQL = "SELECT family, status, valid_to_on::text FROM licence WHERE licence_version = 1"
DIRECTORY_SQL = "SELECT resource_code, last_update_at, disputed, withdrawn FROM directory_entry"
DEAD_SQL = "SELECT reason, count(*) FROM dead_letter GROUP BY reason ORDER BY reason"
ALERTS_SQL = "SELECT value FROM outbox WHERE topic = :topic ORDER BY seq"
EVENT_TABLES: Mapping[str, str] = {
    "service.item.v1": "item_event", "service.case.v1": "case_event", "service.rating.v1": "rating_event",
    "licence.record.v1": "licence_event", "directory.resource.v1": "resource_event",
    "oversight.handling.v1": "handling_event", "supervision.behaviour.v1": "behaviour_event",
    "hotline.ticket.v1": "ticket_event", "reference.calendar.v1": "calendar_event",
}  # fmt: skip


def compare(engine: sa.Engine, expected: Expected) -> list[str]:
    """Every difference between the database and ``expected``, one sentence each; empty: they agree."""
    found = read(engine)
    return [text for part in ("events", "cases", "cells", "bad", "out", "licences", "directory", "dead")
            for text in differences(part, expected[part], found[part])]  # fmt: skip


def read(engine: sa.Engine) -> Expected:
    """The same dicts as ``expect`` gives, but from the database."""
    with engine.connect() as tx:
        given: dict[str, list[str]] = {}
        for case_no, colour, revoked in tx.execute(sa.text(CARDS_SQL)):
            given.setdefault(case_no, []).append(f"{colour} revoked" if revoked else colour)
        cases = {no: {"status": status, "due_at": due, "on_time": on_time if status in TIMED else None,
                      "cards": sorted(given.get(no, []))}
                 for no, status, due, on_time in tx.execute(sa.text(CASES_SQL))}  # fmt: skip
        return {
            "cases": cases,
            "cells": {key: [n, defaults] for key, n, defaults in tx.execute(sa.text(CELLS_SQL))},
            "bad": _bad_alerts(tx),
            "out": _pairs(tx, OUT_SQL),
            "licences": {family: list(rest) for family, *rest in tx.execute(sa.text(LICENCES_SQL))},
            "directory": {code: list(rest) for code, *rest in tx.execute(sa.text(DIRECTORY_SQL))},
            "events": {topic: n for topic, table in EVENT_TABLES.items()
                       if (n := tx.execute(sa.text(f"SELECT count(*) FROM {table}")).scalar_one())},
            "dead": _pairs(tx, DEAD_SQL),
        }  # fmt: skip


def _bad_alerts(tx: sa.Connection) -> dict[str, str]:
    """The last word on every bad rating that was ever alerted, by the alert's id."""
    values = tx.execute(sa.text(ALERTS_SQL), {"topic": ALERT.name}).scalars()
    records = (codec.decode(bytes(value), ALERT) for value in values)
    words = ((r["alert_id"], r["alert_seq"], r["event_type"]) for r in records if r["kind_code"] == "BAD_RATING")
    return {alert: word for alert, _, word in sorted(words, key=lambda w: w[1])}


def _pairs(tx: sa.Connection, sql: str) -> dict[str, Any]:
    return {row[0]: row[1] for row in tx.execute(sa.text(sql))}


def differences(part: str, wanted: Any, found: Any) -> Iterator[str]:
    """Sentences on where ``found`` is not ``wanted``; dicts are compared key by key."""
    if not isinstance(wanted, dict):
        if wanted != found:
            yield f"{part}: expected {wanted}, found {found}"
        return
    for key in sorted(wanted.keys() | found.keys()):
        if wanted.get(key) != found.get(key):
            yield f"{part} {key}: expected {wanted.get(key)}, found {found.get(key)}"
