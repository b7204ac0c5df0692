"""Cards and findings over knowledge time: when one is issued and when later knowledge takes it back.

Thresholds are data (cards.toml). Pure: the same points of knowledge give the same alerts, whenever one asks.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from msgspec import Struct, structs

from schemas.envelope import derived_id
from streams.rules.calendar import day_of
from streams.rules.clock import Pauses, Warning
from streams.rules.data import data
from streams.rules.lifecycle import Practice

YELLOW, RED, RED_STATUTORY, NO_COLOUR = "YELLOW", "RED", "RED_STATUTORY", "NONE"
CARD, FINDING = "CARD", "FINDING"
_SEVERITY = {RED_STATUTORY: 0, RED: 1, YELLOW: 2, NO_COLOUR: 3}


HANDLING, STATUTORY, STEP, DELIVERY, GROUP = "handling", "statutory", "step", "delivery", "group"


@dataclass(frozen=True, slots=True)
class CardRule:
    """One version of a card's rule for one ``clock``, in force for clocks that begin on day ``effective`` or
    later. ``at_warning``: the card comes with the warning; else with the minute after the due one.
    """

    clock: str
    at_warning: bool
    colour: str
    rule_id: str
    rule_version: str
    effective: int
    warning: Warning


@cache
def _rules() -> tuple[CardRule, ...]:
    rules = (
        CardRule(
            raw["clock"],
            raw["at"] == "warning",
            raw["colour"],
            raw["rule_id"],
            raw["rule_version"],
            day_of(raw["effective_on"]),
            Warning(raw.get("consumed_percent", 100), raw.get("days_left", 0)),
        )
        for raw in data("cards")["card"]
    )
    return tuple(sorted(rules, key=lambda r: r.effective, reverse=True))


@cache
def _versions(clock: str) -> tuple[tuple[int, ...], tuple[tuple[tuple[CardRule, ...], Warning], ...]]:
    """The days from which another set of ``clock``'s rules is in force, and these sets with their warnings."""
    ours = [r for r in _rules() if r.clock == clock]
    days = tuple(sorted({r.effective for r in ours}))
    return days, tuple(_in_force(ours, day) for day in days)


def _in_force(ours: Sequence[CardRule], day: int) -> tuple[tuple[CardRule, ...], Warning]:
    colours = {r.colour: [v for v in ours if v.colour == r.colour] for r in reversed(ours)}
    found = tuple(next((v for v in versions if v.effective <= day), versions[-1]) for versions in colours.values())
    return found, next((r.warning for r in found if r.at_warning), AT_ITS_END)


AT_ITS_END = Warning(100, 0)


def _on(clock: str, day: int) -> tuple[tuple[CardRule, ...], Warning]:
    days, sets = _versions(clock)
    return sets[max(bisect_right(days, day) - 1, 0)] if sets else ((), AT_ITS_END)


def rules(clock: str, day: int) -> tuple[CardRule, ...]:
    """The rules of ``clock`` for one that begins on day ``day``, one a colour; before a rule's first version,
    the first.
    """
    return _on(clock, day)[0]


def warning(clock: str, day: int) -> Warning:
    """When ``clock`` warns if it begins on day ``day``; at its end if no rule asks for a warning."""
    return _on(clock, day)[1]


@cache
def clock_of(rule_id: str) -> str:
    """The clock that a card's rule is about; empty for findings."""
    return next((r.clock for r in _rules() if r.rule_id == rule_id), "")


@cache
def practice() -> Practice:
    """What the lifecycle takes from ``cards.toml``."""
    results = {
        (raw["set"], code): status
        for raw in data("cards")["result"]
        for status, codes in raw.items()
        if status != "set"
        for code in codes
    }
    special, day_ms = data("cards")["special"], 86_400_000
    patience = data("cards")["finding"]["park_hours"] * 3_600_000
    return Practice(frozenset(special["running"]), results, patience, special["longest_days"] * day_ms)


@cache
def finding_version() -> str:
    """Version of the findings' rules."""
    return str(data("cards")["finding"]["rule_version"])


