"""The life of an alert after it was issued: which act may follow which, by when, and what is said when one is late
(DOMAIN 4.2, 5.7).

Stages, limits and who decides are data (life.toml). Pure: a life is a function of the alert, the set of acts and the
calendars, up to a horizon (docs/architecture.md, "Knowledge time"), in whatever order they came. An act that may not
follow is kept with its fault and becomes a finding; none is dropped.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from streams.rules import cards, clock, clocks
from streams.rules.calendar import MINUTE_MS, Calendar, CalendarHistory, day_at, minute_of
from streams.rules.cards import RED, RED_STATUTORY, Alert, Ground, Knowledge
from streams.rules.data import data
from streams.rules.limits import Limit, counting

HANDLING, ESCALATION, RULING = "HANDLING", "ESCALATION", "RULING"
UNKNOWN, APPEAL_UPHELD = "UNKNOWN", "appeal_upheld"
Record = Mapping[str, Any]


# --- data -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Timer:
    """From each act of ``starts`` to the first of ``stops``, ``days`` working days; without ``colour`` it only
    measures.
    """

    name: str
    starts: tuple[str, ...]
    stops: tuple[str, ...]
    days: float
    colour: str = ""


@dataclass(frozen=True, slots=True)
class Process:
    """What may happen to alerts of some kinds: act -> (stages before, stage after, timer it must keep)."""

    name: str
    begin: str
    ends: frozenset[str]
    out: frozenset[str]
    acts: Mapping[str, tuple[frozenset[str], str, str]]
    timers: tuple[Timer, ...]


@dataclass(frozen=True, slots=True)
class Escalation:
    """So many standing red cards of one case, or of one department in one month, go to ``to``."""

    rule_id: str
    rule_version: str
    reds: int
    to: str


@cache
def process(kind: str) -> Process:
    """The process of alerts of ``kind`` (govbus.alert-kind); raises ``StopIteration`` for none."""
    raw = next(p for p in data("life")["process"] if kind in p["kinds"])
    acts = {name: (frozenset(a["from"]), a["to"], a.get("within", "")) for name, a in raw["acts"].items()}
    timers = tuple(
        Timer(t["name"], tuple(t["starts"]), tuple(t["stops"]), float(t["days"]), t.get("colour", ""))
        for t in raw.get("timer", ())
    )
    return Process(raw["name"], raw["begin"], frozenset(raw["ends"]), frozenset(raw["out"]), acts, timers)


@cache
def escalation(scope: str) -> Escalation:
    """The escalation rule of ``scope``: CASE or DEPARTMENT."""
    raw = next(e for e in data("life")["escalation"] if e["scope"] == scope)
    return Escalation(raw["rule_id"], raw["version"], raw["reds"], raw["to"])


@cache
def text(name: str) -> str:
    """A sentence of ``life.toml``, to be formatted."""
    return str(data("life")["text"][name])


@cache
def addressee(rule_id: str, about: str) -> str:
    """Whom an alert of that rule is for, where the one that it speaks of is ``about`` a department; empty: who answers
    for that one.
    """
    timers = (t for p in data("life")["process"] for t in p.get("timer", ()) if t.get("decider"))
    return deciders(about)[0] if rule_id in {_rule_of(t["name"]) for t in timers} else ""


def _rule_of(timer: str) -> str:
    """The id of the rule by which what a timer measures is overdue."""
    return f"HS-LIFE-{timer.upper()}"


def deciders(about: str = "") -> tuple[str, ...]:
    """Who decides appeals and supervises, the one that does so unless it is said otherwise first; nobody does in a
    matter ``about`` itself.
    """
    return tuple(one for one in data("life")["rule"]["deciders"] if one != about)


def decides(act: str) -> bool:
    """Whether an act (without ``handling.``) decides something, which no department does in its own matter."""
    return act in data("life")["rule"]["decisions"]


def entitled(act: str, by: str, about: str) -> bool:
    """Whether ``by`` may do the act: deciders any, the department that the alert is ``about`` what decides nothing."""
    return by in deciders(about) or (by == about and not decides(act))


def answered(department: str, former: Iterable[tuple[int, str]], at: int) -> tuple[str, ...]:
    """Whose acts of the moment ``at`` (epoch ms) count: who answers now, and who (``former``: until when) still did."""
    return (department, *(before for until, before in former if at < until))


# --- what is known --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Word:
    """An alert as its last word has it: about whom, and epoch ms UTC when it became true, when it was taken back and,
    of a bad rating, when it was given. ``former``: until when which departments answered before; what they did by then
    was theirs to do.
    """

    alert_id: str
    kind: str
    colour: str
    case_no: str
    department: str
    issued_at: int
    revoked_at: int | None = None
    revoked_reason: str = ""
    given_at: int | None = None
    former: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Act:
    """One handling event; ``type`` without ``handling.``; ``known_at``: its ``received_at``, epoch ms UTC."""

    event_id: str
    alert_id: str
    type: str
    department: str
    occurred_at: int
    known_at: int
    verified: str = ""
    level: str = ""
    closing: str = ""
    satisfied: bool | None = None

    @classmethod
    def of(cls, record: Record) -> Act:
        """From a stored record of ``oversight.handling.v1``, of any version of its contract."""
        return cls(
            record["event_id"],
            record["alert_id"],
            record["event_type"].removeprefix("handling."),
            record["department"],
            record["occurred_at"],
            record["received_at"],
            record["verify_result_code"],
            record.get("level_code", ""),
            record.get("closing_code", ""),
            record["satisfied"],
        )


@dataclass(frozen=True, slots=True)
class Step:
    """An act and what became of it: the stage after it, or the fault (govbus.handling-fault) for which it had no
    effect.
    """

    act: Act
    stage: str
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a timer: epoch ms of its start, its last minute and the act that stopped it (None: none yet)."""

    timer: Timer
    number: int
    started_at: int
    due_at: int | None
    provisional: bool
    version: str
    evidence: tuple[str, ...]
    stopped_at: int | None = None
    ended: bool = False

    @property
    def late_from(self) -> int | None:
        """First moment at which it is overdue (epoch ms); None: never, it was stopped in time or cannot be judged."""
        if self.due_at is None or self.provisional:
            return None
        over = self.due_at + MINUTE_MS
        return over if self.stopped_at is None or self.stopped_at >= over else None


