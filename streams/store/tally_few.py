"""Ratings folded one by one: a few at a time, and visits that have more than one event.

Decides nothing about a rating (``streams.rules.tally`` does), and writes what ``streams.store.tally`` writes by column
for the same records: the tests of the one are the tests of the other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from schemas import codesets
from schemas.envelope import derived_id
from schemas.errors import Fault
from schemas.topics import ALERT, UPLOAD
from streams.rules import mask
from streams.rules import tally as rule
from streams.rules.claims import WITHDRAWAL
from streams.rules.tally import COUNTS, Cell, Count, Rating, Standings
from streams.store import bulk, claims, standing, steps
from streams.store.projection import Carried, Event, Refused, Said
from streams.store.tables import rating_cell_change, rating_event

FOLDED = tuple(Rating.__slots__)
STORED_SQL = f"""SELECT {", ".join(f'"{c}"' for c in FOLDED)}, digest FROM rating_event
                 WHERE case_no = ANY(%s::text[])""".encode()
NO_SCANS = b"SET LOCAL enable_seqscan = off"
"""The planner does not know how many cases are asked for, nor, in a young table, how few events each has."""
Visit = tuple[str, str, int]
Visits = Mapping[Visit, tuple[list[Rating], list[Rating]]]
"""The stored and the new events of visits that have new ones."""


@dataclass(frozen=True, slots=True)
class Few:
    """Records without the database: what is refused, and what is accepted."""

    refused: list[Refused]
    accepted: list[tuple[Event, Rating]]


def prepare(carried: Sequence[Carried]) -> Few:
    """Decode and judge."""
    events, refused = steps.decode_rows(carried)
    accepted = []
    for event in events:
        fault = rule.refusal(event.record)
        if fault is None:
            accepted.append((event, Rating.of(event.event_id, event.record)))
        else:
            refused.append(Refused(event.carried, Fault(*rule.FAULTS[fault]), event))
    return Few(refused, accepted)


def apply(tx: sa.Connection, few: Few, upload: bool) -> None:
    """Keep what is new and write what follows from it; ``upload``: with single ratings for the province."""
    steps.bury(tx, few.refused)
    steps.note_watermarks(tx, ((e.carried.partition, r.received_at) for e, r in few.accepted))
    cases = sorted({r.case_no for _, r in few.accepted})
    known, out = stored(tx, cases), standing.of_cases(tx, cases)
    new = _new(tx, few.accepted, {rating.event_id: digest for rating, digest in known})
    if not new:
        return
    touched = visits((rating for rating, _ in known), (rating for _, rating in new))
    bulk.insert_new(tx, rating_event, [_event_row(e, r) for e, r in new], ())
    claims.keep(tx, ((str(e.event_id), e.record) for e, _ in new))
    bulk.insert_new(tx, rating_cell_change, list(changes(touched, out)), ())
    standing.look(tx, out.keys() & {r.case_no for _, r in new})
    uploads = [Said(UPLOAD, _upload(e, r)) for e, r in new] if upload else []
    named = {rating.event_id for event, rating in new if rule.named(event.record)}
    steps.say(tx, [*(Said(ALERT, a) for a in alerts(touched, named)), *uploads])


def stored(tx: sa.Connection, cases: list[str]) -> list[tuple[Rating, UUID]]:
    """Stored events of these cases with their digests."""
    return [(Rating(*row), digest) for *row, digest in stored_rows(tx, cases)]


def stored_rows(tx: sa.Connection, cases: list[str] | str) -> list[tuple[Any, ...]]:
    """``FOLDED`` and digest of the stored events of these cases (a list, or a text[] literal). An event's id fixes its
    case, so this also finds every known id.

    Another worker cannot hold them: a case's events share one partition, and its cursor row is locked.
    """
    with bulk.driver(tx).cursor() as cursor:
        cursor.execute(NO_SCANS)
        return cursor.execute(STORED_SQL, [cases]).fetchall()


def _new(
    tx: sa.Connection, accepted: Iterable[tuple[Event, Rating]], known: dict[UUID, UUID]
) -> list[tuple[Event, Rating]]:
    """The first of each id that was not known; one with a known id and other bytes is buried."""
    new, odd = [], []
    for event, rating in accepted:
        if event.event_id not in known:
            known[event.event_id] = event.digest
            new.append((event, rating))
        elif known[event.event_id] != event.digest:
            odd.append(Refused(event.carried, steps.CONFLICT, event))
    steps.bury(tx, odd)
    return new


def _event_row(event: Event, rating: Rating) -> dict[str, Any]:
    return {**{name: getattr(rating, name) for name in FOLDED}, **steps.common_columns(event)}


# --- fold -----------------------------------------------------------------------------------------


def visits(old: Iterable[Rating], new: Iterable[Rating]) -> Visits:
    """The events by visit, of those visits that have new ones."""
    found: dict[Visit, tuple[list[Rating], list[Rating]]] = defaultdict(lambda: ([], []))
    for rating in new:
        found[visit_of(rating)][1].append(rating)
    for rating in old:
        if visit_of(rating) in found:
            found[visit_of(rating)][0].append(rating)
    return found


def visit_of(rating: Rating) -> Visit:
    """Which visit is rated."""
    return rating.region, rating.case_no, rating.service_no


def changes(touched: Visits, out: Mapping[str, Standings]) -> Iterator[dict[str, Any]]:
    """What must be added to each cell of these visits; a cell may come more than once. ``out``: by case, what does not
    count.
    """
    for (_, case_no, _), (old, new) in touched.items():
        standings = out.get(case_no, COUNTS)
        before = rule.cells(old, standings)
        for cell, after in rule.cells([*old, *new], standings).items():
            yield change(cell, after - before.get(cell, Count()))


def change(cell: Cell, added: Count) -> dict[str, Any]:
    """A row of ``rating_cell_change``."""
    return {
        "region": cell.region,
        "department": cell.department,
        "rated_on": cell.rated_on,
        "item_code": cell.item_code,
        "channel": cell.channel,
        "score": cell.score,
        "n": added.n,
        "defaults": added.defaults,
        "events": added.events,
        "received_at": added.received_at,
    }


# --- alerts ---------------------------------------------------------------------------------------


def alerts(touched: Visits, named: Collection[UUID]) -> Iterator[dict[str, Any]]:
    """What must be said of bad ratings in these visits; ``named``: new events that say by whom."""
    for old, new in touched.values():
        for rating in rule.told_of(old, new):
            yield rule.alert(rating, rating.event_id in named) if rule.is_bad(rating) else rule.revocation(rating)


# --- uploads --------------------------------------------------------------------------------------


def _upload(event: Event, rating: Rating) -> dict[str, Any]:
    """Record of rating.upload.v1, masked (DOMAIN §9), in the province's codes."""
    record = event.record
    comment, name = record["comment"], record["rater_name"]
    return {
        **{k: record[k] for k in ("region", "department", "occurred_at", "occurred_text", "entered_at", "received_at")},
        **uploaded(rating),
        "event_type": "rating.uploaded",
        "source_event_id": str(rating.event_id),
        "revision": rating.revision,
        "operation": rating.operation,
        "eval_detail": ",".join(record["tags"]),
        "writing_evaluation": mask.free_text(comment, (name,)) if comment else "",
        "effective": rating.operation != WITHDRAWAL,
        "user_name": mask.name(name) if rule.named(record) else "",
    }


def uploaded(rating: Rating) -> dict[str, Any]:
    """What every record of rating.upload.v1 about a rating says alike, in the province's codes. A department that a
    later release knows no more has none there, and nobody waits for it.
    """
    return {
        "rating_id": str(derived_id("rating", *visit_of(rating), rating.assess_no)),
        "project_no": rating.case_no,
        "service_number": rating.service_no,
        "assess_number": rating.assess_no,
        "satisfaction_code": str(rating.score),
        "pf_code": pf()[rating.channel],
        "assess_time": rating.occurred_at,
        "area_code": rating.region,
        "dept_code": known.uscc if (known := codesets.departments().get(rating.department)) else "",
        "task_code": rating.item_code,
        "is_default": rating.is_default,
    }


@cache
def pf() -> Mapping[str, str]:
    """The province's channel codes (§5.3) by those of ``govbus.channel``."""
    return {c: codesets.nearest("platform.channel", c) for c in codesets.load("govbus.channel").values}