class Ground(Struct, frozen=True):
    """What supports an alert under one state of knowledge: the rule, what it is about, and from when on
    (epoch ms). ``department``: who must answer for it, where that is another than who answers for the case.
    """

    kind: str
    colour: str
    rule_id: str
    rule_version: str
    subject: str
    since: int
    due_at: int | None
    calendar_version: str
    provisional: bool
    evidence: tuple[str, ...]
    department: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """One alert at a time for each (colour, rule, subject)."""
        return self.colour, self.rule_id, self.subject


class Knowledge(Struct, frozen=True):
    """What is known from ``at`` (epoch ms) on, until the next knowledge.

    ``pauses`` (epoch ms, disjoint) and ``hold_until`` keep cards back; ``why`` is the revocation code
    (``govbus.revocation``)
    for what this knowledge no longer supports; ``department`` answers for the case.
    """

    at: int
    grounds: Sequence[Ground]
    pauses: Pauses
    hold_until: int
    why: str
    department: str = ""


class Alert(Struct, frozen=True, array_like=True):
    """A card or finding: issued, and perhaps revoked. Times epoch ms UTC; ``ordinal`` counts re-issues from
    1. ``answering``: while it stands, from when on which department answers for it.
    """

    alert_id: str
    ordinal: int
    kind: str
    colour: str
    rule_id: str
    rule_version: str
    subject: str
    due_at: int | None
    calendar_version: str
    provisional: bool
    evidence: tuple[str, ...]
    issued_at: int
    revoked_at: int | None = None
    revoked_reason: str = ""
    answering: tuple[tuple[int, str], ...] = ()


def alerts(case_no: str, history: Sequence[Knowledge], horizon: int) -> tuple[tuple[Alert, ...], int | None]:
    """All alerts up to ``horizon`` in order of issue, and the next moment at which the last knowledge brings
    one.

    ``history`` rises strictly in ``at``. An alert is issued at the first moment its ground holds and is known, revoked
    when new knowledge no longer supports it or says that the case was paused then (DOMAIN 4.2). After a red card no
    yellow one, and after one of the statute no red one: colours only escalate.
    """
    desk = _Desk(case_no)
    upcoming: int | None = None
    for number, knowledge in enumerate(history):
        last = number + 1 == len(history)
        until = horizon + 1 if last else history[number + 1].at
        desk.revoke(knowledge)
        desk.hand_over(knowledge)
        late = desk.issue(knowledge, until)
        upcoming = late if last else None
    return desk.all(), upcoming


class _Desk:
    """Alerts of one case while its knowledge grows; lives for one call of :func:`alerts`."""

    def __init__(self, case_no: str) -> None:
        self._case_no = case_no
        self._active: dict[tuple[str, str, str], Alert] = {}
        self._closed: list[Alert] = []
        self._times: dict[tuple[str, str, str], int] = {}

    def revoke(self, knowledge: Knowledge) -> None:
        if not self._active:
            return
        held = {g.key for g in knowledge.grounds if g.since <= knowledge.at}
        for key in [k for k, a in self._active.items() if k not in held or _was_paused(a, knowledge)]:
            alert = self._active.pop(key)
            self._times[key] = alert.ordinal
            self._closed.append(structs.replace(alert, revoked_at=knowledge.at, revoked_reason=knowledge.why))

    def hand_over(self, knowledge: Knowledge) -> None:
        """What stands goes with the case to whoever answers for it now."""
        for key, alert in self._active.items():
            if knowledge.department and alert.answering and alert.answering[-1][1] != knowledge.department:
                told = (*alert.answering, (knowledge.at, knowledge.department))
                self._active[key] = structs.replace(alert, answering=told)

    def issue(self, knowledge: Knowledge, until: int) -> int | None:
        """Issue what becomes true before ``until``; the earliest moment of what becomes true later."""
        due = [(_moment(g, knowledge), g) for g in knowledge.grounds if g.key not in self._active]
        timed = sorted(
            ((t, g) for t, g in due if t is not None), key=lambda p: (p[0], _SEVERITY[p[1].colour], p[1].key)
        )
        for moment, ground in timed:
            if moment >= until:
                return moment
            if not self._is_outdone(ground):
                self._active[ground.key] = self._alert(ground, moment, ground.department or knowledge.department)
        return None

    def all(self) -> tuple[Alert, ...]:
        return tuple(sorted([*self._closed, *self._active.values()], key=lambda a: (a.issued_at, a.alert_id)))

    def _is_outdone(self, ground: Ground) -> bool:
        """Whether a higher card stands that the ground's clock, or the statute behind it, has brought."""
        clock, higher = clock_of(ground.rule_id), _HIGHER.get(ground.colour, ())
        return any(
            a.colour in higher and _ESCALATES.get(name := clock_of(a.rule_id), name) == clock
            for a in self._active.values()
        )

    def _alert(self, ground: Ground, moment: int, department: str) -> Alert:
        ordinal = 1 + self._times.get(ground.key, 0)
        alert_id = str(derived_id("alert", self._case_no, ground.rule_id, ground.colour, ground.subject, ordinal))
        return Alert(
            alert_id,
            ordinal,
            ground.kind,
            ground.colour,
            ground.rule_id,
            ground.rule_version,
            ground.subject,
            ground.due_at,
            ground.calendar_version,
            ground.provisional,
            ground.evidence,
            moment,
            answering=((moment, department),) if department else (),
        )


