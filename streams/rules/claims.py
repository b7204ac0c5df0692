"""What ratings claim about a case's clock: tags that say it was too slow (DOMAIN 5.4). Pure; the clock's own word is
``judge``'s business.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from streams.rules.data import data

WITHDRAWAL = "D"


@dataclass(frozen=True, slots=True)
class Claim:
    """One rating event that says something about the clock, or amends one that may. ``too_slow``: it bears such a tag.
    ``at``: knowledge time, epoch ms.
    """

    event_id: str
    service_no: int
    assess_no: int
    revision: int
    too_slow: bool
    at: int


@cache
def tags() -> tuple[str, frozenset[str]]:
    """The code set of tags, and those that say that the case took too long."""
    raw = data("tally")
    return raw["sets"]["tag"], frozenset(raw["too_slow"]["tags"])


def too_slow(record: Mapping[str, Any]) -> bool:
    """Whether a rating, not withdrawn, says that its case took too long."""
    set_id, codes = tags()
    return record["operation"] != WITHDRAWAL and record["tag_set"] == set_id and not codes.isdisjoint(record["tags"])


def matters(record: Mapping[str, Any]) -> bool:
    """Whether the rating must be kept: it claims something, or takes the place of one that may."""
    return too_slow(record) or record["revision"] > 0


def standing(claims: Iterable[Claim], at: int) -> Sequence[Claim]:
    """The claims that stand at ``at`` (epoch ms): of each rating the latest revision known, if it is one."""
    latest: dict[tuple[int, int], Claim] = {}
    for claim in claims:
        rating = claim.service_no, claim.assess_no
        held = latest.get(rating)
        if claim.at <= at and (held is None or (claim.revision, claim.event_id) > (held.revision, held.event_id)):
            latest[rating] = claim
    return sorted((c for c in latest.values() if c.too_slow), key=lambda c: (c.at, c.event_id))