@dataclass(frozen=True, slots=True)
class Life:
    """An alert's life as far as it is known. ``out_at``: when it became known that it left the statistics."""

    word: Word
    stage: str
    steps: tuple[Step, ...] = ()
    runs: tuple[Run, ...] = ()
    out_at: int | None = None
    out_reason: str = ""

    def first(self, act: str) -> int | None:
        """When the act was first rightly done, epoch ms."""
        return next((s.act.occurred_at for s in self.steps if s.act.type == act and not s.fault), None)

    def last(self, act: str) -> Act | None:
        """The act as it was last rightly done."""
        return next((s.act for s in reversed(self.steps) if s.act.type == act and not s.fault), None)

    def run(self, timer: str) -> Run | None:
        """The first run of a timer."""
        return next((r for r in self.runs if r.timer.name == timer), None)

    @property
    def next_run(self) -> Run | None:
        """The running timer that ends first, of those that say something."""
        open_ = [r for r in self.runs if r.timer.colour and r.stopped_at is None and not r.ended]
        return min(open_, key=lambda r: (r.due_at or 0, r.timer.name), default=None)


@dataclass(frozen=True, slots=True)
class Desk:
    """A case's alerts: their lives at the horizon, the alerts about these, and when silence changes something."""

    lives: tuple[Life, ...]
    alerts: tuple[Alert, ...]
    next_check_at: int | None


# --- one life under one knowledge -----------------------------------------------------------------


def life(word: Word, acts: Iterable[Act], calendar: Calendar) -> Life:
    """The life that ``acts`` (each once, any order) make of ``word``, counted on ``calendar``."""
    walk = _Walk(word, process(word.kind), calendar)
    walk.begin()
    for act in sorted(acts, key=_order):
        walk.take(act)
    return walk.end()


def _order(act: Act) -> tuple[int, int, str]:
    return act.occurred_at, data("life")["rule"]["acts"].index(act.type), act.event_id


