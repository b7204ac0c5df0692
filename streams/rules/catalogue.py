"""The shared directory: what a resource's entry says. A pure function of the set of its events (DOMAIN
§7).

A resource belongs to the department that first described it; what others but the data authority describe, update or
withdraw is kept and changes nothing (docs/decisions/0018).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from schemas import codesets
from streams.rules.data import data

Record = Mapping[str, Any]
DESCRIBES = frozenset({"resource.registered", "resource.updated"})
UPDATES = DESCRIBES | {"resource.heartbeat"}
OWNED = UPDATES | {"resource.withdrawn"}
"""What only the owner of a resource says of it; anybody may ask for it or object."""
TEXTS = (
    "title", "provider_code", "summary", "format", "share_type_code", "share_condition", "share_method_code",
    "update_cycle_code",
)  # fmt: skip


def fold(events: Iterable[Record]) -> dict[str, Any] | None:
    """The record of ``directory.entry.v1`` (without id) that all events of one resource give, in any order.

    ``entry_version`` is the number of events, also of those without effect; None as long as nobody registered the
    resource. Times are epoch ms; ``received_at`` is the knowledge time, the latest of the events.
    """
    told = sorted(events, key=_order)
    owner = next((_owner(e) for e in told if e["event_type"] in DESCRIBES), None)
    if owner is None:
        return None
    own = [e for e in told if e["event_type"] in OWNED and e["department"] in (owner, authority())]
    described = [e for e in own if e["event_type"] in DESCRIBES]
    updated_at = max(e["occurred_at"] for e in own if e["event_type"] in UPDATES)
    texts = {name: _latest(described, name, "") for name in TEXTS} | {"share_condition": _condition(described)}
    expected, broken = due(texts["update_cycle_code"], updated_at)
    return {
        "event_type": "entry.revised",
        "region": next((e["region"] for e in reversed(described) if e["department"] == owner), described[-1]["region"]),
        "department": owner,
        "occurred_at": told[-1]["occurred_at"],
        "occurred_text": "",
        "entered_at": None,
        "received_at": max(e["received_at"] for e in told),
        "resource_code": described[-1]["resource_code"],
        "entry_version": len(told),
        **texts,
        "items": _latest(described, "items", []),
        "record_count": _latest(own, "record_count", None),
        "last_update_at": updated_at,
        "expected_next_at": expected,
        "broken_at": broken,
        "disputed": _disputed(told),
        "withdrawn": _withdrawn(own),
    }


def _owner(first: Record) -> str:
    """Whose resource it is that ``first`` describes: what the data authority registers is the named provider's."""
    department = str(first["department"])
    return codesets.bodies().get(first["provider_code"], department) if department == authority() else department


def authority() -> str:
    """The data authority (数据共享主管部门), whose word about any resource or licence counts (DOMAIN §1.3)."""
    return str(data("catalogue")["authority"]["department"])


def due(cycle: str, updated_at: int) -> tuple[int | None, int | None]:
    """When the next update is expected and when the resource counts as broken, epoch ms; None without a
    cycle.
    """
    rule = data("catalogue")
    length = rule["cycle_ms"].get(cycle)
    if length is None:
        return None, None
    grace = 0 if cycle in rule["grace"]["without"] else max(
        int(length * rule["grace"]["share"]), rule["grace"]["least_ms"]
    )  # fmt: skip
    return updated_at + length + grace, updated_at + rule["broken"]["cycles"] * length + grace


def _order(event: Record) -> tuple[int, str]:
    return event["occurred_at"], event["event_id"]


def _latest(events: Sequence[Record], field: str, otherwise: Any) -> Any:
    return next((e[field] for e in reversed(events) if e[field] not in ("", None, [])), otherwise)


def _condition(described: Sequence[Record]) -> str:
    """The condition or legal basis of the share type that stands: one told for another type is void (DOMAIN §7.3)."""
    kind = condition = ""
    for event in described:
        if event["share_type_code"] not in ("", kind):
            kind, condition = event["share_type_code"], ""
        condition = event["share_condition"] or condition
    return condition


def _disputed(events: Sequence[Record]) -> bool:
    """Whether an objection is open (DOMAIN §7.4). Departments number by themselves: an objection is its number and
    who raised it; a closing that names none of these closes all of its number.
    """
    opened: set[tuple[str, str]] = set()
    for event in events:
        number, objector = event["request_no"], event["requester"] or event["department"]
        if event["event_type"] == "resource.objection_raised":
            opened.add((number, objector))
        elif event["event_type"] == "resource.objection_closed":
            closed = {(number, objector)} & opened
            opened -= closed or {o for o in opened if o[0] == number}
    return bool(opened)


def _withdrawn(events: Sequence[Record]) -> bool:
    words = [e["event_type"] for e in events if e["event_type"] in ("resource.registered", "resource.withdrawn")]
    return bool(words) and words[-1] == "resource.withdrawn"
