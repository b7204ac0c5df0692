"""The recount: the same figures once more from raw events, by other code, and every disagreement by name.

Cases are judged again from the published records by the simulator's own reading of DOMAIN §3 (``govbus.district``),
which shares nothing with ``streams.rules``, on the calendars that were published; cards, ratings and items are
counted from stored events. What this second reading cannot judge is left out and said so, never guessed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cache, partial
from itertools import filterfalse, groupby
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from govbus.district import clock, oracle
from govbus.district.clock import Deadlines, Offices, Span
from govbus.district.model import Item, Story, Told
from schemas import codec
from schemas.envelope import derived_id
from schemas.topics import ALERT, CASE
from streams.rules import life
from streams.rules.calendar import NATION, date_of
from streams.rules.indicators import exempt, points
from streams.rules.limits import Counting, counting, policy

if TYPE_CHECKING:
    from streams.store.horizon import Clock

FETCH = 5_000
FOREVER = 2**62
Record = Mapping[str, Any]
Matter = tuple[str, str, int, str, int]
"""Region, case, visit, department and assessment: what one department tells of one assessment."""
COMPARABLE = {
    clock.WORKING_DAY: ("working days", 1), clock.NATURAL_DAY: ("days", 1), clock.MONTH: ("days", clock.MONTH_DAYS),
    clock.HOUR: ("minutes", 60), clock.MINUTES: ("minutes", 1),
}  # fmt: skip
"""What a unit of limits can be compared in, and how many of these it is (DOMAIN §2.5)."""
WITHDRAWN = "item.withdrawn"
RUNNING_SPECIALS = frozenset({"SITE", "PUBLICITY", "EXTEND", "1"})
"""Kinds of special procedure that stop no clock (DOMAIN §3.3): the second reading does not know them."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One disagreement: of what, which one, what the report rests on and what the recount found."""

    what: str
    key: str
    derived: str
    recounted: str


@dataclass(slots=True)
class Recount:
    """What was recounted, what could not be, and where both disagree."""

    checked: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)
    void: list[str] = field(default_factory=list)
    """Cases that never were; a rating of one counts nowhere (DOMAIN §5.8)."""
    excluded: set[Matter] = field(default_factory=set)
    """Ratings that an appeal found mistaken or malicious; these count nowhere either."""
    strangers: set[tuple[str, str, str]] = field(default_factory=set)
    """Item, department and region of cases by whose acceptance no version of the item was in force."""
    answering: dict[str, str] = field(default_factory=dict)
    """Case -> the department that its own records say answers for it."""

    def compare(self, what: str, key: str, derived: object, recounted: object) -> None:
        """Note one comparison."""
        self.checked[what] += 1
        if derived != recounted:
            self.differences.append(Difference(what, key, str(derived), str(recounted)))


def recount(tx: sa.Connection, said: Callable[[int], None] = lambda _: None, timers: Clock = "wall") -> Recount:
    """Recount everything in the snapshot ``tx`` (REPEATABLE READ); ``said`` hears how many raw events were read;
    ``timers``: the clock that they go by.
    """
    from streams.store.horizon import now

    found, top, open_in = Recount(), now(tx, timers), _offices(tx)
    _cases(tx, found, said, top, open_in)
    _cards(tx, found)
    _bad_ratings(tx, found, open_in)
    _ratings(tx, found)
    _items(tx, found, timers, top)
    return found


# --- cases ----------------------------------------------------------------------------------------


def _offices(tx: sa.Connection) -> Callable[[str], Offices]:
    """The offices of every region by the calendars that were published."""
    calendars = {(region, year): body for region, year, body in tx.execute(sa.text(_CALENDARS))}  # the last one stays
    return cache(partial(offices, calendars, counting()))