@dataclass(slots=True)
class _Walk:
    """One walk over the acts about one alert; lives for one call of :func:`life`."""

    word: Word
    process: Process
    calendar: Calendar
    stage: str = ""
    before: str = ""
    held: tuple[Timer, ...] = ()  # by the supervision that followed on ``before``
    steps: list[Step] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)

    def begin(self) -> None:
        self.stage = self.process.begin
        self._start(self._begun_by("issued"), self.word.issued_at, ())

    def take(self, act: Act) -> None:
        """Let one act change the stage, or note why it may not."""
        name = f"{act.type}.{act.verified}" if f"{act.type}.{act.verified}" in self.process.acts else act.type
        fault = self._fault(act, name)
        if not fault:
            to = self.process.acts[name][1]
            if to == "SUPERVISED" and self.stage != to:
                self.before, self.held = self.stage, self._stopped_by(act)
            self.stage = self.before if to == "BEFORE" else to
            self._stop(act)
            anew = self.held if to == "BEFORE" else ()  # or nothing would ever be due again
            self._start((*self._begun_by(act.type), *anew), act.occurred_at, (act.event_id,))
        self.steps.append(Step(act, self.stage, fault))

    def end(self) -> Life:
        """The life after the last act, or as the alert's own revocation left it."""
        word, made = self.word, tuple(self.steps)
        if word.revoked_at is not None:
            return Life(word, "REVOKED", made, self._ended(), word.revoked_at, word.revoked_reason)
        if self.stage in self.process.out:
            known = next(s.act.known_at for s in made if s.stage == self.stage and not s.fault)
            return Life(word, self.stage, made, self._ended(), known, APPEAL_UPHELD)
        return Life(word, self.stage, made, self._ended() if self.stage in self.process.ends else tuple(self.runs))

    def _fault(self, act: Act, name: str) -> str:
        if name not in self.process.acts:
            return "not_for_kind"
        before, _, within = self.process.acts[name]
        answering = answered(self.word.department, self.word.former, act.occurred_at)
        if not any(entitled(act.type, act.department, about) for about in answering):
            return "not_entitled"
        if self._before_alert(act):
            return "before_alert"
        if self.stage in self.process.ends:
            return "after_end"
        if self.stage not in before:
            return "out_of_order"
        return "appeal_late" if within and self._over(within, act.occurred_at) else ""

    def _before_alert(self, act: Act) -> bool:
        """Whether nobody could act yet, by the minute; about a rating one can before the bus knows of it."""
        since = self.word.issued_at if self.word.given_at is None else self.word.given_at
        return minute_of(act.occurred_at) < minute_of(since)

    def _over(self, timer: str, moment: int) -> bool:
        run = next(r for r in self.runs if r.timer.name == timer)
        return run.due_at is not None and not run.provisional and moment >= run.due_at + MINUTE_MS

    def _begun_by(self, name: str) -> tuple[Timer, ...]:
        return tuple(t for t in self.process.timers if name in t.starts)

    def _stopped_by(self, act: Act) -> tuple[Timer, ...]:
        return tuple(r.timer for r in self.runs if r.stopped_at is None and act.type in r.timer.stops)

    def _start(self, timers: Iterable[Timer], moment: int, evidence: tuple[str, ...]) -> None:
        for timer in timers:
            number = 1 + sum(r.timer.name == timer.name for r in self.runs)
            self.runs.append(self._run(timer, number, moment, evidence))

    def _run(self, timer: Timer, number: int, moment: int, evidence: tuple[str, ...]) -> Run:
        line = clock.deadline(self.calendar, minute_of(moment), Limit(timer.days), counting())
        return Run(timer, number, moment, clocks.ms(line.due), line.provisional, line.version, evidence)

    def _stop(self, act: Act) -> None:
        self.runs = [
            replace(r, stopped_at=act.occurred_at, evidence=(*r.evidence, act.event_id))
            if r.stopped_at is None and act.type in r.timer.stops
            else r
            for r in self.runs
        ]

    def _ended(self) -> tuple[Run, ...]:
        return tuple(replace(r, ended=True) for r in self.runs)


