"""Licences, resources, handling, supervision and hotline: what is published beside cases and ratings."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from govbus.district import clock, people
from govbus.district.model import HESHAN, REGIONS, Row, Span, Story, chance
from schemas import codesets
from schemas.topics import BEHAVIOUR, HANDLING, LICENCE, RESOURCE, TICKET

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
DECIDER, OTHER_DECIDER = "HS-XZSPJ", "HS-LDXZ"  # of appeals (DOMAIN §5.1), but nobody in its own matter
VALIDITY = timedelta(days=5 * 365)
MINISTRY = "11100000MBDEM90013"
BARE: Mapping[str, Any] = {
    "origin_code": "INCREMENT", "type_name": "", "holder_name": "", "holder_id_type_set": "", "holder_id_type_code": "",
    "holder_id": "", "issued_on": None, "valid_from_on": None, "valid_to_on": None,
}  # fmt: skip
"""What happens to a licence later is told as it happens and without what has been said, of the stock too (DOMAIN
§6.5).
"""
CYCLES: Mapping[str, int] = {"DAILY": 1, "WEEKLY": 7, "MONTHLY": 30, "QUARTERLY": 91, "YEARLY": 365}


@dataclass(frozen=True, slots=True)
class Licence:
    """A licence family as it ends: standing (``govbus.licence-standing``) and last day of its first version."""

    family: str
    standing: str
    valid_to: str
    rows: tuple[Row, ...]


def licence(
    rng: random.Random,
    number: int,
    department: str,
    region: str,
    issued: int,
    span: Span,
    case_no: str = "",
    item_code: str = "",
) -> Licence:
    """One licence: for a case or from the stock; then kept, suspended, revoked or changed."""
    stock = not case_no
    issuer = codesets.departments()[department].uscc
    kind = f"{MINISTRY}{number % 5 + 1:03d}"
    no = f"HS{clock.day_of(issued).year}{number:014d}"
    holder = people.firm(rng, region) if number % 2 else people.citizen(rng, region)
    base = {
        "family": f"{kind}/{issuer}/{no}",
        "licence_version": 1,
        "licence_id": people.licence_id(kind, issuer, no, 1),
        "type_code": kind,
        "type_name": "食品经营许可证",
        "issuer_code": issuer,
        "issuer_name": codesets.departments()[department].name,
        "licence_no": no,
        "status_set": "ministry.licence-status",
        "status_code": "01",
        "origin_code": "STOCK" if stock else "INCREMENT",
        "holder_name": holder.name,
        "holder_id_type_set": "gat2000.156",
        "holder_id_type_code": holder.type_code,
        "holder_id": holder.number,
        "issued_on": clock.day_of(issued).isoformat(),
        "valid_from_on": clock.day_of(issued).isoformat(),
        "valid_to_on": (clock.day_of(issued) + VALIDITY).isoformat(),
        "case_no": case_no,
        "item_code": item_code,
    }
    standing, told = _fate(rng, base, issued, max(issued, span.start), stock)
    kept = [(at, r) for at, r in told if at <= span.end]
    rows = tuple(Row(LICENCE, region, department, at, record) for at, record in kept)
    return Licence(str(base["family"]), _standing(standing, kept), str(base["valid_to_on"]), rows)


def _standing(standing: str, kept: list[tuple[int, Any]]) -> str:
    """What was not told before the time ended did not happen: the first version is still valid."""
    return standing if len(kept) > 1 else "VALID"


def _fate(
    rng: random.Random, base: dict[str, Any], issued: int, known: int, stock: bool
) -> tuple[str, list[tuple[int, dict[str, Any]]]]:
    first = {**base, "event_type": "licence.backfilled" if stock else "licence.issued", "occurred_at": issued}
    told = [(known + 60_000, first)]
    fate, later = rng.random(), known + rng.randint(5, 60) * DAY_MS
    if fate < 0.06:
        revoked = {**base, **BARE, "event_type": "licence.revoked", "status_code": "03", "occurred_at": later}
        backfill = {
            **base,
            "event_type": "licence.backfilled",
            "origin_code": "STOCK",
            "occurred_at": issued + 1_000,
        }
        told += [(later + 30_000, revoked)]
        if chance(rng, 0.5):  # narrative 40: late backfill of a revoked licence changes nothing
            told += [(later + 20 * DAY_MS, backfill)]
        return "REVOKED", told
    if fate < 0.10:
        return "SUSPENDED", [
            *told,
            (later, {**base, **BARE, "event_type": "licence.suspended", "status_code": "02", "occurred_at": later}),
        ]
    if fate < 0.14:
        return "CANCELLED", [
            *told,
            (later, {**base, **BARE, "event_type": "licence.cancelled", "status_code": "04", "occurred_at": later}),
        ]
    if fate < 0.20:
        no = str(base["licence_no"])
        second = {
            **base,
            "event_type": "licence.changed",
            "licence_version": 2,
            "occurred_at": later,
            "licence_id": people.licence_id(str(base["type_code"]), str(base["issuer_code"]), no, 2),
        }
        return "SUPERSEDED", [*told, (later, second)]
    return "VALID", told


@dataclass(frozen=True, slots=True)
class Resource:
    """A catalogued resource as it ends."""

    code: str
    last_update: int
    disputed: bool
    withdrawn: bool
    rows: tuple[Row, ...]


def resource(rng: random.Random, number: int, department: str, region: str, span: Span) -> Resource:
    """One resource: registered, updated by its cycle, some going stale, some disputed or withdrawn."""
    code, cycle = f"3{number % 90 + 10:02d}{number % 900 + 100:03d}/{number:06d}", rng.choice(list(CYCLES))
    at = span.start + rng.randint(1, 20) * DAY_MS
    state, told = (
        {"last": at, "disputed": False, "withdrawn": False},
        [(at, _registered(code, cycle, department))],
    )
    stale = at + rng.randint(60, 200) * DAY_MS if chance(rng, 0.15) else span.end
    step = max(CYCLES[cycle], 14 if number % 7 else 5) * DAY_MS
    while (at := at + step) < min(stale, span.end - DAY_MS):
        kind = "resource.heartbeat" if chance(rng, 0.2) else "resource.updated"
        told.append((at, {"event_type": kind, "resource_code": code, "record_count": rng.randint(10, 99_999)}))
        state["last"] = at
    told += _afterlife(rng, code, state, span)
    rows = tuple(Row(RESOURCE, region, department, t + 2_000, {**r, "occurred_at": t}) for t, r in told)
    return Resource(code, int(state["last"]), bool(state["disputed"]), bool(state["withdrawn"]), rows)


def _registered(code: str, cycle: str, department: str) -> dict[str, Any]:
    body = codesets.departments()[department]
    return {
        "event_type": "resource.registered",
        "resource_code": code,
        "title": f"{body.name}业务数据{code[-3:]}",
        "provider_code": body.uscc,
        "summary": "办件过程与结果信息",
        "format": "数据库表",
        "items": [{"name": "办件编号", "data_type": "C"}, {"name": "办结时间", "data_type": "T"}],
        "share_type_code": "2",
        "share_condition": "依申请审核",
        "share_method_code": "API",
        "open_code": "3",
        "update_cycle_code": cycle,
        "published_on": "2020-01-02",
    }


def _afterlife(
    rng: random.Random, code: str, state: dict[str, Any], span: Span
) -> Iterator[tuple[int, dict[str, Any]]]:
    fate, at = rng.random(), span.end - rng.randint(3, 30) * DAY_MS
    if fate < 0.10:
        state["disputed"] = True
        yield (
            at,
            {"event_type": "resource.objection_raised", "resource_code": code, "reason": "与户籍信息不一致"},
        )
        if chance(rng, 0.5):
            state["disputed"] = False
            yield (
                at + 2 * DAY_MS,
                {"event_type": "resource.objection_closed", "resource_code": code, "reason": "已更正"},
            )
    elif fate < 0.15:
        state["withdrawn"] = True
        yield at, {"event_type": "resource.withdrawn", "resource_code": code, "reason": "系统停用"}


def handling(alert_id: str, story: Story, raised: int, end: int) -> list[Row]:
    """A bad rating's loop: signed, contacted, verified, rectified, fed back, called back, closed (DOMAIN §5.7)."""
    steps = (
        ("signed", 1),
        ("contacted", 2),
        ("verified", 3),
        ("rectified", 60),
        ("fed_back", 70),
        ("called_back", 80),
        ("closed", 90),
    )
    acts = [_act(alert_id, story, name, raised + hours * HOUR_MS) for name, hours in steps]
    return [act for act in acts if act.received_at <= end]