def _cases(
    tx: sa.Connection, found: Recount, said: Callable[[int], None], top: int, open_in: Callable[[str], Offices]
) -> None:
    versions = items(tx.execute(sa.text(_ITEM_EVENTS)).all())
    raw: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for number, record in enumerate(_raw(tx, _CASE_EVENTS, CASE), 1):
        raw[record["case_no"]].append(record)
        if number % FETCH == 0:
            said(number)
    for row in (r._asdict() for r in tx.execute(sa.text(_DERIVED), {"top": top})):
        records = raw.get(row["case_no"], [])
        standing = _corrected(records)
        told = tuple(_told(r) for r in _clocked(standing))
        state = oracle.course(told, row["horizon"], open_in(row["region"])) if told else oracle.Course()
        if state.status == "VOID":
            found.void.append(row["case_no"])
        going_by = _going_by(row["item_code"], versions, row["accepted_at"])
        if row["status"] != "VOID" and _strange(row["accepted_at"], going_by):
            found.strangers.add((row["item_code"], row["department"], row["region"]))
        why = "原始事件不在发布箱中"
        if len(records) == row["events"]:
            found.answering[row["case_no"]] = _answering(standing)
            why = _unfit(standing, row, going_by)
        if not why:
            why = _case(row, told, state, going_by, open_in(row["region"]), found)
        if why:
            found.left_out[why] += 1


def _case(
    row: Mapping[str, Any], told: tuple[Told, ...], state: oracle.Course, versions: tuple[Item, ...], open_in: Offices,
    found: Recount,
) -> str:  # fmt: skip
    """Compare one case; why it could not be, "" if it was."""
    line = Deadlines(None, None)
    day = None if state.accepted is None else clock.day_of(state.accepted)
    bound = tuple(_bounded(i, day) for i in versions if day is not None and i.in_force(day))
    if bound and state.status != "VOID":
        line = oracle.limits(Story(row["case_no"], bound[0], bound, told), state, open_in)[0]
    if line.provisional:
        return "期限跨未公布日历的年份"
    timed = state.status in oracle.TIMED and line.due is not None and state.stopped is not None
    on_time = (state.stopped or 0) < (line.due or 0) + clock.MINUTE if timed else None
    found.compare("办结与按时", row["case_no"], (row["on_time"], row["due_at"]), (on_time, line.due))
    return ""


def _bounded(item: Item, day: date) -> Item:
    """The item with the policy's limit where that is, or may be, shorter for a case of ``day`` (DOMAIN §4.1)."""
    bound = policy().get(item.rule)
    if bound is None or day < date_of(bound.effective):
        return item
    if bound.limit.unit != item.unit:
        return replace(item, bound=(bound.limit.amount, bound.limit.unit))
    return replace(item, promise=min(item.promise, bound.limit.amount))


def _unfit(records: Sequence[Record], row: Mapping[str, Any], versions: Sequence[Item]) -> str:
    """Why the second reading cannot judge a case by its corrected ``records`` and ``versions``; "": it can."""
    if row["accepted_at"] is not None and not versions:
        return "事项未发布"
    specials = [r for r in records if r["event_type"].startswith("case.special")]
    if _ambiguous([r for r in specials if _pauses(r)]) or _nameless(specials):
        return "特别程序的开始与结束不能一一对应"
    return ""


def _going_by(code: str, versions: Mapping[str, tuple[Item, ...]], accepted: int | None) -> tuple[Item, ...]:
    """The versions that a case goes by: its own; of a handling item (33 places) of which none was in force, those of
    its item (31; DOMAIN §2.2).
    """
    own, whole = versions.get(code, ()), versions.get(code[:31], ()) if len(code) == 33 else ()
    return own if not _strange(accepted, own) else whole or own


def _strange(accepted: int | None, versions: Sequence[Item]) -> bool:
    """Whether no version was in force when a case was accepted; of one that was not, whether there is none at all."""
    return not (versions if accepted is None else any(i.in_force(clock.day_of(accepted)) for i in versions))


def _answering(records: Iterable[Record]) -> str:
    """The department that was named responsible last (跨域通办), else that which accepted; "": nobody did yet."""
    told = sorted(records, key=_occurred)
    named = [r["responsible_code"] for r in told if r["responsible_code"]]
    accepted = [r["department"] for r in told if r["event_type"] == "case.accepted"]
    return next(iter((*reversed(named), *accepted)), "")