# --- an act before it is done --------------------------------------------------------------------


def fault(word: Word, acts: Iterable[Act], act: Act, calendar: Calendar) -> str:
    """Why ``act`` would have no effect beside ``acts`` (govbus.handling-fault); empty: it would have one."""
    return next(s.fault for s in life(word, (*acts, act), calendar).steps if s.act is act)


def may_follow(word: Word, acts: Sequence[Act], act: Act, calendar: Calendar) -> tuple[str, ...]:
    """What the department of ``act`` may do by the time at which that becomes known."""
    now = replace(act, occurred_at=act.known_at, verified="")
    names = (name for name in process(word.kind).acts if "." not in name)
    return tuple(name for name in names if not fault(word, acts, replace(now, type=name), calendar))


# --- what must be said about it -------------------------------------------------------------------


def desk(words: Iterable[Word], acts: Iterable[Act], calendars: CalendarHistory, region: str, horizon: int) -> Desk:
    """The lives of one case's alerts up to ``horizon`` (epoch ms), and what is overdue, irregular or repeated.

    Acts about alerts that are not among ``words`` are left alone.
    """
    known = sorted((w for w in words if w.issued_at <= horizon), key=lambda w: (w.issued_at, w.alert_id))
    later = [w.issued_at for w in words if w.issued_at > horizon]
    done: dict[str, list[Act]] = {w.alert_id: [] for w in known}
    for act in acts:
        if act.alert_id in done:
            done[act.alert_id].append(act)
    lived = [_lived(w, done[w.alert_id], calendars, region, horizon) for w in known]
    alerts = [a for one in lived for a in one.alerts]
    alerts += escalated("CASE", known[0].case_no if known else "", [one.lives[0] for one in lived], horizon)
    ahead = [*later, *(t for one in lived if (t := one.next_check_at) is not None)]
    return Desk(
        tuple(one.lives[0] for one in lived),
        tuple(sorted(alerts, key=lambda a: (a.issued_at, a.alert_id))),
        min(ahead, default=None),
    )


def _lived(word: Word, acts: Sequence[Act], calendars: CalendarHistory, region: str, horizon: int) -> Desk:
    """One alert's life at ``horizon``, its alerts over knowledge time, and when something more becomes known or due."""
    changes = calendars.changes(region)
    own = [a.known_at for a in acts] + ([] if word.revoked_at is None else [word.revoked_at])
    moments = sorted({word.issued_at, *(t for t in (*own, *changes) if word.issued_at < t <= horizon)})
    history: list[Knowledge] = []
    last = Life(word, UNKNOWN)
    for at in moments:
        last = _known(word, acts, calendars.known_at(at, region), at)
        new = [a.type for a in acts if a.known_at == at]
        history.append(Knowledge(at, _grounds(last), (), 0, _why(word, at, new)))
    alerts, upcoming = cards.alerts(word.case_no, history, horizon)
    ahead = [t for t in (*own, *changes, upcoming) if t is not None and t > horizon]
    return Desk((last,), alerts, min(ahead, default=None))


def _known(word: Word, acts: Iterable[Act], calendar: Calendar, at: int) -> Life:
    """The life as known at ``at``."""
    if word.revoked_at is not None and word.revoked_at > at:
        word = replace(word, revoked_at=None, revoked_reason="")
    return life(word, (a for a in acts if a.known_at <= at), calendar)


def _why(word: Word, at: int, new: Sequence[str]) -> str:
    """Code of ``govbus.revocation`` for what new knowledge takes back."""
    if word.revoked_at == at:
        return "alert_revoked"
    if not new:
        return "calendar_revised"
    return APPEAL_UPHELD if "revoked" in new else "late_handling"


def _grounds(lived: Life) -> tuple[Ground, ...]:
    """What is overdue or irregular; about an alert that left the statistics only that an appeal took it out."""
    if lived.out_at is not None:
        return _ruled(lived)
    overdue = (_overdue(lived, run) for run in lived.runs if run.timer.colour)
    odd = (_irregular(lived, step) for step in lived.steps if step.fault)
    return (*(g for g in overdue if g is not None), *odd)


