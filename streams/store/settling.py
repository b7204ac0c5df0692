"""Takes ratings that do not count out of the cells, puts back those that count again, and tells the province of each.

Runs beside the hot path and holds all of the tally's cursors until it ends, so that no rating is applied meanwhile:
each is either stored, and settled here, or finds what is known here and leaves news of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from schemas.envelope import derived_id
from schemas.topics import RATING, UPLOAD
from streams.rules import tally as rule
from streams.rules.tally import COUNTS, Assessment, Count, Rating, Standing, Standings
from streams.store import applier, bulk, standing, steps, tally_few
from streams.store.projection import Said
from streams.store.tables import rating_cell_change
from streams.store.tally_few import Visit, visit_of

TALLY = "tally"


def settle(tx: sa.Connection, upload: bool) -> bool | None:
    """Settle some cases of which there is news; True if more may be left, None if there was none. ``upload``: tell the
    province. The cursors are held until ``tx`` ends.
    """
    cases = standing.news(tx)
    if not cases:
        return None
    applier.lock(tx, TALLY, RATING, range(RATING.partitions))
    before = standing.of_cases(tx, cases)
    ratings = _by_case(rating for rating, _ in tally_few.stored(tx, cases))
    appeals = standing.excluded(tx, cases)
    excluded = {row.alert_id: row.out_at for row in appeals}
    here = {str(rule.alert_id(rating)) for told in ratings.values() for rating in told}
    waiting = {row.case_no for row in appeals if row.alert_id not in here}
    turned: list[tuple[str, Assessment, Standing]] = []
    changes, words = [], []
    for case_no in sorted(ratings):
        told, was = ratings[case_no], before.get(case_no, COUNTS)
        new = _turned(told, was, excluded)
        turned += ((case_no, key, one) for key, one in new.items())
        changes += _changes(told, was, {**was, **new})
        words += [_word(_loudest(told, key), one) for key, one in new.items()]
    standing.keep(tx, turned)
    standing.look(tx, waiting)  # while a rebuild reads the log again, an appeal is there before its rating
    bulk.insert_new(tx, rating_cell_change, changes, ())
    steps.say(tx, [Said(UPLOAD, word) for word in words] if upload else [])
    return len(cases) > len(waiting)


def _by_case(ratings: Iterable[Rating]) -> dict[str, list[Rating]]:
    found: dict[str, list[Rating]] = defaultdict(list)
    for rating in sorted(ratings, key=lambda r: (r.case_no, str(r.event_id))):
        found[rating.case_no].append(rating)
    return found


def _turned(told: Sequence[Rating], was: Standings, excluded: Mapping[str, int]) -> dict[Assessment, Standing]:
    """The assessments of one case that are out and were not, or the other way round. ``excluded``: by the id of its
    alert, when the appeal against an assessment was decided.
    """
    case = was.get(standing.CASE, standing.COUNTED)
    appealed = {rule.assessment(rating): excluded.get(str(rule.alert_id(rating)), 0) for rating in told}
    found: dict[Assessment, Standing] = {}
    for key, at in appealed.items():
        held = was.get(key, standing.COUNTED)
        one = held.turned(case.out or at > 0, max(case.known_at, at))
        if one is not held:
            found[key] = one
    return found


def _changes(told: Iterable[Rating], was: Standings, now: Standings) -> list[dict[str, Any]]:
    visits: dict[Visit, list[Rating]] = defaultdict(list)
    for rating in told:
        visits[visit_of(rating)].append(rating)
    return [
        tally_few.change(cell, after - before.get(cell, Count()))
        for visit in visits.values()
        for before in (rule.cells(visit, was),)
        for cell, after in rule.cells(visit, now).items()
        if after != before.get(cell, Count())
    ]


def _loudest(told: Iterable[Rating], key: Assessment) -> Rating:
    return rule.loudest(r for r in told if rule.assessment(r) == key)


def _word(rating: Rating, held: Standing) -> dict[str, Any]:
    """Record of rating.upload.v1 that tells the province whether the assessment counts; of the rating itself it repeats
    what the bus keeps, and no text.
    """
    matter = [getattr(rating, name) for name in rule.MATTER]
    return {
        **tally_few.uploaded(rating),
        "region": rating.region,
        "department": rating.department,
        "occurred_at": rating.occurred_at,
        "occurred_text": "",
        "entered_at": None,
        "received_at": max(held.known_at, rating.received_at),
        "event_type": "rating.excluded" if held.out else "rating.restored",
        "source_event_id": str(derived_id("standing", *matter, held.changes)),
        "revision": held.changes,
        "operation": "U",
        "eval_detail": "",
        "writing_evaluation": "",
        "effective": not held.out,
        "user_name": "",
    }