def _pauses(record: Record) -> bool:
    return record["special_kind_code"] not in RUNNING_SPECIALS


def _nameless(specials: Sequence[Record]) -> bool:
    """Whether an end that tells no kind may be that of a procedure that stops the clock or of one that does not."""
    running = {r["event_no"] for r in specials if not _pauses(r)}
    starts = {r["event_no"] for r in specials if r["event_type"] == "case.special_started" and _pauses(r)}
    return any(r["event_no"] in running & starts for r in specials
               if r["event_type"] == "case.special_ended" and not r["special_kind_code"])  # fmt: skip


def _ambiguous(specials: Sequence[Record]) -> bool:
    """Whether it is not plain which start an end belongs to: a number told twice, two starts of one procedure or one
    start of two, an end that could be another's, or an end told with its start and apart.
    """
    starts = _open_starts(specials)
    ends = [r for r in specials if r["event_type"] == "case.special_ended"]
    told = Counter((r["event_type"], r["event_no"]) for r in specials)
    named = {(r["event_no"], _began(r)) for r in specials if r not in ends or r["special_started_at"] is not None}
    strays = [_ended(r) for r in ends if r["special_started_at"] is None and _orphan(r, starts)]
    closed = {r["event_no"] for r in ends if not _orphan(r, starts)}
    waiting = [start for number, start in starts.items() if number not in closed]
    plain = len(named) == len({number for number, _ in named}) == len({start for _, start in named})
    lost = any(start <= end for start in waiting for end in strays)
    twice = {r["event_no"] for r in specials if r not in ends and r["special_ended_at"] is not None} & {
        r["event_no"] for r in ends
    }
    return max(told.values(), default=0) > 1 or not plain or lost or bool(twice)


def _open_starts(specials: Iterable[Record]) -> dict[int, int]:
    """When special procedures began whose start does not tell their end, by their number."""
    begun = (r for r in specials if r["event_type"] == "case.special_started" and r["special_ended_at"] is None)
    return {r["event_no"]: _began(r) for r in begun}


def _orphan(record: Record, starts: Mapping[int, int]) -> bool:
    """Whether it ends a special procedure of whose start nothing is told."""
    if record["event_type"] != "case.special_ended" or record["special_started_at"] is not None:
        return False
    return starts.get(record["event_no"], FOREVER) > _ended(record)


def _ended(record: Record) -> int:
    end, occurred = record["special_ended_at"], int(record["occurred_at"])
    return occurred if end is None else int(end)


def _corrected(records: Sequence[Record]) -> list[Record]:
    """What the records say after corrections and annulments; the latest correction of an event that was not annulled
    holds.
    """
    gone = _annulled(records)
    corrections = [r for r in records if r["event_type"] == "case.corrected" and r["event_id"] not in gone]
    moved = {r["corrects_event_id"]: r["corrected_at"] for r in sorted(corrections, key=_occurred)
             if r["corrected_at"] is not None}  # fmt: skip
    return [
        _moved(r, moved[r["event_id"]]) if r["event_id"] in moved else r
        for r in records
        if r["event_id"] not in gone and r["event_type"] != "case.corrected" and not r["corrects_event_id"]
    ]


def _annulled(records: Iterable[Record]) -> set[str]:
    """What is annulled: an annulment counts once all that annul it are known to be annulled themselves."""
    annuls = {r["event_id"]: r["corrects_event_id"] for r in records if r["event_type"] == "case.voided"}
    named_by: dict[str, set[str]] = defaultdict(set)
    for one, target in annuls.items():
        named_by[target].add(one)
    gone: set[str] = set()
    while plain := {one for one in annuls if named_by[one] <= gone}:
        gone |= {annuls.pop(one) for one in plain}
    return gone


