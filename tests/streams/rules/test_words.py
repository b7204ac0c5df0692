"""What the desk says after what it said before: the last word is always what is derived."""

from __future__ import annotations

from msgspec.structs import replace

from streams.rules import words
from streams.rules.cards import Alert
from streams.rules.state import Spoken

ISSUED = Alert(
    "A1", 1, "HANDLING", "YELLOW", "HS-LIFE-CONTACT", "2020.1", "B/contact/1", 900, "2020-r1", False, ("B",), 1000
)
REVOKED = replace(ISSUED, revoked_at=2000, revoked_reason="late_handling")


def said(action: str, alert: Alert, seq: int = 1) -> dict[str, Spoken]:
    return {"A1": Spoken(seq, action, words.content(alert), alert)}


def told(spoken: dict[str, Spoken], *alerts: Alert, horizon: int = 5000) -> list[tuple[str, int, int]]:
    return [(s.action, s.seq, s.known_at) for s in words.differences(spoken, alerts, horizon)]


def test_something_new_is_issued_and_at_once_revoked_if_that_is_known_too() -> None:
    assert told({}, ISSUED) == [("ISSUED", 1, 1000)]
    assert told({}, REVOKED) == [("ISSUED", 1, 1000), ("REVOKED", 2, 2000)]


def test_what_was_said_is_not_said_again() -> None:
    assert told(said("ISSUED", ISSUED), ISSUED) == []
    assert told(said("REVOKED", REVOKED, 2), REVOKED) == []


def test_a_revocation_follows_its_issue() -> None:
    assert told(said("ISSUED", ISSUED), REVOKED) == [("REVOKED", 2, 2000)]


def test_what_is_no_longer_derived_is_retracted_once_and_may_come_back() -> None:
    assert told(said("ISSUED", ISSUED)) == [("RETRACTED", 2, 1000)]
    assert told(said("RETRACTED", ISSUED, 2)) == []
    assert told(said("RETRACTED", ISSUED, 2), ISSUED) == [("ISSUED", 3, 1000)]


def test_what_was_said_of_a_time_beyond_the_horizon_stands() -> None:
    assert told(said("ISSUED", ISSUED), horizon=999) == []
    assert told(said("REVOKED", REVOKED, 2), ISSUED, horizon=1999) == []


def test_a_due_time_that_moved_is_said_anew() -> None:
    assert told(said("ISSUED", ISSUED), replace(ISSUED, due_at=901)) == [("ISSUED", 2, 1000)]


def test_the_sentences_name_the_case_what_is_due_and_what_is_wrong_and_nobody() -> None:
    about = {"kind": "BAD_RATING", "colour": "NONE", "case_no": "C1", "department": "HS-ZJJ"}
    late = replace(ISSUED, due_at=1_600_765_200_000)
    odd = replace(ISSUED, kind="FINDING", rule_id="illegal_handling", subject="B/revoked/not_entitled/E1")
    ruled = replace(ISSUED, kind="RULING", rule_id="HS-LIFE-RULING", subject="B/EXCLUDED")
    assert words.summary(ruled, about) == "复核决定：办件 C1 的差评经复核申诉成立（已剔除），不再计入统计。"
    assert words.summary(late, about) == "处置超时：办件 C1 的差评未在 2020-09-22 17:00 前完成联系核实，请立即处理。"
    assert words.summary(odd, about) == "监察发现：办件 C1 的差评处置不合规（撤牌：无权作出该处置），请核查。"
    named = replace(odd, answering=((1000, "HS-JTJ"),))
    assert words.summary(named, about) == (
        "监察发现：区交通运输局对办件 C1 的差评处置不合规（撤牌：无权作出该处置），请核查。"
    )
