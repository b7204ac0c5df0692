"""What must be said about the desk's alerts, after what was said before, and in which words. Pure.

What was once said and is no longer derived is retracted; what was said of a time beyond the horizon stands, for a
replay is not there yet (docs/decisions/0001).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from msgspec import structs

from schemas import codesets
from streams.rules import life
from streams.rules.cards import Alert
from streams.rules.judge import ISSUED, RETRACTED, REVOKED, Decision, local_text, worded
from streams.rules.state import Spoken


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement about an alert; ``known_at``: knowledge time it rests on, epoch ms."""

    action: str
    seq: int
    alert: Alert
    known_at: int


def content(alert: Alert) -> str:
    """What makes a statement another one."""
    return f"{alert.issued_at}/{alert.revoked_at}/{alert.revoked_reason}/{alert.due_at}"


def differences(
    spoken: Mapping[str, Spoken], alerts: Iterable[Alert], horizon: int, astray: Collection[str] = ()
) -> list[Statement]:
    """What must be said so that the last word of each alert is what is derived up to ``horizon``; ``astray``: those
    that were told to another department than answers for them.
    """
    derived = {a.alert_id: a for a in alerts}
    told = [s for a in derived.values() for s in _about(spoken.get(a.alert_id), a, horizon, a.alert_id in astray)]
    for alert_id, said in sorted(spoken.items()):
        if alert_id not in derived and said.action != RETRACTED and said.alert.issued_at <= horizon:
            told.append(Statement(RETRACTED, said.seq + 1, said.alert, said.alert.issued_at))
    return told


def _about(said: Spoken | None, alert: Alert, horizon: int, astray: bool) -> Iterable[Statement]:
    if said is not None and (said.alert.revoked_at or 0) > horizon:
        return
    if said is not None and said.action != RETRACTED and said.content == content(alert) and not astray:
        return
    seq, standing = 0 if said is None else said.seq, structs.replace(alert, revoked_at=None, revoked_reason="")
    if said is None or said.action != ISSUED or said.content != content(standing) or astray:
        seq += 1
        yield Statement(ISSUED, seq, standing, alert.issued_at)
    if alert.revoked_at is not None:
        yield Statement(REVOKED, seq + 1, alert, alert.revoked_at)


def record(statement: Statement, about: Mapping[str, Any]) -> dict[str, Any]:
    """The statement as a record of ``oversight.alert.v1`` without ``event_id``; ``about``: the alert that it is about
    (columns of ``alert_inbox``).
    """
    alert = statement.alert
    decision = Decision(
        statement.action, statement.seq, alert, about["region"], about["department"], about["item_code"],
        statement.known_at,
    )  # fmt: skip
    return worded(about["case_no"], decision, summary(alert, about))


def summary(alert: Alert, about: Mapping[str, Any]) -> str:
    """The sentence a supervisor reads; no personal data."""
    if alert.kind == life.ESCALATION:
        return _escalation(alert, about)
    values = {"case_no": about["case_no"], "what": codesets.alert_name(about["kind"], about["colour"])}
    parts = alert.subject.split("/")
    if alert.kind == life.RULING:
        return life.text("ruling").format(**values, stage=codesets.name("govbus.handling-stage", parts[1]))
    if alert.kind == life.HANDLING:
        timer = codesets.name("govbus.timer", parts[1])
        return life.text("overdue").format(**values, due=local_text(alert.due_at), timer=timer)
    act = codesets.name("govbus.event-type", f"handling.{parts[1]}")
    fault = codesets.name("govbus.handling-fault", parts[2])
    who = "".join(f"{codesets.name(codesets.DEPARTMENTS, by)}对" for _, by in alert.answering[-1:])
    return life.text("finding").format(**values, who=who, act=act, fault=fault)


def _escalation(alert: Alert, about: Mapping[str, Any]) -> str:
    scope = "CASE" if alert.rule_id == life.escalation("CASE").rule_id else "DEPARTMENT"
    rule, month = life.escalation(scope), alert.subject.rpartition("/")[2]
    return life.text(scope.lower()).format(
        case_no=about["case_no"],
        department=codesets.name(codesets.DEPARTMENTS, about["department"]),
        reds=rule.reds,
        month=month,
        to=codesets.name(codesets.DEPARTMENTS, rule.to),
    )