def _ruled(lived: Life) -> tuple[Ground, ...]:
    """The decision on an appeal that was upheld, while that is what took the alert out; it stands beside a bad rating
    whose case is void, for nobody took that alert back (docs/decisions/0016).
    """
    word, out = lived.word, process(lived.word.kind).out
    step = next((s for s in lived.steps if s.stage in out and not s.fault), None)
    rated_of_void = (word.kind, word.revoked_reason) == ("BAD_RATING", "case_voided")
    if step is None or (word.revoked_at is not None and not rated_of_void):
        return ()
    ruling = Ground(
        RULING, cards.NO_COLOUR, _rule_of("ruling"), data("life")["rule"]["version"], f"{word.alert_id}/{step.stage}",
        step.act.known_at, None, "", False, (word.alert_id, step.act.event_id),
    )  # fmt: skip
    return (ruling,)


def _overdue(lived: Life, run: Run) -> Ground | None:
    since = run.late_from
    if since is None or (run.ended and run.stopped_at is None and since > _ended_at(lived)):
        return None
    return Ground(
        HANDLING, run.timer.colour, _rule_of(run.timer.name), data("life")["rule"]["version"],
        f"{lived.word.alert_id}/{run.timer.name}/{run.number}", since, run.due_at, run.version, False,
        (lived.word.alert_id, *run.evidence),
    )  # fmt: skip


def _ended_at(lived: Life) -> int:
    """When an ended life ended: its last right act."""
    return max((s.act.occurred_at for s in lived.steps if not s.fault), default=lived.word.issued_at)


def _irregular(lived: Life, step: Step) -> Ground:
    """A finding about who did it; an act that came before its predecessor waits for it a while."""
    park = data("life")["rule"]["park_hours"] * 3_600_000 if step.fault == "out_of_order" else 0
    return Ground(
        cards.FINDING, cards.NO_COLOUR, "illegal_handling", data("life")["rule"]["version"],
        f"{lived.word.alert_id}/{step.act.type}/{step.fault}/{step.act.event_id}", step.act.known_at + park, None, "",
        False, (lived.word.alert_id, step.act.event_id), step.act.department,
    )  # fmt: skip


# --- red after red --------------------------------------------------------------------------------


def month_of(department: str, issued_at: int) -> str:
    """``HS-ZJJ/2020-09``: the key under which a department's red cards of one month (Asia/Shanghai) stand together."""
    return f"{department}/{day_at(issued_at):%Y-%m}"


def escalated(scope: str, key: str, lives: Iterable[Life], horizon: int) -> tuple[Alert, ...]:
    """The escalation of a case, or of a department in a month (``key``), up to ``horizon``: said once, when enough red
    cards stand together, and taken back when so many of them have left the statistics that too few stand.
    """
    rule = escalation(scope)
    reds = {
        (e.word.issued_at, e.word.alert_id): e.out_at
        for e in lives
        if e.word.kind == cards.CARD and e.word.colour in (RED, RED_STATUTORY) and e.word.issued_at <= horizon
    }
    if len(reds) < rule.reds:
        return ()
    standing = sorted(reds)
    begin = standing[0][0]
    leaving: dict[int, list[tuple[int, str]]] = {begin: []}
    for red, out in reds.items():
        if out is not None and out <= horizon:
            leaving.setdefault(max(out, begin), []).append(red)
    history = []
    for at in sorted(leaving):
        for red in leaving[at]:
            del standing[bisect_left(standing, red)]
        history.append(_full(rule, key, standing, at))
    return cards.alerts(key, history, horizon)[0]


def _full(rule: Escalation, key: str, standing: Sequence[tuple[int, str]], at: int) -> Knowledge:
    """What is known at ``at`` of the red cards that have not left the statistics by then, in order of issue."""
    first = standing[: rule.reds]
    grounds = []
    if len(first) == rule.reds:
        ids = tuple(alert_id for _, alert_id in first)
        grounds.append(
            Ground(ESCALATION, RED, rule.rule_id, rule.rule_version, key, first[-1][0], None, "", False, ids)
        )
    return Knowledge(at, grounds, (), 0, "alert_revoked")
