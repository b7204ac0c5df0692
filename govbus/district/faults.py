"""What goes wrong in a district: duplicates, rows to refuse, records that bypass the publisher.

Every malformed row has exactly one fault and an identity of its own: refusing it leaves the rest untouched.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from govbus.district.model import Poison, PoisonKind, Row
from govbus.district.people import spoiled
from schemas.topics import BEHAVIOUR, CASE, LICENCE, RATING, Topic

DAY_MS = 86_400_000
Spoil = Callable[[dict[str, Any]], dict[str, Any]]
Harmless = Mapping[Topic, Sequence[Row]]
SPOILERS: tuple[tuple[Topic, str, Spoil], ...] = (
    (CASE, "unknown_department", lambda r: {**r, "department": "HS-NOSUCH"}),
    (CASE, "missing_field", lambda r: {k: v for k, v in r.items() if k != "item_code"}),
    (CASE, "bad_event_time", lambda r: {**r, "occurred_at": 86_400_000}),
    (CASE, "bad_event_time", lambda r: {**r, "occurred_at": "2031-05-01 09:00:00"}),
    (
        CASE,
        "bad_citizen_id",
        lambda r: {**r, "applicant_id_type_code": "111", "applicant_id": "430903190001010019"},
    ),
    (
        CASE,
        "bad_uscc",
        lambda r: {**r, "applicant_id_type_code": "001", "applicant_id": "91430903MADEMA019A"},
    ),
    (CASE, "missing_reason", lambda r: {**r, "event_type": "case.not_accepted", "reason": ""}),
    (CASE, "bad_item_code", lambda r: {**r, "item_code": spoiled(r["item_code"][:18]) + r["item_code"][18:]}),
    (CASE, "unknown_field", lambda r: {**r, "colour_of_folder": "blue"}),
    (RATING, "unknown_code", lambda r: {**r, "satisfaction_code": "9", "tags": [], "tag_set": ""}),
    (RATING, "assess_number_exceeded", lambda r: {**r, "assess_no": 3}),
    (
        RATING,
        "tag_level_mismatch",
        lambda r: {
            **r,
            "satisfaction_set": "platform.satisfaction",
            "satisfaction_code": "5",
            "tag_set": "platform.eval-detail",
            "tags": ["115"],
        },
    ),
    (LICENCE, "bad_licence_id", lambda r: {**r, "licence_id": spoiled(r["licence_id"])}),
    (BEHAVIOUR, "report_before_check", lambda r: {**r, "reported_at": r["occurred_at"] - 3_600_000}),
)
POISONS: tuple[PoisonKind, ...] = (
    "malformed_avro",
    "not_canonical",
    "unknown_schema",
    "bad_framing",
    "id_mismatch",
)
FRESH: Mapping[Topic, str] = {
    CASE: "case_no",
    RATING: "case_no",
    BEHAVIOUR: "behaviour_no",
    LICENCE: "licence_no",
}
CONFLICTING = {CASE: ("accepting_unit", "另一处窗口"), RATING: ("window_name", "9号窗口")}
HARMLESS = {
    CASE: "case.submitted",
    RATING: "rating.given",
    BEHAVIOUR: "behaviour.inspected",
    LICENCE: "licence.issued",
}


def again(rng: random.Random, rows: list[Row], share: float) -> list[Row]:
    """Rows published once more, unchanged, minutes to days later."""
    return [replace(row, received_at=_late(rng, row), outcome="same") for row in _some(rng, rows, share)]


def conflicts(rng: random.Random, rows: list[Row], share: float) -> list[Row]:
    """Rows with the identity of an earlier one and other content."""
    chosen = _some(rng, [r for r in rows if r.topic in CONFLICTING], share)
    return [
        replace(
            r,
            received_at=_late(rng, r),
            outcome="conflict",
            reason="conflict",
            record={**r.record, CONFLICTING[r.topic][0]: CONFLICTING[r.topic][1]},
        )
        for r in chosen
    ]


def malformed(rng: random.Random, rows: list[Row], count: int) -> list[Row]:
    """``count`` rows with one fault each, all kinds in turn."""
    good = harmless(rows)
    return [_spoil(rng, good, number) for number in range(count)]


def _spoil(rng: random.Random, good: Harmless, number: int) -> Row:
    topic, reason, spoil = SPOILERS[number % len(SPOILERS)]
    row = fresh(rng, good, topic, f"BAD{number:06d}")
    return replace(row, record=spoil(dict(row.record)), outcome="refused", reason=reason)


def harmless(rows: Sequence[Row]) -> Harmless:
    """The rows of which another one can be made, by topic: those that change nothing of what went before."""
    return {t: [r for r in rows if r.topic is t and r.record["event_type"] == kind] for t, kind in HARMLESS.items()}


def fresh(rng: random.Random, good: Harmless, topic: Topic, mark: str) -> Row:
    """A good row of ``topic`` whose identity nobody else has."""
    row = rng.choice(good[topic])
    record = {**row.record, FRESH[topic]: mark}
    if topic is LICENCE:
        record["family"] = f"{record['type_code']}/{record['issuer_code']}/{mark}"
    return replace(row, record=record)


def poison(rng: random.Random, rows: list[Row], count: int) -> list[Poison]:
    """Duplicates of good records, and fresh records damaged in every way, all straight into the log."""
    twice = [Poison("duplicate", row) for row in rng.sample(rows, min(count, len(rows)))]
    good = harmless(rows)
    damaged = [
        Poison(kind, fresh(rng, good, rng.choice((CASE, RATING)), f"RAW{number:06d}"))
        for number, kind in enumerate(POISONS * max(1, count // len(POISONS)))
    ]
    return twice + damaged


def _some(rng: random.Random, rows: list[Row], share: float) -> list[Row]:
    return rng.sample(rows, max(1, int(len(rows) * share)))


def _late(rng: random.Random, row: Row) -> int:
    return row.received_at + rng.choice((60_000, 3_600_000, 2 * DAY_MS))
