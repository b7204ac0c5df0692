"""The supervisor's desk: the last word of an alert stands, in whatever order the words come."""

from __future__ import annotations

import itertools
import uuid

import pytest
import sqlalchemy as sa

from consumers.alerts.inbox import Inbox, Wanted, open_alerts
from schemas.topics import ALERT
from streams.store.projection import Carried, Event
from streams.store.tables import alert_life, rating_event

pytestmark = pytest.mark.stack
ONE = uuid.UUID(int=1)


def word(seq: int, event_type: str, colour: str = "RED", alert_id: uuid.UUID = ONE, kind: str = "CARD") -> Event:
    record = {
        "alert_id": str(alert_id), "alert_seq": seq, "event_type": event_type, "region": "430903",
        "department": "HS-SCJGJ", "case_no": "c1", "kind_code": kind, "colour_code": colour,
        "summary": "超期", "issued_at": 1_000 + seq, "occurred_at": 500 + seq,
        "item_code": "", "rule_id": "HS-CARD-R", "due_at": None, "received_at": 1_000 + seq,
        "revoked_reason_code": "", "evidence": [], "named": True if event_type == "alert.issued" else None,
    }  # fmt: skip
    return Event(Carried(ALERT, 0, 0, b"", b"", ()), uuid.uuid4(), uuid.uuid4(), record)


WORDS = (word(1, "alert.issued", "YELLOW"), word(2, "alert.revoked"), word(3, "alert.retracted"))


@pytest.mark.parametrize("order", list(itertools.permutations(WORDS)), ids=lambda o: str(len(o)))
@pytest.mark.parametrize("together", [True, False])
def test_the_highest_sequence_number_stands_in_any_order(
    engine: sa.Engine, order: tuple[Event, ...], together: bool
) -> None:
    inbox = Inbox(clock=lambda: 5)
    for events in [order] if together else [(e,) for e in order]:
        with engine.begin() as tx:
            inbox.apply(tx, list(events))
    with engine.connect() as tx:
        assert tx.execute(sa.text("SELECT alert_seq, action FROM alert_inbox")).all() == [(3, "RETRACTED")]
        assert list(open_alerts(tx)) == []


RATED = tuple(enumerate((2, 1, 4, 2), 1))
"""Number of the word and score: bad, bad, good, bad again."""


@pytest.mark.parametrize("order", list(itertools.permutations(RATED)), ids=lambda o: "".join(str(n) for n, _ in o))
def test_a_bad_rating_begins_with_the_first_that_was_bad_in_whatever_order_the_words_come(
    engine: sa.Engine, order: tuple[tuple[int, int], ...]
) -> None:
    for number, (seq, score) in enumerate(order):  # a word comes after its rating
        action = "issued" if score < 3 else "revoked"
        said = word(seq, f"alert.{action}", kind="BAD_RATING")
        said.record["evidence"] = [str(uuid.UUID(int=seq))]  # type: ignore[index]
        with engine.begin() as tx:
            tx.execute(sa.insert(rating_event), {
                "event_id": uuid.UUID(int=seq), "event_type": "rating.corrected", "region": "430903",
                "department": "HS-SCJGJ", "occurred_at": 500 + seq, "entered_at": None, "received_at": 1_000 + seq,
                "digest": uuid.uuid4(), "partition": 0, "offset": number, "case_no": "c1", "service_no": 1,
                "assess_no": 1, "revision": seq - 1, "operation": "U", "item_code": "", "channel": "QR", "score": score,
                "is_default": False,
            })  # fmt: skip
            Inbox().apply(tx, [said])
    with engine.connect() as tx:
        shown = tx.execute(sa.text("SELECT action, issued_at, given_at FROM alert_inbox")).all()
    assert shown == [("ISSUED", 1_004, 504)]


def test_that_a_bad_rating_was_named_outlives_its_revocation(engine: sa.Engine) -> None:
    with engine.begin() as tx:
        for event in WORDS[:2]:
            Inbox().apply(tx, [event])
        assert tx.execute(sa.text("SELECT action, named FROM alert_inbox")).all() == [("REVOKED", True)]


@pytest.mark.parametrize("together", [True, False])
def test_a_correction_that_leaves_a_bad_rating_bad_begins_no_deadline_anew(engine: sa.Engine, together: bool) -> None:
    told = [
        word(seq, f"alert.{action}", kind="BAD_RATING")
        for seq, action in enumerate(("issued", "issued", "revoked", "issued"), 1)
    ]
    issued_at = []
    for count in (2, 3, 4):
        with engine.begin() as tx:
            tx.execute(sa.text("DELETE FROM alert_inbox"))
            for events in [told[:count]] if together else [[e] for e in told[:count]]:
                Inbox().apply(tx, events)
            issued_at.append(tuple(tx.execute(sa.text("SELECT issued_at, given_at FROM alert_inbox")).one()))
    assert issued_at == [(1_001, 501), (1_001, 501), (1_004, 504)]  # bad again after it was good: another matter


def test_an_issued_alert_is_open_until_it_is_revoked(engine: sa.Engine) -> None:
    with engine.begin() as tx:
        Inbox().apply(tx, [word(1, "alert.issued"), word(1, "alert.issued", alert_id=uuid.UUID(int=2))])
        assert len(list(open_alerts(tx))) == 2
        Inbox().apply(tx, [word(2, "alert.revoked")])
        assert [a.alert_id for a in open_alerts(tx)] == [uuid.UUID(int=2)]


def test_an_alert_is_overdue_from_the_minute_after_the_one_that_is_due(engine: sa.Engine) -> None:
    life = {
        "case_no": "c1", "alert_id": str(ONE), "region": "430903", "department": "HS-SCJGJ", "item_code": "",
        "kind": "CARD", "colour": "RED", "rule_id": "", "stage": "ISSUED", "out_reason": "", "verified": "",
        "level": "", "closing": "", "dues": {}, "next_timer": "sign", "next_due_at": 600_000, "steps": [],
    }  # fmt: skip
    with engine.begin() as tx:
        Inbox().apply(tx, [word(1, "alert.issued")])
        tx.execute(sa.insert(alert_life), life)
        found = {at: len(list(open_alerts(tx, Wanted(overdue_at=at)))) for at in (600_000, 659_999, 660_000)}
    assert found == {600_000: 0, 659_999: 0, 660_000: 1}