def _clocked(records: Sequence[Record]) -> Iterator[Record]:
    """The corrected records, every special procedure with its start (DOMAIN §3.3), without those that stop no clock."""
    starts = _open_starts(r for r in records if r["event_type"].startswith("case.special") and _pauses(r))
    for r in records:
        if r["event_type"] == "case.verified":  # of a promise; moves no clock
            continue
        if not r["event_type"].startswith("case.special"):
            yield r
        elif _pauses(r) and not _orphan(r, starts):
            ended = r["event_type"] == "case.special_ended"
            at = starts[r["event_no"]] if ended and r["special_started_at"] is None else _began(r)
            yield {**r, "special_started_at": at}


def _moved(record: Record, at: int) -> Record:
    """A special procedure's times are moved where it tells them, and always when the event happened."""
    times = {"case.special_started": "special_started_at", "case.special_ended": "special_ended_at"}
    told = times.get(record["event_type"], "")
    return {**record, "occurred_at": at, **({told: at} if told and record[told] is not None else {})}


def _told(record: Record) -> Told:
    """An end may be told with the start, and later than it was."""
    end = record["special_ended_at"] if record["event_type"].startswith("case.special") else None
    if end is None:
        return Told(record["event_type"], record["occurred_at"], record["received_at"], record)
    return Told("case.special_ended", end, record["received_at"], record)


def _occurred(record: Record) -> tuple[int, str]:
    return record["occurred_at"], str(record["event_id"])


def _began(record: Record) -> int:
    start, occurred = record["special_started_at"], int(record["occurred_at"])
    return occurred if start is None else int(start)


def items(told: Sequence[Any]) -> dict[str, tuple[Item, ...]]:
    """Item versions as the second reading knows them, of rows of ``item_event`` as they were received: of two of one
    version the last holds.
    """
    versions: dict[str, dict[int, Item]] = defaultdict(dict)
    withdrawn = {(r.item_code, r.item_version): _withdrawn(r) for r in told if r.event_type == WITHDRAWN}
    for row in told:
        body = row.body
        if row.event_type == WITHDRAWN:
            continue
        ends = [_date(body["cancelled_on"]), withdrawn.get((row.item_code, row.item_version))]
        item = Item(row.item_code, row.item_version, "", row.region, row.department, body["promise_limit"],
                    body["statutory_limit"], date.fromisoformat(body["effective_on"]), body["promise_limit"] < 1,
                    body["limit_rule"], body["promise_unit_code"], body["statutory_unit_code"] or "1",
                    min((day for day in ends if day is not None), default=None),
                    None, body.get("item_type_code", ""))  # fmt: skip
        versions[row.item_code][row.item_version] = item
    return {
        code: tuple(sorted(filterfalse(_contradicts_itself, v.values()), key=lambda i: (i.effective_on, i.version)))
        for code, v in versions.items()
    }


def _withdrawn(told: Any) -> date:
    """The first day without the version: the one that is named, else the day of the withdrawal."""
    return _date(told.body["cancelled_on"]) or clock.day_of(told.occurred_at)


def _date(text: str | None) -> date | None:
    return date.fromisoformat(text) if text else None


def _contradicts_itself(item: Item) -> bool:
    """A promise beyond the statutory limit is a data error: no case is judged by it (DOMAIN §2.5)."""
    if item.statutory is None:
        return False
    (unit, factor), (other, against) = COMPARABLE[item.unit], COMPARABLE[item.statutory_unit]
    return unit == other and item.promise * factor > item.statutory * against


Calendars = Mapping[tuple[str, int], Record]
"""Of each region and year the newest revision: ``days`` and ``hours`` as in ``reference.calendar.v1``."""


def offices(calendars: Calendars, how: Counting, region: str) -> Offices:
    """The offices of ``region``: its own calendar before its district's before the nation's; ``how`` less than a day is
    counted.
    """

    @cache
    def said(year: int) -> tuple[dict[str, bool], list[Record]]:
        found = [calendars.get((name, year), {}) for name in (region, region[:6], NATION)]
        days = next((c["days"] for c in found if c.get("days")), ())
        hours = next((c["hours"] for c in found if c.get("hours")), ())
        return {str(d["day"]): d["working"] for d in days}, list(hours)

    def hours(day: date) -> Sequence[Span]:
        (different, spans), on = said(day.year), str(day)
        if not different.get(on, day.weekday() < clock.WEEKEND):
            return ()
        fit = [s["sessions"] for s in spans if str(s["from_on"]) <= on <= str(s["to_on"] or on)]
        return sorted((s["opens"], s["closes"]) for s in fit[-1]) if fit else clock.SESSIONS

    return Offices(hours, lambda year: bool(said(year)[0]), how.half_day_mode, how.fixed_half_day_minutes)


