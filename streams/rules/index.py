"""The licence index: where each version of a licence family stands. A pure function of the set of its events.

A lower version or an older effective time never overwrites a terminal status, a terminal status wins over
late backfill, increment wins over stock in what both say, and stock that contradicts increment in holder or
validity makes the version disputed (DOMAIN §6.4, §6.5). A batch may give an old paper a higher version number than
the licence has that came after it: the days it names tell which of them is older. EXPIRED by date is derived when a
licence is read, not here.
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
ISSUED, BACKFILLED, CHANGED = "licence.issued", "licence.backfilled", "licence.changed"


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
    old: bool
    """Of an old paper (``_old_papers``)."""


def fold(events: Iterable[Record]) -> tuple[Standing, ...]:
    """The versions of one family, lowest first, from all its events in any order."""
    told = sorted(events, key=_order)
    versions: dict[int, list[Record]] = {}
    for event in told:
        versions.setdefault(event["licence_version"], []).append(event)
    old = _old_papers(versions)
    ends = [end for v, of in versions.items() for end in _ends(_ending(of), v in old)]
    newest = max((v for v in versions if v not in old), default=0)
    other_holder = _other_holder([e for v in old for e in versions[v]], told)
    found = []
    for version, every in sorted(versions.items()):
        events, stale = _weighed(every), version in old
        end = _end_of(version, every, ends, stale)
        status = end.status if end else "SUPERSEDED" if stale or version < newest else _stands(events, told)
        disputed = _disputed(every) or (other_holder and (stale or version == newest))
        found.append(_standing(every, events, status, end, disputed))
    return tuple(found)


def _old_papers(versions: Mapping[int, Sequence[Record]]) -> frozenset[int]:
    """Versions of the stock alone that are not younger than what an increment granted, or that nobody dates: increment
    wins, whatever number the batch gave the paper (DOMAIN §6.5).
    """
    granted = [e["occurred_at"] for of in versions.values() for e in filter(_granted, of)]
    if not granted:
        return frozenset()
    stock = {v: of for v, of in versions.items() if any(map(_grants, of)) and not any(map(_granted, of))}
    began = {v: _began(of) for v, of in stock.items()}
    return frozenset(v for v, (at, known) in began.items() if not known or at <= max(granted))


def _grants(event: Record) -> bool:
    return bool(event["event_type"] in data("index")["grants"]["types"])


def _granted(event: Record) -> bool:
    """Whether it is an increment that grants."""
    return _grants(event) and not _stock(event)


def _other_holder(old: Sequence[Record], told: Sequence[Record]) -> bool:
    """Whether old papers name a holder whom no increment names."""
    increments = _said([e for e in told if not _of_stock(e)], "holder_id")
    return bool(increments and _said(old, "holder_id") - increments)


def _order(event: Record) -> tuple[int, str]:
    return event["occurred_at"], event["event_id"]


def _stock(event: Record) -> bool:
    """Whether it is of the stock. What is backfilled is, and what happens to a licence is not, whatever origin the
    sender gives it: who suspends or revokes a licence of the stock has not backfilled it.
    """
    return event["event_type"] == BACKFILLED or (event["origin_code"] == STOCK and not _happens(event))


def _of_stock(event: Record) -> bool:
    """Whether what it says of holder and validity is the stock's: also where it tells what became of the licence."""
    return bool(event["event_type"] == BACKFILLED or event["origin_code"] == STOCK)


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


def _ends(events: Sequence[Record], old: bool) -> list[_End]:
    ranks = data("index")["terminal"]
    statuses = [(e, told(e)) for e in events]
    return [
        _End(ranks[s], e["occurred_at"], e["licence_version"], s, _stock(e), old) for e, s in statuses if s in ranks
    ]


def _end_of(version: int, events: Sequence[Record], ends: Sequence[_End], old: bool) -> _End | None:
    """The end that holds for a version: of it or of a later one, or one that takes away what it stems from after it
    began (DOMAIN §6.4). A version that nobody dates outlives no end that an increment told, and one of the stock alone
    outlives none that came after it began. An old paper's end is its own.
    """
    began, known = _began(events)
    takes_away = set(data("index")["forward"]["standings"])
    late = any(map(_grants, events)) and not any(map(_granted, events))

    def reaches(end: _End) -> bool:
        if version <= end.version:
            return version == end.version or old or not end.old
        told_late = late and not end.stock
        return not end.old and (
            (end.status in takes_away or told_late) and (began <= end.effective_at or not (known or end.stock))
        )

    return max(filter(reaches, ends), key=lambda e: (e.version == version, e.rank, e.effective_at), default=None)


def _began(events: Sequence[Record]) -> tuple[int, bool]:
    """When a version began (epoch ms), and whether that is known: with its grant; where it is only backfilled, with the
    earliest day that the stock names, for the batch comes long after the grant (DOMAIN §6.5).
    """
    grants = [e for e in events if _grants(e)]
    told = [e for e in grants if _granted(e)]
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


def _suspended(last: Record, family: Sequence[Record]) -> bool:
    """Whether the licence was suspended when ``last`` was told of a version of it, and nothing had lifted that."""
    lifting = {*data("index")["told"], ISSUED}
    before = [
        e
        for e in family
        if e["event_type"] in lifting and e["licence_version"] <= last["licence_version"] and _order(e) < _order(last)
    ]
    return bool(before) and told(before[-1]) == "SUSPENDED"


def _stands(events: Sequence[Record], family: Sequence[Record]) -> str:
    """Where events in order leave a version that has not ended: a change lifts no suspension, whatever version it makes
    (DOMAIN §6.4).
    """
    last, status = events[-1], told(events[-1])
    kept = last["event_type"] == CHANGED and status == "VALID" and _suspended(last, family)
    return "SUSPENDED" if kept else status


def _standing(
    every: Sequence[Record], events: Sequence[Record], status: str, end: _End | None, disputed: bool
) -> Standing:
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
        status=status,
        valid_from_on=validity[0],
        valid_to_on=validity[1],
        origin=STOCK if _of_stock(whole[-1]) else INCREMENT,
        disputed=disputed,
        effective_at=end.effective_at if end else last["occurred_at"],
    )


def _stock_first(events: Sequence[Record]) -> list[Record]:
    """Increments last: they win where they say something, and stock stands where they do not (DOMAIN §6.5)."""
    return sorted(events, key=lambda e: not _of_stock(e))


def _latest(events: Sequence[Record], field: str) -> str:
    """The last non-empty text of a field: an event that only changes the status need not repeat the rest."""
    return next((str(e[field]) for e in reversed(events) if e[field]), "")


def _validity(whole: Sequence[Record]) -> tuple[str | None, str | None]:
    """What the last grant states; where only stock granted, an increment that names a day knows it better."""
    said = ([e for e in whole if _grants(e)] or whole)[-1:]
    if _of_stock(said[0]):
        said = [*said, *(e for e in whole if not _of_stock(e))]
    return _latest(said, "valid_from_on") or None, _latest(said, "valid_to_on") or None


def _disputed(events: Sequence[Record]) -> bool:
    """Whether stock and increment contradict each other; what one of them leaves empty is no
    contradiction.
    """
    fields = ("holder_id", "valid_from_on", "valid_to_on")
    stock, increments = [e for e in events if _of_stock(e)], [e for e in events if not _of_stock(e)]
    return any(_said(stock, f) and _said(increments, f) - _said(stock, f) for f in fields)


def _said(events: Iterable[Record], field: str) -> set[str]:
    return {str(e[field]).upper() for e in events if e[field]}
