"""The course of a case: what its events, in order of when they happened, make of it (DOMAIN 3.1, 3.5).

Decides status, acceptance, stop, pauses and what is irregular. Knows nothing of due dates but the acceptance
clock.
An illegal event becomes a finding and an event without its predecessor is parked; none is dropped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct, structs

from streams.rules import clock
from streams.rules.calendar import Calendar, epoch_ms, minute_of
from streams.rules.limits import Counting, plausible

NONE, SUBMITTED, WAIT, ACCEPTED, IN_PROCESS, SUSPENDED = (
    "NONE",
    "SUBMITTED",
    "WAIT_CORRECTION",
    "ACCEPTED",
    "IN_PROCESS",
    "SUSPENDED",
)
NOT_ACCEPTED, GRANTED, DENIED, CERTIFIED, DELIVERED = (
    "NOT_ACCEPTED",
    "GRANTED",
    "DENIED",
    "CERTIFIED",
    "DELIVERED",
)
WITHDRAWN, RETURNED, TRANSFERRED, VOID = "WITHDRAWN", "RETURNED", "TRANSFERRED", "VOID"
OPEN = (NONE, SUBMITTED, WAIT, ACCEPTED, IN_PROCESS)
RUNNING = (ACCEPTED, IN_PROCESS)
ENDED = (NOT_ACCEPTED, GRANTED, DENIED, CERTIFIED, DELIVERED, WITHDRAWN, RETURNED, TRANSFERRED, VOID)
DECIDED = (GRANTED, DENIED, CERTIFIED, DELIVERED)
UNACCEPTED = (NOT_ACCEPTED, RETURNED, TRANSFERRED, VOID)
"""What a decision can make of a case that was not accepted (DOMAIN 3.4, 3.5)."""
VAIN = (NOT_ACCEPTED, DENIED, WITHDRAWN, RETURNED, TRANSFERRED)

# Order among events of one moment (DOMAIN 3.5: 即办件 share a timestamp).
RANK = {
    name: rank
    for rank, name in enumerate(
        (
            "submitted",
            "prechecked",
            "correction_requested",
            "correction_received",
            "accepted",
            "not_accepted",
            "step_completed",
            "special_started",
            "special_ended",
            "extended",
            "decided",
            "transferred",
            "returned",
            "withdrawn",
            "certified",
            "delivered",
            "verified",
            "corrected",
            "voided",
        )
    )
}


class Interval(Struct, frozen=True):
    """A special procedure, epoch ms; ``end`` None: still open. ``told_by``: the event that says so."""

    start: int
    end: int | None
    told_by: str


class CaseEvent(Struct, frozen=True, array_like=True, gc=False):
    """What a case remembers of one event, without personal data. Times in epoch ms UTC; ``type`` without
    ``case.``.

    ``known_at``: knowledge time, the highest ``received_at`` of the case up to this event in log order.
    """

    event_id: str
    type: str
    region: str
    department: str
    item_code: str
    occurred_at: int
    known_at: int
    event_no: int = 1
    special: str = ""
    started_at: int | None = None
    ended_at: int | None = None
    extension: float | None = None
    extension_unit: str = ""
    reasoned: bool = True
    result_set: str = ""
    result: str = ""
    corrects: str = ""
    corrected_at: int | None = None
    step: str = ""
    responsible: str = ""
    acceptance: str = ""
    verify_by: int | None = None
    verification: str = ""
    project: str = ""
    bundle: str = ""
    bundle_code: str = ""

    @classmethod
    def of(cls, event_id: str, record: Mapping[str, Any]) -> CaseEvent:
        """From a record of ``service.case.v1``; an extension that is no plausible amount counts as none."""
        added = record["extension_limit"]
        return cls(
            event_id,
            record["event_type"][5:],
            record["region"],
            record["department"],
            record["item_code"],
            record["occurred_at"],
            record["received_at"],
            record["event_no"],
            record["special_kind_code"],
            record["special_started_at"],
            record["special_ended_at"],
            added if added is None or plausible(added) else None,
            record["extension_unit_code"],
            bool(record["reason"].strip()),
            record["result_set"],
            record["result_code"],
            record["corrects_event_id"],
            record["corrected_at"],
            record["step_name"] if record["event_type"] == "case.step_completed" else "",
            record["responsible_code"],
            record["acceptance_code"],
            record["verify_by"],
            record["verification_code"],
            record["project_code"],
            record["bundle_no"],
            record["bundle_code"],
        )


@dataclass(frozen=True, slots=True)
class Practice:
    """What the lifecycle takes from data: kinds of special procedure that do not pause, results, patience
    with what must still arrive and with a special procedure, in ms.
    """

    running_specials: frozenset[str]
    results: Mapping[tuple[str, str], str]
    park_ms: int
    longest_special_ms: int


class Finding(Struct, frozen=True):
    """An irregularity (code of ``govbus.finding``) about the event ``subject``; true from ``since`` on
    (None: at once).
    """

    code: str
    subject: str
    since: int | None = None


class Course(Struct, frozen=True):
    """What the events made of the case. Times epoch ms UTC; ``pauses`` in local minutes, closed at the stop.

    ``deemed_at``: when silence made, or will make, it accepted from ``accepted_at`` on; until then it is
    SUBMITTED.
    ``hold_until``: no card before it, because the start of a special procedure is still on its way.
    ``responsible``: the department named so (跨域通办). ``acceptance``: code of ``govbus.acceptance``.
    """

    status: str
    home: CaseEvent
    accepted_at: int | None = None
    accepted_by: str = ""
    deemed_at: int | None = None
    stopped_at: int | None = None
    stopped_by: str = ""
    pauses: clock.Pauses = ()
    paused_by: tuple[str, ...] = ()
    extensions: tuple[CaseEvent, ...] = ()
    findings: tuple[Finding, ...] = ()
    parked: tuple[str, ...] = ()
    hold_until: int = 0
    responsible: str = ""
    steps: tuple[CaseEvent, ...] = ()
    granted: CaseEvent | None = None
    delivered: CaseEvent | None = None
    acceptance: str = ""

    @property
    def department(self) -> str:
        """Who answers for the case: the one named responsible (跨域通办), else who accepted it."""
        return self.responsible or self.home.department


def course(events: Sequence[CaseEvent], calendar: Calendar, counting: Counting, practice: Practice) -> Course:
    """The course that ``events`` (log order, not empty) describe, as far as they are known; independent of
    their order.
    """
    if void := voids(events):
        return Course(VOID, events[0], stopped_at=max(e.occurred_at for e in void))
    walk = _Walk(events[0], calendar, counting, practice)
    for event in in_order(_effective(events)):
        walk.take(event)
    walk.findings.extend(_missing_targets(events, practice))
    return walk.end()


def in_order(events: Iterable[CaseEvent]) -> list[CaseEvent]:
    """``events`` in the order of when they happened; those of one moment as a case goes on."""
    return sorted(events, key=_order)


def counted_from(events: Sequence[CaseEvent]) -> int:
    """The first moment from which on the calendar may matter to the case (epoch ms)."""
    return min(t for e in events for t in (e.occurred_at, e.started_at, e.corrected_at) if t is not None)


def _order(event: CaseEvent) -> tuple[int, int, str]:
    moment = event.occurred_at
    if event.special or event.type.startswith("special_"):
        moment = next((t for t in (event.started_at, event.ended_at) if t is not None), moment)
    return moment, RANK[event.type], event.event_id


def voids(events: Sequence[CaseEvent]) -> list[CaseEvent]:
    """What makes the whole case void: an annulment that names no event, unless it was itself annulled."""
    void = [e for e in events if e.type == "voided" and not e.corrects]
    gone = _annulled(events) if void else ()
    return [e for e in void if e.event_id not in gone]


def _annulled(events: Iterable[CaseEvent]) -> set[str]:
    """Ids of the events that an annulment takes back, a correction or another annulment included: what an annulment
    that is itself annulled had taken stands again, and those that annul each other in a ring annul nothing.
    """
    target = {e.event_id: e.corrects for e in events if e.type == "voided"}
    against = Counter(target.values())
    settled = [event_id for event_id in target if event_id not in against]
    gone: set[str] = set()
    for event_id in settled:  # grows: an annulment is settled after all that name it
        if event_id not in gone:
            gone.add(target[event_id])
        against[target[event_id]] -= 1
        if not against[target[event_id]] and target[event_id] in target:
            settled.append(target[event_id])
    return gone


def _effective(events: Sequence[CaseEvent]) -> Iterable[CaseEvent]:
    """The events with corrections and single annulments carried out; the latest correction of an event that was not
    annulled holds.
    """
    changes = [e for e in events if e.type in ("corrected", "voided")]
    if not changes:
        return events
    gone = _annulled(changes)
    corrections = [e for e in changes if e.type == "corrected" and e.event_id not in gone]
    moved = {e.corrects: e for e in in_order(corrections) if e.corrected_at is not None}
    return [
        _moved(e, moved.get(e.event_id))
        for e in events
        if e.event_id not in gone and e.type not in ("corrected", "voided")
    ]


def _missing_targets(events: Sequence[CaseEvent], practice: Practice) -> Iterator[Finding]:
    """Findings about corrections and annulments of what is no event of the case; it may still be on its way."""
    changes = [e for e in events if e.type in ("corrected", "voided")]
    if not changes:
        return
    there = {e.event_id for e in events}
    gone = _annulled(changes)
    for e in changes:
        if e.corrects not in there and e.event_id not in gone:
            yield Finding("missing_target", e.event_id, e.known_at + practice.park_ms)


def _moved(event: CaseEvent, correction: CaseEvent | None) -> CaseEvent:
    if correction is None or correction.corrected_at is None:
        return event
    at = correction.corrected_at
    if event.type == "special_started" and event.started_at is not None:
        return structs.replace(event, occurred_at=at, started_at=at)
    if event.type == "special_ended" and event.ended_at is not None:
        return structs.replace(event, occurred_at=at, ended_at=at)
    return structs.replace(event, occurred_at=at)


@dataclass(slots=True)
class _Walk:
    """One walk over the events of a case; lives for one call of :func:`course`."""

    home: CaseEvent
    calendar: Calendar
    counting: Counting
    practice: Practice
    status: str = NONE
    waiting: CaseEvent | None = None  # since when, and by which event, the acceptance clock runs
    requests: int = 0
    accepted_at: int | None = None
    accepted_by: str = ""
    deemed_at: int | None = None
    stopped_at: int | None = None
    stopped_by: str = ""
    specials: list[CaseEvent] = field(default_factory=list)
    running: set[int] = field(default_factory=set)  # numbers of the special procedures that do not pause
    extensions: list[CaseEvent] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    parked: list[CaseEvent] = field(default_factory=list)
    responsible: str = ""
    steps: list[CaseEvent] = field(default_factory=list)
    granted: CaseEvent | None = None
    delivered: CaseEvent | None = None
    promised: CaseEvent | None = None
    verified: list[CaseEvent] = field(default_factory=list)

    def take(self, event: CaseEvent) -> None:
        """Let one event act in the present status."""
        if self.waiting is not None:
            self._deem_before(event)
        self.responsible = event.responsible or self.responsible
        ACTIONS[self.status, event.type](self, event)

    def end(self) -> Course:
        """The course after the last event."""
        if self.status == SUBMITTED:
            self._deem_if_silent()
        intervals, pauses, hold = self._pauses()
        status = self.status
        if status in RUNNING and intervals:  # DOMAIN 3.5: after the last special_ended the case is in process
            status = SUSPENDED if any(i.end is None for i in intervals) else IN_PROCESS
        self.findings.extend(self._missing(e) for e in self.parked)
        self._promise()
        return Course(
            status,
            self.home,
            self.accepted_at,
            self.accepted_by,
            self.deemed_at,
            self.stopped_at,
            self.stopped_by,
            pauses,
            tuple(e.event_id for e in self.specials),
            tuple(self.extensions),
            tuple(self.findings),
            tuple(e.event_id for e in self.parked),
            hold,
            self.responsible,
            tuple(self.steps),
            self.granted,
            self.delivered,
            "" if self.promised is None else self.promised.acceptance,
        )

    # acceptance

    def request(self, event: CaseEvent) -> None:
        if self.requests:
            self.find("second_correction", event)
        self.status, self.waiting, self.requests = WAIT, None, self.requests + 1
        self._unpark()

    def receive(self, event: CaseEvent) -> None:
        self.status, self.waiting = SUBMITTED, event

    def accept(self, event: CaseEvent) -> None:
        if self.status == WAIT:
            self.find("illegal_transition", event)
        self.status, self.waiting, self.home = ACCEPTED, None, event
        self.accepted_at, self.accepted_by = event.occurred_at, event.event_id
        self.promised = event if event.acceptance else None
        self._unpark()

    def accept_again(self, event: CaseEvent) -> None:
        if self.deemed_at is None:
            self.find("illegal_transition", event)
        else:  # who answers now answers for the case
            self.home = event
            self.promised = event if event.acceptance else self.promised
        self._unpark()

    def refuse(self, event: CaseEvent) -> None:
        if not event.reasoned:
            self.find("refusal_without_reason", event)
        self._stop(event, NOT_ACCEPTED)

    def _deadline(self) -> int | None:
        """Last minute for an answer to the applicant (行政许可法 32).

        None while the calendar is provisional, and where a decision is known and only its acceptance is
        missing.
        """
        if self.waiting is None or any(e.type == "decided" for e in self.parked):
            return None
        start = minute_of(self.waiting.occurred_at)
        line = clock.deadline(self.calendar, start, self.counting.acceptance, self.counting)
        return None if line.provisional else line.due

    def _deem_before(self, event: CaseEvent) -> None:
        due = self._deadline()
        if due is not None and minute_of(_order(event)[0]) > due:
            self._deem(due)

    def _deem_if_silent(self) -> None:
        """Nothing more is known: silence is acceptance; ``deemed_at`` may lie ahead of the horizon."""
        due = self._deadline()
        if due is not None:
            self._deem(due)

    def _deem(self, due: int) -> None:
        """Accepted from the receipt on; what waited for the acceptance has its turn."""
        assert self.waiting is not None
        self.home, self.accepted_at, self.accepted_by = (
            self.waiting,
            self.waiting.occurred_at,
            self.waiting.event_id,
        )
        self.deemed_at, self.status = epoch_ms(due + 1), ACCEPTED
        self.findings.append(Finding("deemed_accepted", self.waiting.event_id, self.deemed_at))
        missing = [self._missing(e) for e in self.parked]
        self.findings.extend(f for f in missing if (f.since or 0) < self.deemed_at)
        self.waiting = None
        self._unpark()

    def _missing(self, event: CaseEvent) -> Finding:
        return Finding("missing_predecessor", event.event_id, event.known_at + self.practice.park_ms)

    # handling

    def progress(self, event: CaseEvent) -> None:
        self.status = IN_PROCESS
        self.steps.append(event)

    def special(self, event: CaseEvent) -> None:
        begins = event.type == "special_started" or event.started_at is not None
        if self.stopped_at is not None and _start(event) >= self.stopped_at and begins:
            self.find("event_after_terminal", event)
        elif event.special in self.practice.running_specials:
            self.running.add(event.event_no)
        elif event.special or event.type == "special_started" or event.event_no not in self.running:
            self.specials.append(event)

    def extend(self, event: CaseEvent) -> None:
        if event.extension is None:
            self.find("extension_without_amount", event)
        else:
            self.extensions.append(event)

    # ends

    def decide(self, event: CaseEvent) -> None:
        status = self.practice.results.get((event.result_set, event.result), GRANTED)
        if status == NOT_ACCEPTED:  # of a case that was: its request is refused
            status = DENIED
        if status in (DENIED, RETURNED) and not event.reasoned:
            self.find("refusal_without_reason", event)
        self.granted = event if status == GRANTED else None
        self._stop(event, status)

    def decide_early(self, event: CaseEvent) -> None:
        """Before the acceptance only a result that needs none ends the case; any other waits for it."""
        status = self.practice.results.get((event.result_set, event.result), GRANTED)
        if status not in UNACCEPTED:
            self.park(event)
            return
        if status in (RETURNED, NOT_ACCEPTED) and not event.reasoned:
            self.find("refusal_without_reason", event)
        self._stop(event, status)

    def withdraw(self, event: CaseEvent) -> None:
        self._stop(event, WITHDRAWN)

    def give_back(self, event: CaseEvent) -> None:
        self._stop(event, RETURNED)

    def transfer(self, event: CaseEvent) -> None:
        self._stop(event, TRANSFERRED)

    def certify(self, _: CaseEvent) -> None:
        self.status = CERTIFIED
        self._unpark()

    def deliver(self, event: CaseEvent) -> None:
        self.status, self.delivered = DELIVERED, event

    # accepted on a promise (告知承诺, 容缺)

    def verify(self, event: CaseEvent) -> None:
        self.verified.append(event)
        if event.verification == "BROKEN":
            self.find("promise_broken", event)

    def _promise(self) -> None:
        """A promise that is not verified in its time is a finding, unless the case came to nothing."""
        promised = self.promised
        if promised is None or promised.verify_by is None or self.status in VAIN:
            return
        if not any(e.occurred_at <= promised.verify_by for e in self.verified):
            self.findings.append(Finding("promise_unverified", promised.event_id, promised.verify_by + 1))

    def _stop(self, event: CaseEvent, status: str) -> None:
        self.status, self.waiting = status, None
        self.stopped_at, self.stopped_by = max(event.occurred_at, self.accepted_at or 0), event.event_id
        self._unpark()

    # what does not fit

    def note(self, _: CaseEvent) -> None:
        """Nothing to do: the event is history without effect."""

    def park(self, event: CaseEvent) -> None:
        self.parked.append(event)

    def illegal(self, event: CaseEvent) -> None:
        self.find("illegal_transition", event)

    def late(self, event: CaseEvent) -> None:
        self.find("event_after_terminal", event)

    def accepted_late(self, event: CaseEvent) -> None:
        self.find("accepted_after_terminal", event)

    def correct_late(self, event: CaseEvent) -> None:
        self.find("correction_after_acceptance", event)

    def certify_denied(self, event: CaseEvent) -> None:
        self.find("certificate_for_denied", event)

    def find(self, code: str, event: CaseEvent) -> None:
        self.findings.append(Finding(code, event.event_id))

    def _unpark(self) -> None:
        waiting, self.parked = self.parked, []
        for event in waiting:
            ACTIONS[self.status, event.type](self, event)

    # pauses

    def _pauses(self) -> tuple[list[Interval], clock.Pauses, int]:
        """The special procedures, their union in minutes, and the hold for ends without start."""
        if not self.specials:
            return [], (), 0
        intervals, orphans = _pair(self.specials)
        late = [Finding("ended_without_start", e.event_id, e.known_at + self.practice.park_ms) for e in orphans]
        self.findings.extend(late)
        stop = self.stopped_at
        self._suspended(intervals, stop)
        minutes = ((minute_of(i.start), None if i.end is None else minute_of(i.end)) for i in intervals)
        pauses = clock.union(minutes, None if stop is None else minute_of(stop))
        return intervals, pauses, max((f.since or 0 for f in late), default=0)

    def _suspended(self, intervals: Sequence[Interval], stop: int | None) -> None:
        """Findings about special procedures that outlast the decision, or all patience."""
        over = [i for i in intervals if stop is not None and i.start < stop and (i.end is None or i.end > stop)]
        if over and self.status in DECIDED:
            self.findings.append(Finding("decided_while_suspended", self.stopped_by))
        for interval in intervals:
            longest = interval.start + self.practice.longest_special_ms
            ends = [t for t in (interval.end, stop) if t is not None]
            if not ends or min(ends) > longest:
                self.findings.append(Finding("suspension_too_long", interval.told_by, longest))


def _start(event: CaseEvent) -> int:
    return event.occurred_at if event.started_at is None else event.started_at


def _pair(specials: Sequence[CaseEvent]) -> tuple[list[Interval], list[CaseEvent]]:
    """The special procedures, and ends that found no start. An end takes the open start at the moment that it names,
    else of its number, else of its kind; a start may tell its own end. An end that names a moment at which none began
    takes none of another kind: senders number events by their type, so numbers agree by chance.
    """
    starts = [e for e in specials if e.type == "special_started"]
    ends = [e for e in specials if e.type == "special_ended"]
    whole = [e for e in ends if e.started_at is not None and e.ended_at is not None]
    intervals = [Interval(_start(e), e.ended_at, e.event_id) for e in whole]
    orphans = []
    for end in sorted(ends, key=lambda e: (_end(e), e.event_id)):
        start = _match(end, starts)
        if start is not None:
            starts.remove(start)
            intervals.append(Interval(_start(start), _end(end), start.event_id))
        elif end.started_at is not None:
            intervals.append(Interval(end.started_at, _end(end), end.event_id))
        else:
            orphans.append(end)
    return intervals + [Interval(_start(e), e.ended_at, e.event_id) for e in starts], orphans


def _end(event: CaseEvent) -> int:
    return event.occurred_at if event.ended_at is None else event.ended_at


def _match(end: CaseEvent, starts: Sequence[CaseEvent]) -> CaseEvent | None:
    named = end.started_at is not None

    def meant(start: CaseEvent) -> bool:
        return named and _start(start) == end.started_at

    def numbered(start: CaseEvent) -> bool:
        of_a_kind = start.special == end.special or not (start.special and end.special)
        return start.event_no == end.event_no and (of_a_kind or not named)

    fitting = [
        s
        for s in starts
        if _start(s) <= _end(end)
        and (meant(s) or numbered(s) or not (named or s.ended_at is not None))
    ]
    return min(
        fitting,
        key=lambda s: (not meant(s), s.event_no != end.event_no, s.special != end.special, _start(s), s.event_id),
        default=None,
    )


Action = Callable[[_Walk, CaseEvent], None]


def _actions() -> dict[tuple[str, str], Action]:
    """Status × event → what happens: the table of DOMAIN 3.5 with everything it leaves out."""
    table: dict[tuple[str, str], Action] = {}

    def on(statuses: Iterable[str], **actions: Action) -> None:
        table.update({(status, name): action for status in statuses for name, action in actions.items()})

    on(OPEN, **dict.fromkeys(RANK, _Walk.illegal))
    on(ENDED, **dict.fromkeys(RANK, _Walk.late))
    on(
        (NONE, SUBMITTED, WAIT),
        prechecked=_Walk.note,
        correction_requested=_Walk.request,
        accepted=_Walk.accept,
        not_accepted=_Walk.refuse,
        correction_received=_Walk.park,
    )
    waiting = (
        "step_completed",
        "special_started",
        "special_ended",
        "extended",
        "decided",
        "certified",
        "delivered",
    )
    on((NONE, SUBMITTED, WAIT), **dict.fromkeys(waiting, _Walk.park))
    on((NONE,), submitted=_Walk.receive)
    on((SUBMITTED, WAIT), decided=_Walk.decide_early)
    on((WAIT,), correction_received=_Walk.receive)
    on(
        RUNNING,
        correction_requested=_Walk.correct_late,
        accepted=_Walk.accept_again,
        step_completed=_Walk.progress,
        special_started=_Walk.special,
        special_ended=_Walk.special,
        extended=_Walk.extend,
        decided=_Walk.decide,
        certified=_Walk.park,
        delivered=_Walk.park,
    )
    on(OPEN, withdrawn=_Walk.withdraw, returned=_Walk.give_back, transferred=_Walk.transfer)
    on((*OPEN, *ENDED), verified=_Walk.verify)
    on(ENDED, accepted=_Walk.accepted_late, special_started=_Walk.special, special_ended=_Walk.special)
    on((GRANTED,), certified=_Walk.certify, delivered=_Walk.deliver)
    on((CERTIFIED,), delivered=_Walk.deliver)
    on((DENIED,), certified=_Walk.certify_denied, delivered=_Walk.note)
    return table


ACTIONS: Mapping[tuple[str, str], Action] = _actions()