def _raw(tx: sa.Connection, query: str, topic: Any) -> Iterator[Mapping[str, Any]]:
    """The published records that ``query`` finds, as they were published."""
    rows = tx.execution_options(yield_per=FETCH).execute(sa.text(query), {"topic": topic.name})
    for value in rows.scalars():
        yield codec.decode(bytes(value), topic)


_CASE_EVENTS = (
    "SELECT o.value FROM case_event e JOIN outbox o ON o.topic = :topic AND o.event_id = e.event_id "
    'ORDER BY e.case_no, e."offset"'
)
_CALENDARS = "SELECT region, year, body FROM calendar_event ORDER BY region, year, revision"
_DERIVED = """SELECT c.case_no, c.region, c.department, c.item_code, c.status, c.on_time, c.due_at, c.accepted_at,
    n.events, least(greatest(:top, n.known), nullif(abs(c.next_check_at), 0) - 1) AS horizon
FROM case_state c JOIN (SELECT case_no, count(*) AS events, max(received_at) AS known FROM case_event GROUP BY 1) n
    USING (case_no) ORDER BY 1"""
"""``horizon``: how far a case was judged: up to the moment for which its timer still waits, and never beyond now or, if
that is later, its own last word.
"""
_ITEM_EVENTS = (
    "SELECT item_code, item_version, region, department, event_type, occurred_at, body FROM item_event "
    "ORDER BY 1, 2, received_at, event_id"
)


# --- cards: the last word of every alert that was said -------------------------------------------


def _cards(tx: sa.Connection, found: Recount) -> None:
    last: dict[str, Mapping[str, Any]] = {}
    for record in _raw(tx, "SELECT value FROM outbox WHERE topic = :topic ORDER BY seq", ALERT):
        if record["kind_code"] == "CARD" and record["alert_seq"] >= last.get(record["alert_id"], record)["alert_seq"]:
            last[record["alert_id"]] = record
    said = {i: (r["colour_code"], r["event_type"] == "alert.revoked") for i, r in last.items()
            if r["event_type"] != "alert.retracted"}  # fmt: skip
    rows = tx.execute(sa.text("SELECT alert_id::text, colour, revoked_at IS NOT NULL FROM card WHERE kind = 'CARD'"))
    derived = {alert_id: (colour, revoked) for alert_id, colour, revoked in rows}
    for alert_id in sorted(said.keys() | derived.keys()):
        found.compare("红黄牌", alert_id, derived.get(alert_id), said.get(alert_id))
    _standing(tx, found, [r for r in last.values() if r["event_type"] == "alert.issued"])


def _standing(tx: sa.Connection, found: Recount, words: Iterable[Record]) -> None:
    """The cards in the figures: of cases and of groups, less those that the desk says were taken back on appeal."""
    from streams.store.indicators import standing_cards

    out = {str(i) for i in tx.execute(sa.text(_TAKEN_BACK)).scalars()}
    standing = [r for r in words if r["alert_id"] not in out]
    counted = Counter((found.answering.get(r["case_no"]) or r["department"], _hue(r["colour_code"])) for r in standing)
    shown = {(d, hue): n for d, both in standing_cards(tx).items() for hue, n in zip(("红", "黄"), both, strict=True)}
    for department, hue in sorted(counted.keys() | {key for key, n in shown.items() if n}):
        derived = shown.get((department, hue), 0)
        found.compare("红黄牌数", f"{department} {hue}", derived, counted[department, hue])


def _hue(colour: str) -> str:
    return "黄" if colour == "YELLOW" else "红"


_TAKEN_BACK = "SELECT alert_id FROM alert_life WHERE kind = 'CARD' AND out_at IS NOT NULL"


