"""Service items: which versions may not be judged by, whom a version concerns, and where its copies differ. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from schemas.errors import Fault
from streams.rules import cards
from streams.rules.cards import Alert, Ground, Knowledge
from streams.rules.limits import item_versions

Record = Mapping[str, Any]
MISMATCH = "element_mismatch"


def concern(records: Iterable[Record]) -> tuple[str, ...]:
    """Item codes whose cases must be judged again; a case is judged by the version in force at acceptance,
    whenever that version arrived (docs/architecture.md).
    """
    return tuple(sorted({record["item_code"] for record in records}))


def fault(record: Record) -> Fault | None:
    """Why no case may be judged by this version: its promise is longer than the law allows, or a limit is none (DOMAIN
    2.5, narrative 30).
    """
    if record["event_type"] != "item.published" or item_versions([record]):
        return None
    text = "the promise is longer than statutory_limit, or a limit is no amount"
    return Fault("rule_failed", "promise_limit", text, "correct either limit and publish the version again")


def owner(item_code: str) -> str:
    """Under what name the findings about an item are kept and told."""
    return f"item/{item_code}"


def findings(item_code: str, events: Sequence[Record]) -> tuple[Alert, ...]:
    """What the online and the offline copy of an item's elements differ in (线上线下同质办, DOMAIN 2.3), over knowledge
    time: a finding for each element, taken back by a later version in which they agree. ``events``: all of the item.
    """
    moments = sorted({e["received_at"] for e in events})
    history = [
        Knowledge(at, _differing([e for e in events if e["received_at"] <= at]), (), 0, "item_revised")
        for at in moments
    ]
    return cards.alerts(owner(item_code), history, moments[-1])[0]


def _differing(events: Sequence[Record]) -> tuple[Ground, ...]:
    """The elements in which the newest version's copies differ."""
    gone = {e["item_version"] for e in events if e["event_type"] == "item.withdrawn"}
    live = [e for e in events if e["event_type"] == "item.published" and e["item_version"] not in gone]
    if not live:
        return ()
    newest = max(live, key=lambda e: (e["item_version"], e["received_at"], e["event_id"]))
    copies: dict[str, set[str]] = {}
    for element in newest.get("elements", ()):
        copies.setdefault(element["element"], set()).add(element["digest"])
    return tuple(_ground(newest, name) for name in sorted(copies) if len(copies[name]) > 1)


def _ground(version: Record, element: str) -> Ground:
    return Ground(cards.FINDING, cards.NO_COLOUR, MISMATCH, cards.finding_version(), element, version["received_at"],
                  None, "", False, (version["event_id"],))  # fmt: skip