DECISIONS = ("upheld", "revoked")


def appeal(alert_id: str, story: Story, raised: int, decision: str) -> list[Row]:
    """The department appeals what it has verified; ``decision`` of whoever decides: the rating stands, or counts no
    more (DOMAIN §5.7).
    """
    decider = OTHER_DECIDER if story.item.department == DECIDER else DECIDER
    decided = _act(alert_id, story, decision, raised + 20 * HOUR_MS)
    return [_act(alert_id, story, "appealed", raised + 5 * HOUR_MS), replace(decided, department=decider)]


def _act(alert_id: str, story: Story, name: str, at: int) -> Row:
    return Row(
        HANDLING,
        story.item.region,
        story.item.department,
        at + 4_000,
        {
            "event_type": f"handling.{name}",
            "occurred_at": at,
            "case_no": story.case_no,
            "alert_id": alert_id,
            "actor_name": "李伟",
            "verify_result_code": "VALID" if name == "verified" else "",
            "satisfied": True if name == "called_back" else None,
        },
    )


def behaviour(rng: random.Random, number: int, department: str, at: int) -> Row:
    """An inspection, reported an hour after it was made."""
    subject = people.firm(rng, HESHAN)
    return Row(
        BEHAVIOUR,
        HESHAN,
        department,
        at + 3_700_000,
        {
            "event_type": "behaviour.inspected",
            "occurred_at": at,
            "behaviour_no": f"JC2020{number:06d}",
            "supervision_item_code": "06004001000000",
            "subject_name": subject.name,
            "subject_id_type_set": "gat2000.156",
            "subject_id_type_code": subject.type_code,
            "subject_id": subject.number,
            "reported_at": at + 3_600_000,
        },
    )


def ticket(number: int, region: str, at: int) -> list[Row]:
    """A 12345 ticket: opened, dispatched, replied, finished."""
    steps = (("opened", 0), ("dispatched", 1), ("replied", 40), ("finished", 44))
    return [
        Row(
            TICKET,
            region,
            "HS-QZRXB",
            at + hours * 3_600_000 + 1_000,
            {
                "event_type": f"ticket.{name}",
                "occurred_at": at + hours * 3_600_000,
                "ticket_no": f"{region}T{number:06d}",
                "channel_set": "platform.channel",
                "channel_code": "6",
                "caller_name": "张丽",
                "caller_phone": "13800000000",
                "content": "咨询不动产登记进度",
            },
        )
        for name, hours in steps
    ]


def draw_region(rng: random.Random) -> str:
    """A region by its share of the cases."""
    return rng.choices(list(REGIONS), list(REGIONS.values()))[0]