# --- ratings, and items in SQL -------------------------------------------------------------------------


def _bad_ratings(tx: sa.Connection, found: Recount, open_in: Callable[[str], Offices]) -> None:
    """Every bad rating has an alert at the desk, unless that is still on its way; whether it was rectified, and the day
    on which it was given.
    """
    from streams.store.indicators import bad_days

    bad = tx.execute(sa.text(_BAD_RAW), {"void": found.void}).all()
    alerts = [str(derived_id("BAD_RATING", *_matter(r))) for r in bad]
    acts: dict[str, list[Any]] = defaultdict(list)
    for act in tx.execute(sa.text(_ACTS), {"alerts": alerts}):
        acts[act.alert_id].append(act)
    loops = {i: loop(acts[i], r, open_in(r.region)) for i, r in zip(alerts, bad, strict=True)}
    found.excluded = {_matter(r) for i, r in zip(alerts, bad, strict=True) if loops[i].out}
    heard = set(tx.execute(sa.text(_HEARD), {"alerts": alerts}).scalars())
    silent = [i for i, one in loops.items() if not one.out and i not in heard]
    coming = set(tx.execute(sa.text(_ON_THE_WAY), {"topic": ALERT.name, "alerts": silent}).scalars() if silent else ())
    counted = {i: str(one.rectified) for i, one in loops.items() if not one.out and i not in coming}
    if coming:
        found.left_out["差评预警尚未到达监察台"] += len(coming)
    derived = {i: str(rectified) for i, rectified in tx.execute(sa.text(_BAD_DERIVED))}
    for alert_id in sorted(counted.keys() | derived.keys()):
        found.compare("差评", alert_id, derived.get(alert_id), counted.get(alert_id))
    days, given = bad_days(tx), {i: clock.day_of(r.given_at) for i, r in zip(alerts, bad, strict=True)}
    for alert_id in sorted(days.keys() & counted.keys()):
        found.compare("差评日期", alert_id, days[alert_id], given[alert_id])


@dataclass(frozen=True, slots=True)
class Loop:
    """What became of a bad rating: whether it was found mistaken or malicious, and whether it was rectified."""

    out: bool
    rectified: bool