_HIGHER = {YELLOW: (RED, RED_STATUTORY), RED: (RED_STATUTORY,)}
_ESCALATES = {STATUTORY: HANDLING}  # both run on the same work: no lower card of the one under a higher of the other


def _moment(ground: Ground, knowledge: Knowledge) -> int | None:
    """When the ground holds and may be said; None: not while a pause is open."""
    moment = max(ground.since, knowledge.at)
    if ground.kind != CARD:
        return moment
    return unpaused(max(moment, knowledge.hold_until), knowledge.pauses)


def _was_paused(alert: Alert, knowledge: Knowledge) -> bool:
    """Whether it is known now that the case was paused when the card came (DOMAIN 4.2): the terms to answer it would
    run from a moment at which its clock stood still.
    """
    return alert.kind == CARD and unpaused(alert.issued_at, knowledge.pauses) != alert.issued_at


def unpaused(moment: int, pauses: Iterable[tuple[int, int | None]]) -> int | None:
    """``moment``, or the end of the pause it falls into; None: that pause is open. ``pauses`` rising and
    disjoint.
    """
    for start, end in pauses:
        if start <= moment and (end is None or moment < end):
            return end
    return moment


def summary(case_no: str, alert: Alert, due: str, finding: str) -> str:
    """The sentence a supervisor reads; ``due`` as local time text, ``finding`` the finding's name. No
    personal data.
    """
    about = _ABOUT.get(alert.rule_id) or (clock_of(alert.rule_id), alert.colour)
    sentence = _SENTENCES[about].format(case_no=case_no, due=due, finding=finding, subject=alert.subject)
    return sentence + ("（日历未公布，期限为暂定）" if alert.provisional else "")


_SENTENCES: Mapping[tuple[str, str], str] = {
    (HANDLING, YELLOW): "黄牌：办件 {case_no} 承诺时限将到，应于 {due} 前办结，请尽快办理。",
    (HANDLING, RED): "红牌：办件 {case_no} 已超过承诺时限（{due}），请立即办理并说明原因。",
    (STATUTORY, RED_STATUTORY): "红牌：办件 {case_no} 已超过法定时限（{due}），请立即办理并书面说明。",
    (STEP, YELLOW): "黄牌：办件 {case_no} 的“{subject}”环节已超过时限（{due}），请尽快办理。",
    (DELIVERY, YELLOW): "黄牌：办件 {case_no} 证照送达时限将到，应于 {due} 前送达。",
    (DELIVERY, RED): "红牌：办件 {case_no} 证照已超过送达时限（{due}），请立即送达并说明原因。",
    (GROUP, YELLOW): "黄牌：{case_no} 全流程时限将到，应于 {due} 前全部办结，请牵头部门协调。",
    (GROUP, RED): "红牌：{case_no} 已超过全流程时限（{due}），请牵头部门立即协调并说明原因。",
    ("", NO_COLOUR): "监察发现：办件 {case_no} {finding}，请核查。",
    ("item", NO_COLOUR): "监察发现：事项 {case_no} 的“{subject}”线上线下不一致，请核查。",
}
_ABOUT: Mapping[str, tuple[str, str]] = {"element_mismatch": ("item", NO_COLOUR)}
