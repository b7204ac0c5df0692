"""The licence index: where each version of a licence family stands. A pure function of the set of its events.

A lower version or an older effective time never overwrites a terminal status, a terminal status wins over
late backfill, increment wins over stock in what both say, and stock that contradicts increment in holder or
validity makes the version disputed (DOMAIN §6.4, §6.5). EXPIRED by date is derived when a licence is read, not here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from schemas import codesets
from streams.rules.calendar import DAY_MINUTES, day_of, epoch_ms
from streams.rules.data import data

Record = Mapping[str, Any]
STOCK, INCREMENT = "STOCK", "INCREMENT"
BACKFILLED, CHANGED = "licence.backfilled", "licence.changed"


@dataclass(frozen=True, slots=True)
class Standing:
    """One version of a family as the index holds it. Dates are ISO texts (None: open, 长期);
    ``effective_at`` epoch ms.
    """

    family: str
    licence_version: int
    region: str
    department: str
    licence_id: str
    type_code: str
    type_name: str
    licence_no: str
    holder_id: str
    holder_name: str
    status: str
    valid_from_on: str | None
    valid_to_on: str | None
    origin: str
    disputed: bool
    effective_at: int


@dataclass(frozen=True, slots=True)
class _End:
    rank: int
    effective_at: int
    version: int
    status: str
    stock: bool


def fold(events: Iterable[Record]) -> tuple[Standing, ...]:
    """The versions of one family, lowest first, from all its events in any order."""
    told = sorted(events, key=_order)
    versions: dict[int, list[Record]] = {}
    for event in told:
        versions.setdefault(event["licence_version"], []).append(event)
    weighed = {v: _weighed(of) for v, of in sorted(versions.items())}
    ends = [end for of in versions.values() for end in _ends(_ending(of))]
    newest = max(versions, default=0)
    return tuple(_standing(versions[v], of, _end_of(v, versions[v], ends), v < newest) for v, of in weighed.items())


def _order(event: Record) -> tuple[int, str]:
    return event["occurred_at"], event["event_id"]


def _stock(event: Record) -> bool:
    """Whether it is of the stock. What is backfilled is, and what happens to a licence is not, whatever origin the
    sender gives it: who suspends or revokes a licence of the stock has not backfilled it.
    """
    return event["event_type"] == BACKFILLED or (event["origin_code"] == STOCK and not _happens(event))


def _happens(event: Record) -> bool:
    """Whether it tells what became of a licence, not what the licence is."""
    rule = data("index")
    return event["event_type"] in {**rule["told"], **rule["ends"]}


def _weighed(events: Sequence[Record]) -> Sequence[Record]:
    """The events that say where the version stands: increments where there are any, else stock (DOMAIN §6.5)."""
    return [e for e in events if not _stock(e)] or events


def _ending(events: Sequence[Record]) -> Sequence[Record]:
    """The events that may say how the version ended: the stock too, unless there is an increment; what became of a
    licence of the stock on the way takes away no end that the stock tells (DOMAIN §6.4, §6.5).
    """
    increments = any(not (_stock(e) or _happens(e)) for e in events)
    return [e for e in events if not _stock(e)] if increments else events


def _ends(events: Sequence[Record]) -> list[_End]:
    ranks = data("index")["terminal"]
    statuses = [(e, told(e)) for e in events]
    return [_End(ranks[s], e["occurred_at"], e["licence_version"], s, _stock(e)) for e, s in statuses if s in ranks]


def _end_of(version: int, events: Sequence[Record], ends: Sequence[_End]) -> _End | None:
    """The end that holds for a version: of it or of a later one, or one that takes away what it stems from after it
    began (DOMAIN §6.4). A version that nobody dates outlives no end that an increment told.
    """
    forward, (began, known) = data("index")["forward"]["standings"], _began(events)
    reached = [
        e
        for e in ends
        if version <= e.version or (e.status in forward and (began <= e.effective_at or not (known or e.stock)))
    ]
    return max(reached, key=lambda e: (e.version == version, e.rank, e.effective_at), default=None)


def _began(events: Sequence[Record]) -> tuple[int, bool]:
    """When a version began (epoch ms), and whether that is known: with its grant; where it is only backfilled, with the
    earliest day that the stock names, for the batch comes long after the grant (DOMAIN §6.5).
    """
    grants = [e for e in events if e["event_type"] in data("index")["grants"]["types"]]
    told = [e for e in grants if not _stock(e)]
    if told:
        return told[0]["occurred_at"], True
    days = [_midnight(e[name]) for e in grants for name in ("issued_on", "valid_from_on") if e[name]]
    return min([events[0]["occurred_at"], *days]), bool(days) or not grants


def _midnight(day: str) -> int:
    """Epoch ms of the beginning of an ISO day in Asia/Shanghai."""
    return epoch_ms(day_of(date.fromisoformat(day)) * DAY_MINUTES)


def told(event: Record) -> str:
    """The standing (govbus.licence-standing) that an event gives its version."""
    kind = event["event_type"]
    rule = data("index")
    if kind in rule["told"]:
        return str(rule["told"][kind])
    status = codesets.canonical(event["status_set"], event["status_code"]) or "OTHER"
    if kind in rule["ends"] and status not in rule["terminal"]:
        return str(rule["ends"][kind])
    return status


def _stands(events: Sequence[Record]) -> str:
    """Where events in order leave a version that has not ended: a change lifts no suspension (DOMAIN §6.4)."""
    last, status = events[-1], told(events[-1])
    happened = [e for e in events if e["event_type"] in data("index")["told"]]
    return told(happened[-1]) if happened and last["event_type"] == CHANGED and status == "VALID" else status


def _standing(every: Sequence[Record], events: Sequence[Record], end: _End | None, superseded: bool) -> Standing:
    last = events[-1]
    whole = _stock_first(every)
    validity = _validity(whole)
    return Standing(
        family=last["family"],
        licence_version=last["licence_version"],
        region=last["region"],
        department=last["department"],
        licence_id=_latest(whole, "licence_id"),
        type_code=last["type_code"],
        type_name=_latest(whole, "type_name"),
        licence_no=last["licence_no"],
        holder_id=_latest(whole, "holder_id"),
        holder_name=_latest(whole, "holder_name"),
        status=end.status if end else "SUPERSEDED" if superseded else _stands(events),
        valid_from_on=validity[0],
        valid_to_on=validity[1],
        origin=_latest(whole, "origin_code"),
        disputed=_disputed(every),
        effective_at=end.effective_at if end else last["occurred_at"],
    )


def _stock_first(events: Sequence[Record]) -> list[Record]:
    """Increments last: they win where they say something, and stock stands where they do not (DOMAIN §6.5)."""
    return sorted(events, key=lambda e: e["origin_code"] == INCREMENT)


def _latest(events: Sequence[Record], field: str) -> str:
    """The last non-empty text of a field: an event that only changes the status need not repeat the rest."""
    return next((str(e[field]) for e in reversed(events) if e[field]), "")


def _validity(whole: Sequence[Record]) -> tuple[str | None, str | None]:
    """What the last grant states; where only stock granted, an increment that names a day knows it better."""
    said = ([e for e in whole if e["event_type"] in data("index")["grants"]["types"]] or whole)[-1:]
    if said[0]["origin_code"] != INCREMENT:
        said = [*said, *(e for e in whole if e["origin_code"] == INCREMENT)]
    return _latest(said, "valid_from_on") or None, _latest(said, "valid_to_on") or None


def _disputed(events: Sequence[Record]) -> bool:
    """Whether stock and increment contradict each other; what one of them leaves empty is no
    contradiction.
    """
    fields = ("holder_id", "valid_from_on", "valid_to_on")
    return any(_said(events, STOCK, f) and _said(events, INCREMENT, f) - _said(events, STOCK, f) for f in fields)


def _said(events: Sequence[Record], origin: str, field: str) -> set[str]:
    return {str(e[field]).upper() for e in events if e["origin_code"] == origin and e[field]}