def loop(acts: Iterable[Any], rating: Any, open_in: Offices) -> Loop:
    """Walk the acts about ``rating`` from stage to stage (DOMAIN §5.7): each counts from the rating's minute on, if who
    did it may and the stage lets it follow, an appeal only until its days are over.
    """
    process = life.process("BAD_RATING")
    within = {t.name: t.days for t in process.timers}
    stage, rectified, order = process.begin, False, list(process.acts)
    told = [a for a in acts if a.act in order and a.occurred_at // clock.MINUTE >= rating.given_at // clock.MINUTE]
    for one in sorted(told, key=lambda a: (a.occurred_at, order.index(a.act), str(a.event_id))):
        before, after, timer = process.acts.get(f"{one.act}.{one.verified}", process.acts[one.act])
        own = one.department == rating.department and not life.decides(one.act)
        mine = own or one.department in life.deciders(rating.department)
        late = timer and _over(rating.issued_at, within[timer], one.occurred_at, open_in)
        if mine and stage in before and not late:
            stage, rectified = after, rectified or one.act == "rectified"
    return Loop(stage in process.out, rectified)


def _over(since: int, days: float, moment: int, open_in: Offices) -> bool:
    line = open_in.deadlines(since, days)
    return line.due is not None and not line.provisional and moment >= line.due + clock.MINUTE


def _matter(rating: Any) -> Matter:
    return rating.region, rating.case_no, rating.service_no, rating.department, rating.assess_no


def _ratings(tx: sa.Connection, found: Recount) -> None:
    """By whom each case is rated, and what the ratings of a department come to; neither where the tally has not settled
    yet what counts no more.
    """
    from streams.store.indicators import rated_cases, satisfaction

    void, waiting = set(found.void), set(tx.execute(sa.text(_WAITING)).scalars())
    rated: dict[str, bool] = {}
    sums: dict[str, tuple[int, int]] = {}
    late: set[tuple[str, str]] = set()
    for visit in _visits(tx):
        late |= {(r.case_no, r.department) for r in visit if r.case_no in waiting}
        one = _counting(visit, found.excluded)
        if one is not None and one.case_no not in void:
            rated[one.case_no] = rated.get(one.case_no, False) or not one.is_default
            worth, n = sums.get(one.department, (0, 0))
            sums[one.department] = worth + one.score * points(), n + 1
    shown, derived = rated_cases(tx), satisfaction(tx)
    for case_no in sorted((rated.keys() | shown.keys()) - waiting):
        found.compare("办件评价", case_no, _by_whom(shown.get(case_no)), _by_whom(rated.get(case_no)))
    for department in sorted((sums.keys() | derived.keys()) - {d for _, d in late}):
        found.compare("满意度", department, derived.get(department), sums.get(department))
    if late:
        found.left_out["评价是否计入尚未结算"] += len({case_no for case_no, _ in late})


def _visits(tx: sa.Connection) -> Iterator[list[Any]]:
    """The stored events of every visit, the word that holds after those that it replaces."""
    rows = tx.execution_options(yield_per=FETCH).execute(sa.text(_RATINGS))
    for _, visit in groupby(rows, key=lambda r: (r.case_no, r.region, r.service_no)):
        yield list(visit)


def _counting(visit: Iterable[Any], excluded: Set[Matter]) -> Any:
    """The rating of a visit that counts, or None: an own one before a default, a re-rating before the first (§5.6)."""
    last = {r.assess_no: r for r in visit}.values()
    standing = [r for r in last if r.operation != "D" and _matter(r) not in excluded]
    return max(standing, key=lambda r: (not r.is_default, r.assess_no), default=None)


def _by_whom(active: bool | None) -> str:
    return "未评价" if active is None else "主动评价" if active else "默认评价"


def _items(tx: sa.Connection, found: Recount, timers: Clock, top: int) -> None:
    """The items in force, and those that are handled though no version was in force when a case was accepted."""
    from streams.store.indicators import strangers

    counted = {str(k): str(v) for k, v in tx.execute(sa.text(_ITEMS_RAW), {"top": top})}
    expected = _by_rule(tx, timers)
    for key in sorted(counted.keys() | expected.keys()):
        found.compare("在用事项", key, expected.get(key), counted.get(key))
    derived = {(s.item_code, s.department, s.region) for s in strangers(tx, expected.keys())}
    known = counted.keys() | exempt()
    beside = {s for s in found.strangers if known.isdisjoint((s[0], s[0][:31] if len(s[0]) == 33 else s[0]))}
    for one in sorted(derived | beside):
        found.compare("平台外事项", " ".join(one), one in derived, one in beside)


def _by_rule(tx: sa.Connection, timers: Clock) -> dict[str, str]:
    from streams.store.indicators import items_in_force

    counts = items_in_force(tx, timers)
    return {c.item_code: f"{c.deep} {c.statutory:.2f} {c.statutory - c.promise:.2f}" for c in counts}


# what a department tells of one assessment
_SAME = "(%s.region, %s.case_no, %s.service_no, %s.department, %s.assess_no) = " \
    "(b.region, b.case_no, b.service_no, b.department, b.assess_no) AND NOT %s.is_default"
# a bad rating stands unless its publisher amended it
_BAD_RAW = f"""
SELECT b.region, b.case_no, b.service_no, b.department, b.assess_no, first.given_at, first.issued_at
FROM rating_event b CROSS JOIN LATERAL (
    SELECT f.occurred_at AS given_at, f.received_at AS issued_at FROM rating_event f
    WHERE {_SAME.replace("%s", "f")} AND f.revision > coalesce((
        SELECT max(g.revision) FROM rating_event g WHERE {_SAME.replace("%s", "g")} AND g.revision < b.revision
        AND (g.score > 2 OR g.operation = 'D')), -1) ORDER BY f.revision LIMIT 1) AS first
WHERE b.score <= 2 AND NOT b.is_default AND b.operation <> 'D' AND b.case_no <> ALL(CAST(:void AS text[]))
AND NOT EXISTS (SELECT FROM rating_event l WHERE {_SAME.replace("%s", "l")} AND l.revision > b.revision)"""
_ACTS = """
SELECT alert_id, event_id, substr(event_type, 10) AS act, department, occurred_at,
    coalesce(body->>'verify_result_code', '') AS verified
FROM handling_event WHERE alert_id = ANY(CAST(:alerts AS text[]))"""
_HEARD = "SELECT alert_id::text FROM alert_inbox WHERE alert_id = ANY(CAST(:alerts AS uuid[]))"
_ON_THE_WAY = """
SELECT o.key FROM outbox o LEFT JOIN cursor c ON c.processor = 'alerts' AND c.topic = o.topic
    AND c.partition = o.sent_partition
WHERE o.topic = :topic AND o.key = ANY(CAST(:alerts AS text[]))
AND (o.sent_at IS NULL OR o.sent_offset >= coalesce(c.next_offset, 0))"""
_BAD_DERIVED = """
SELECT alert_id, rectified_at IS NOT NULL FROM alert_life l WHERE kind = 'BAD_RATING' AND out_at IS NULL
AND NOT EXISTS (SELECT FROM case_state c WHERE c.case_no = l.case_no AND c.status = 'VOID')"""
_RATINGS = """
SELECT case_no, region, service_no, assess_no, department, operation, score, is_default FROM rating_event
ORDER BY case_no, region, service_no, is_default DESC, revision, occurred_at, event_id"""
_WAITING = "SELECT case_no FROM rating_out_news"
_ITEMS_RAW = """
WITH today AS (
    SELECT (timestamp 'epoch' + (least(greatest(max(watermark), (SELECT max(issued_at) FROM card), 0), :top) + 28800000)
        * interval '1 millisecond')::date AS d
    FROM cursor WHERE topic IN ('service.case.v1', 'service.rating.v1', 'oversight.handling.v1', 'service.item.v1',
        'reference.calendar.v1')),
standing AS (
    SELECT DISTINCT ON (item_code) item_code, body FROM item_event i, today
    WHERE event_type = 'item.published' AND (body->>'effective_on')::date <= d
    AND coalesce((body->>'cancelled_on')::date > d, true)
    AND NOT EXISTS (SELECT FROM item_event w, today WHERE w.event_type = 'item.withdrawn' AND w.item_code = i.item_code
        AND w.item_version = i.item_version AND coalesce((w.body->>'cancelled_on')::date, (timestamp 'epoch'
            + (w.occurred_at + 28800000) * interval '1 millisecond')::date) <= d)
    ORDER BY item_code, (body->>'effective_on')::date DESC, item_version DESC, received_at DESC, event_id DESC),
limits AS (
    SELECT item_code, body, body->>'promise_unit_code' AS pu,
        coalesce(nullif(body->>'statutory_unit_code', ''), '1') AS su,
        (body->>'promise_limit')::float AS p, (body->>'statutory_limit')::float AS s FROM standing),
days AS (
    SELECT item_code, body, pu IN ('2', '5') = su IN ('2', '5') AS alike,
        p * CASE pu WHEN '5' THEN 30 WHEN '3' THEN 1 / 7.0 WHEN '4' THEN 1 / 420.0 ELSE 1 END AS p,
        s * CASE su WHEN '5' THEN 30 WHEN '3' THEN 1 / 7.0 WHEN '4' THEN 1 / 420.0 ELSE 1 END AS s FROM limits),
sums AS (
    SELECT item_code, body->>'depth_set' = 'govbus.depth' AND body->>'depth_code' IN ('3', '4') AS deep,
        CASE WHEN alike AND p <= s THEN s ELSE 0 END AS s, CASE WHEN alike AND p <= s THEN s - p ELSE 0 END AS saved
    FROM days)
SELECT item_code, initcap(deep::text) || ' ' || to_char(s, 'FM999990.00') || ' ' || to_char(saved, 'FM999990.00')
FROM sums"""
