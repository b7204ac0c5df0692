"""How far the handling of an alert has come. A pure function of the set of its events (DOMAIN §4.2, §5.7)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Stage:
    """One alert's handling; the times are the first of their kind, epoch ms."""

    alert_id: str
    case_no: str
    region: str
    department: str
    stage: str
    signed_at: int | None
    contacted_at: int | None
    rectified_at: int | None
    called_back_at: int | None
    closed_at: int | None
    revoked_at: int | None


def fold(events: Iterable[Record]) -> Stage:
    """The stage that all events (at least one) of one alert give, in any order; the latest to occur names
    it.
    """
    told = sorted(events, key=lambda e: (e["occurred_at"], e["event_id"]))
    first, last = told[0], told[-1]
    return Stage(
        alert_id=first["alert_id"],
        case_no=first["case_no"],
        region=first["region"],
        department=first["department"],
        stage=last["event_type"].removeprefix("handling."),
        signed_at=_first(told, "signed"),
        contacted_at=_first(told, "contacted"),
        rectified_at=_first(told, "rectified"),
        called_back_at=_first(told, "called_back"),
        closed_at=_first(told, "closed"),
        revoked_at=_first(told, "revoked"),
    )


def _first(events: Sequence[Record], kind: str) -> int | None:
    return next((e["occurred_at"] for e in events if e["event_type"] == f"handling.{kind}"), None)
