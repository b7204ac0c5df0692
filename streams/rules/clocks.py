"""The clocks of one case under one state of knowledge, and the cards they call for: handling and statutory
(行政许可法 42), steps, and the handing over of the licence (44). Which minute is counted is ``clock``'s business, when
a card is issued and taken back that of ``cards``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec import Struct, structs

from streams.rules import cards, clock
from streams.rules.calendar import DAY_MINUTES, Calendar, epoch_ms, minute_of
from streams.rules.cards import CARD, DELIVERY, HANDLING, STATUTORY, STEP, CardRule, Ground
from streams.rules.clock import Deadline, Pauses, Warning
from streams.rules.lifecycle import CaseEvent, Course, Finding
from streams.rules.limits import (
    UNITS,
    ItemVersion,
    Limit,
    Step,
    capped,
    comparable,
    counting,
    delivery,
    judging,
    longest_extension,
    shorter,
)

ACCEPTANCE = "acceptance"


class Line(Struct, frozen=True):
    """One clock, laid on the calendar. ``stopped_at`` (epoch ms) and ``stopped_by`` (event id): what ended it;
    ``evidence``: ids of the events it rests on; no card before ``not_before`` (epoch ms).
    """

    clock: str
    deadline: Deadline
    limit: Limit
    evidence: tuple[str, ...]
    pauses: Pauses = ()
    stopped_at: int | None = None
    stopped_by: str = ""
    subject: str = ""
    not_before: int = 0

    @property
    def on_time(self) -> bool | None:
        """Whether it ended by the due minute (DOMAIN 3.6 rule 4); None while it runs."""
        if self.stopped_at is None:
            return None
        return self.deadline.due is None or minute_of(self.stopped_at) <= self.deadline.due


def lines(
    seen: Course, item_code: str, calendar: Calendar, items: Mapping[str, tuple[ItemVersion, ...]]
) -> tuple[Course, tuple[Line, ...]]:
    """The clocks of an accepted case, the handling clock first, and what is wrong with its extensions."""
    if seen.accepted_at is None:
        return seen, ()
    accepted = minute_of(seen.accepted_at)
    item = judging(items, item_code, accepted // DAY_MINUTES)
    if item is None:
        return seen, ()
    seen, handling, extension = _handling(seen, item, calendar, accepted)
    more = [*_statutory(handling, item, calendar, extension)]
    if item.steps:
        more += _steps(seen, item.steps, calendar)
    more += _delivery(seen, item, calendar)
    return seen, (handling, *more)


def answer(seen: Course, calendar: Calendar) -> Line:
    """The clock that runs until silence makes a case accepted: that of the answer to the applicant (行政许可法 32)."""
    limit = counting().acceptance
    line = clock.deadline(calendar, minute_of(seen.accepted_at or 0), limit, counting())
    return Line(ACCEPTANCE, line, limit, (seen.accepted_by,))


def promise(item: ItemVersion, calendar: Calendar, accepted: int, pauses: Pauses = ()) -> Deadline:
    """The handling clock without an extension; ``accepted``: a local minute."""
    return _promised(item, calendar, accepted, pauses)[1]


def _promised(
    item: ItemVersion, calendar: Calendar, accepted: int, pauses: Pauses, by: CaseEvent | None = None
) -> tuple[Limit, Deadline, bool]:
    """The promise or the policy's limit, whichever is due first, and its clock; with the extension ``by``, if any, and
    whether that was cut.
    """
    day = accepted // DAY_MINUTES
    warning = cards.warning(HANDLING, day)
    laid = []
    for limit in capped(item.promise, item.rule, day):
        if by is None:
            line, cut = clock.deadline(calendar, accepted, limit, counting(), pauses, 0.0, warning), False
        else:
            line, cut = _extended(calendar, accepted, limit, by, item, pauses, warning)
        laid.append((limit, line, cut))
    return min(laid, key=lambda one: _due(one[1]))


def _handling(
    seen: Course, item: ItemVersion, calendar: Calendar, accepted: int
) -> tuple[Course, Line, CaseEvent | None]:
    limit, handling, _ = _promised(item, calendar, accepted, seen.pauses)
    extension: CaseEvent | None = None
    if seen.extensions:
        seen, extension = _extension(seen, handling)
    if extension is not None:
        limit, handling, cut = _promised(item, calendar, accepted, seen.pauses, extension)
        if cut:
            too_long = Finding("extension_too_long", extension.event_id)
            seen = structs.replace(seen, findings=(*seen.findings, too_long))
    told_by = (seen.accepted_by, *sorted(seen.paused_by), "" if extension is None else extension.event_id)
    evidence = tuple(e for e in told_by if e)
    stop = seen.stopped_by if seen.stopped_at is not None else ""
    line = Line(
        HANDLING, handling, limit, evidence, seen.pauses, seen.stopped_at, stop, "", seen.deemed_at or 0
    )
    return seen, line, extension


def _extended(
    calendar: Calendar, accepted: int, limit: Limit, by: CaseEvent, item: ItemVersion, pauses: Pauses,
    warning: Warning = clock.USUAL,
) -> tuple[Deadline, bool]:  # fmt: skip
    """``limit`` with an extension, and whether that was longer than it may be and is cut to it (行政许可法 42)."""
    asked = Limit(by.extension or 0.0, by.extension_unit if by.extension_unit in UNITS else limit.unit)
    most = longest_extension(item)
    found = (asked,) if most is None else shorter(asked, most)
    laid = [(_prolonged(calendar, accepted, limit, more, pauses, warning), more is not asked) for more in found]
    return min(laid, key=lambda one: _due(one[0]))


def _due(line: Deadline) -> float:
    return math.inf if line.due is None else line.due


def _prolonged(
    calendar: Calendar, accepted: int, limit: Limit, more: Limit, pauses: Pauses, warning: Warning
) -> Deadline:
    """``limit`` and ``more``, which has a unit of its own (DOMAIN 2.5)."""
    (unit, one), (other, amount) = comparable(Limit(1.0, limit.unit)), comparable(more)
    if unit == other:
        return clock.deadline(calendar, accepted, limit, counting(), pauses, amount / one, warning)
    line = clock.deadline(calendar, accepted, limit, counting(), pauses, 0.0, warning)
    return clock.prolonged(calendar, line, more, counting(), pauses, warning)


def _extension(seen: Course, promise: Deadline) -> tuple[Course, CaseEvent | None]:
    """The extension that counts: the first, told before the limit passed (行政许可法 42); findings about
    the others. While a year's calendar is not published, none is said to come too late.
    """
    findings, counted = list(seen.findings), 0
    passed = math.inf if promise.due is None or promise.provisional else promise.due
    valid: CaseEvent | None = None
    for event in seen.extensions:
        if counted >= counting().most_extensions:
            findings.append(Finding("second_extension", event.event_id))
        elif minute_of(event.occurred_at) > passed:
            findings.append(Finding("extension_after_due", event.event_id))
        else:
            valid, counted = event, counted + 1
    return structs.replace(seen, findings=tuple(findings)), valid


def legal(item: ItemVersion, calendar: Calendar, accepted: int, pauses: Pauses = ()) -> Deadline | None:
    """The statutory clock without an extension; None where no law sets a limit."""
    return None if item.statutory is None else clock.deadline(calendar, accepted, item.statutory, counting(), pauses)


def _statutory(handling: Line, item: ItemVersion, calendar: Calendar, extension: CaseEvent | None) -> Iterator[Line]:
    accepted, pauses = handling.deadline.accepted, handling.pauses
    line = legal(item, calendar, accepted, pauses)
    if line is None or item.statutory is None:
        return
    if extension is not None:
        line, _ = _extended(calendar, accepted, item.statutory, extension, item, pauses)
    yield structs.replace(handling, clock=STATUTORY, deadline=line, limit=item.statutory)


def _steps(seen: Course, steps: Sequence[Step], calendar: Calendar) -> Iterator[Line]:
    """A step begins where the one before it ended, the first with the acceptance; it ends when it, or a later
    one, is told completed, or with the case.
    """
    names = [step.name for step in steps]
    told = sorted((e for e in seen.steps if e.step in names), key=lambda e: (e.occurred_at, e.event_id))
    begin, begun_by = seen.accepted_at or 0, seen.accepted_by
    for number, step in enumerate(steps):
        end = next((e for e in told if names.index(e.step) >= number), None)
        at, by = (seen.stopped_at, seen.stopped_by) if end is None else (end.occurred_at, end.event_id)
        opened = minute_of(begin)
        warning = cards.warning(STEP, opened // DAY_MINUTES)
        line = clock.deadline(calendar, opened, step.limit, counting(), seen.pauses, 0.0, warning)
        evidence = (begun_by, *sorted(seen.paused_by))
        yield Line(STEP, line, step.limit, evidence, seen.pauses, at, by if at is not None else "", step.name,
                   seen.deemed_at or 0)  # fmt: skip
        if end is None:
            return
        begin, begun_by = max(begin, end.occurred_at), end.event_id


def hands_over(item: ItemVersion, grant: CaseEvent) -> bool:
    """Whether a licence on paper follows the grant; a decision that does not say its result may be a denial."""
    rule, told = delivery(), (grant.result_set, grant.result)
    return item.kind in rule.kinds and all(told) and told not in rule.without_paper


def handing_over(calendar: Calendar, grant: CaseEvent) -> Deadline:
    """The delivery clock: from the grant to the handing over (行政许可法 44)."""
    granted = minute_of(grant.occurred_at)
    warning = cards.warning(DELIVERY, granted // DAY_MINUTES)
    return clock.deadline(calendar, granted, delivery().limit, counting(), (), 0.0, warning)


def _delivery(seen: Course, item: ItemVersion, calendar: Calendar) -> Iterator[Line]:
    grant, done = seen.granted, seen.delivered
    if grant is None or not hands_over(item, grant):
        return
    at, by = (None, "") if done is None else (done.occurred_at, done.event_id)
    yield Line(DELIVERY, handing_over(calendar, grant), delivery().limit, (grant.event_id,), (), at, by)


def ms(minute: int | None) -> int | None:
    """Epoch ms of a local minute."""
    return None if minute is None else epoch_ms(minute)


def in_ms(pauses: Pauses) -> tuple[tuple[int, int | None], ...]:
    """Pauses in epoch ms."""
    return tuple((epoch_ms(start), ms(end)) for start, end in pauses)


# --- the cards a clock calls for --------------------------------------------------------------------------------------


def grounds(line: Line) -> Iterator[Ground]:
    """The grounds for cards that ``line`` gives, one for each rule of its clock that holds or will hold."""
    for rule in cards.rules(line.clock, line.deadline.accepted // DAY_MINUTES):
        since = called_from(rule, line.deadline, line.stopped_at, line.pauses, line.not_before)
        if since is not None:
            late = () if rule.at_warning or line.stopped_at is None else (line.stopped_by,)
            yield _ground(line, rule, since, (*line.evidence, *late))


def called_from(
    rule: CardRule, deadline: Deadline, stopped_at: int | None, pauses: Pauses = (), not_before: int = 0
) -> int | None:
    """From when on (epoch ms) a clock calls for the card of ``rule``; None: never.

    A warning from the warning minute on, if the clock had not ended by then. Any other from the minute after the due
    one on, if it had not ended by the due minute; never provisionally. Moved out of pauses, and not before silence
    became acceptance.
    """
    if rule.at_warning:
        since = _since(deadline.yellow, pauses, not_before)
        return None if since is None or (stopped_at is not None and stopped_at <= since) else since
    due = deadline.due
    if due is None or deadline.provisional or (stopped_at is not None and minute_of(stopped_at) <= due):
        return None
    return _since(due + 1, pauses, not_before)


def _since(minute: int | None, pauses: Pauses, not_before: int) -> int | None:
    moment = None if minute is None else cards.unpaused(minute, pauses)
    return None if moment is None else max(epoch_ms(moment), not_before)


def _ground(line: Line, rule: CardRule, since: int, evidence: tuple[str, ...]) -> Ground:
    deadline = line.deadline
    return Ground(CARD, rule.colour, rule.rule_id, rule.rule_version, line.subject, since, ms(deadline.due),
                  deadline.version, deadline.provisional, evidence)  # fmt: skip


def finding_grounds(findings: Iterable[Finding]) -> Iterator[Ground]:
    """The grounds of findings: each about one event, from when on it is true."""
    version = cards.finding_version()
    for f in findings:
        yield Ground(cards.FINDING, cards.NO_COLOUR, f.code, version, f.subject, f.since or 0, None, "", False,
                     (f.subject,))  # fmt: skip
