"""Rows of departments against contract, code sets and the rules of the domain dossier."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from connectors.validate import Finding, validator
from govbus.district import people
from schemas import codec
from schemas.examples import HERE
from schemas.topics import BEHAVIOUR, CALENDAR, CASE, HANDLING, INBOUND, ITEM, LICENCE, RATING, RESOURCE, TICKET, Topic
from streams.rules import tally

RECEIVED = 1_601_024_000_000  # 2020-09-25 16:53:20 in Shanghai
MINUTE = 60_000
ITEM_CODE = "11430903MBDEM0138T4000715002000"
SECRET = "43090319000101001X"


def rating(**changes: Any) -> dict[str, Any]:
    row = {
        "case_no": "C1",
        "event_type": "rating.given",
        "occurred_at": "2020-09-25 16:50:00",
        "item_code": ITEM_CODE,
        "satisfaction_set": "platform.satisfaction",
        "satisfaction_code": "5",
        "channel_set": "platform.channel",
        "channel_code": "4",
    }
    return {k: v for k, v in (row | changes).items() if v is not ...}


def case(**changes: Any) -> dict[str, Any]:
    row = {
        "case_no": "C1",
        "event_type": "case.accepted",
        "occurred_at": "2020-09-25 16:50:00",
        "item_code": ITEM_CODE,
    }
    return row | changes


def item(**changes: Any) -> dict[str, Any]:
    row = {
        "event_type": "item.published",
        "occurred_at": "2020-01-02 09:00:00",
        "item_code": ITEM_CODE,
        "item_version": 1,
        "name": "不动产登记",
        "promise_limit": 5.0,
        "promise_unit_code": "1",
        "effective_on": "2020-01-02",
    }
    return row | changes


def check(topic: Topic, row: dict[str, Any], received_at: int = RECEIVED) -> Finding:
    sender = "HS-SCJGJ" if topic is LICENCE else "HS-ZRZYJ"
    return validator(topic, sender, "430903").check(row, received_at)


def faults(topic: Topic, row: dict[str, Any], received_at: int = RECEIVED) -> list[tuple[str, str]]:
    return [(f.reason, f.field) for f in check(topic, row, received_at).faults]


def test_a_good_row_becomes_a_record_that_the_contract_encodes() -> None:
    finding = check(RATING, rating())
    assert finding.faults == []
    record = finding.record | {"event_id": "7b7b31c2-0000-5000-8000-000000000000"}
    assert codec.decode(codec.encode(RATING, record), RATING)["occurred_at"] == 1_601_023_800_000


def test_the_time_as_it_was_written_is_kept_beside_the_normalised_one() -> None:
    record = check(RATING, rating(occurred_at="20200925T165000")).record
    assert (record["occurred_at"], record["occurred_text"]) == (1_601_023_800_000, "20200925T165000")


def test_a_time_sent_as_a_number_has_no_text() -> None:
    assert check(RATING, rating(occurred_at=1_601_023_800_000)).record["occurred_text"] == ""
    kept = check(RATING, rating(occurred_at=1_601_023_800_000, occurred_text="2020/9/25 16:50"))
    assert (kept.faults, kept.record["occurred_text"]) == ([], "2020/9/25 16:50")


@pytest.mark.parametrize("text", ["张三 430903199001010015", "yesterday", "9" * 30])
def test_a_time_as_the_sender_wrote_it_is_a_time(text: str) -> None:
    """It is published as it is."""
    found = check(RATING, rating(occurred_at=1_601_023_800_000, occurred_text=text)).faults
    assert [(f.reason, f.field) for f in found] == [("bad_format", "occurred_text")]
    assert text not in str(found)


def test_all_faults_of_a_row_are_told_at_once() -> None:
    row = rating(
        case_no=..., service_no="2", colour="red", satisfaction_code="9", item_code=ITEM_CODE[:-1] + "X"
    )
    assert sorted(faults(RATING, row)) == [
        ("bad_item_code", "item_code"),
        ("missing_field", "case_no"),
        ("unknown_code", "satisfaction_code"),
        ("unknown_field", "colour"),
        ("wrong_type", "service_no"),
    ]


def test_no_fault_repeats_the_value_that_is_wrong() -> None:
    row = case(applicant_id=SECRET, applicant_id_type_set="gat2000.156", applicant_id_type_code="111")
    (fault,) = check(CASE, row).faults
    assert fault.reason == "bad_citizen_id"
    assert SECRET not in f"{fault}"


def test_a_field_name_that_could_be_a_value_is_not_repeated_either() -> None:
    (fault,) = check(RATING, rating(**{"张三 430903190001010015": 1})).faults
    assert (fault.reason, fault.field) == ("unknown_field", "?")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"case_no": ...}, ("missing_field", "case_no")),
        ({"case_no": ""}, ("missing_field", "case_no")),
        ({"case_no": None}, ("missing_field", "case_no")),
        ({"case_no": 7}, ("wrong_type", "case_no")),
        ({"case_no": "C\x001"}, ("bad_format", "case_no")),
        ({"case_no": "办" * 161}, ("too_large", "case_no")),
        ({"service_no": True}, ("wrong_type", "service_no")),
        ({"service_no": 2**31}, ("wrong_type", "service_no")),
        ({"anonymous": 1}, ("wrong_type", "anonymous")),
        ({"tags": "510"}, ("wrong_type", "tags")),
        ({"tags": [510]}, ("wrong_type", "tags")),
        ({"occurred_at": "2020-02-30 10:00:00"}, ("bad_format", "occurred_at")),
        ({"occurred_at": []}, ("wrong_type", "occurred_at")),
        ({"received_at": RECEIVED}, ("unknown_field", "received_at")),
        ({"operation": "X"}, ("unknown_code", "operation")),
        ({"event_type": "case.accepted"}, ("unknown_code", "event_type")),
        ({"department": "区土地局"}, ("unknown_department", "department")),
        ({"department": "HS-CZJ"}, ("envelope_mismatch", "department")),
        ({"region": "999999"}, ("unknown_code", "region")),
        ({"region": "430902"}, ("envelope_mismatch", "region")),
        ({"satisfaction_set": ""}, ("bad_code_set", "satisfaction_set")),
        (
            {"satisfaction_set": "gbt2260.region", "satisfaction_code": "430903"},
            ("bad_code_set", "satisfaction_set"),
        ),
        ({"channel_code": "77"}, ("unknown_code", "channel_code")),
        ({"assess_no": 3}, ("assess_number_exceeded", "assess_no")),
        ({"tag_set": "platform.eval-detail", "tags": ["115"]}, ("tag_level_mismatch", "tags")),
        ({"service_no": 0}, ("bad_format", "service_no")),
        ({"revision": -1}, ("bad_format", "revision")),
        ({"revision": 2**31 - 1}, ("bad_format", "revision")),
        ({"tag_set": "platform.eval-detail", "tags": ["599"]}, ("unknown_code", "tags")),
    ],
)
def test_each_rule_of_a_rating_names_its_reason_and_field(
    changes: dict[str, Any], expected: tuple[str, str]
) -> None:
    assert expected in faults(RATING, rating(**changes))


PAIRS = (
    (CASE, "result", "province.result-newer", "1"),
    (CASE, "step_result", "govbus.step-result", "1"),
    (CASE, "applicant_id_type", "gat2000.156", "111"),
    (ITEM, "kind", "gbt39046.case-kind", "2"),
)


@pytest.mark.parametrize("absent", [None, ""])
@pytest.mark.parametrize(("topic", "name", "set_id", "code"), PAIRS)
def test_no_code_comes_without_its_set(
    topic: Topic, name: str, set_id: str, code: str, absent: str | None
) -> None:
    row = case() if topic is CASE else item()
    pair = {f"{name}_set": set_id, f"{name}_code": code}
    assert faults(topic, row | pair) == []
    assert faults(topic, row | dict.fromkeys(pair, absent)) == []
    assert faults(topic, row | pair | {f"{name}_set": absent}) == [("bad_code_set", f"{name}_set")]
    assert faults(topic, row | pair | {f"{name}_code": absent}) == []  # a constant column of an export
    (fault,) = check(topic, row | {f"{name}_code": code}).faults
    assert fault.mend.startswith("name the set: use ")
    assert set_id in fault.mend


def test_a_document_s_number_is_not_let_past_its_check_by_leaving_out_the_set_of_its_kind() -> None:
    row = case(applicant_id=SECRET, applicant_id_type_code="111")
    assert faults(CASE, row) == [("bad_code_set", "applicant_id_type_set")]


def test_a_code_that_is_missing_is_told_once() -> None:
    assert faults(RATING, rating(satisfaction_code=...)) == [("missing_field", "satisfaction_code")]
    assert faults(RATING, rating(satisfaction_set=...)) == [("missing_field", "satisfaction_set")]


@pytest.mark.parametrize(("event", "operation"), [("given", "I"), ("corrected", "U"), ("withdrawn", "D")])
@pytest.mark.parametrize("told", [{}, {"operation": ""}, {"operation": None}])
def test_an_operation_that_is_left_out_is_that_of_the_event(event: str, operation: str, told: dict[str, Any]) -> None:
    finding = check(RATING, rating(event_type=f"rating.{event}", revision=1, **told))
    assert (finding.faults, finding.record["operation"]) == ([], operation)
    assert check(RATING, rating(event_type=f"rating.{event}", revision=1, operation=operation)).faults == []


@pytest.mark.parametrize(
    ("event", "operation"),
    [("given", "D"), ("given", "U"), ("corrected", "D"), ("corrected", "I"), ("withdrawn", "I"), ("withdrawn", "U")],
)
def test_an_operation_that_contradicts_the_event_is_refused(event: str, operation: str) -> None:
    (fault,) = check(RATING, rating(event_type=f"rating.{event}", revision=1, operation=operation)).faults
    assert (fault.reason, fault.field) == ("rule_failed", "operation")
    assert fault.mend == "leave it out, or correct event_type"


def test_a_withdrawal_without_an_operation_leaves_nothing_that_counts() -> None:
    rows = (rating(), rating(event_type="rating.withdrawn", revision=1))
    told = [tally.Rating.of(uuid.UUID(int=n), check(RATING, row).record) for n, row in enumerate(rows)]
    assert tally.effective(told) is None


def test_tags_are_compared_with_the_level_that_the_senders_own_code_set_means() -> None:
    good = {
        "satisfaction_set": "gbt39046.satisfaction",
        "satisfaction_code": "1",
        "tag_set": "platform.eval-detail",
    }
    assert faults(RATING, rating(**good, tags=["510"])) == []
    assert faults(RATING, rating(**good, tags=["115"])) == [("tag_level_mismatch", "tags")]


@pytest.mark.parametrize("name", ["区自然资源局", "HS-ZRZYJ", " HS-ZRZYJ "])
def test_a_department_is_known_by_code_and_name_and_becomes_its_code(name: str) -> None:
    assert check(RATING, rating(department=name)).record["department"] == "HS-ZRZYJ"


@pytest.mark.parametrize("number", ["  ", " C1", "C1 ", "C1\n", "\u3000C1", "C\t1", "C1\u200b", "C\u00ad1", "\ufeffC1"])
@pytest.mark.parametrize(
    ("topic", "name"),
    [(CASE, "case_no"), (CASE, "project_code"), (CASE, "bundle_no"), (RATING, "case_no"), (LICENCE, "licence_no")],
)
def test_a_name_that_looks_like_another_one_is_refused_with_its_mend(topic: Topic, name: str, number: str) -> None:
    row = {CASE: case, RATING: rating, LICENCE: licence}[topic](**{name: number})
    (fault,) = check(topic, row).faults
    assert (fault.reason, fault.field) == ("bad_format", name)
    assert fault.mend in ("remove the blank", "remove it")


@pytest.mark.parametrize("number", ["湘（2020）赫山区 0000123号", "C-1/2 (甲)"])
def test_a_number_may_hold_what_is_seen(number: str) -> None:
    assert faults(CASE, case(case_no=number)) == []


@pytest.mark.parametrize(("topic", "name"), [(CASE, "case_no"), (RATING, "case_no"), (BEHAVIOUR, "behaviour_no")])
def test_the_number_of_a_case_or_a_behaviour_has_fifty_characters_at_most(topic: Topic, name: str) -> None:
    behaviour = {"event_type": "behaviour.planned", "occurred_at": "2020-09-25 16:50:00"}
    row = {CASE: case(), RATING: rating(), BEHAVIOUR: behaviour}[topic]
    assert faults(topic, row | {name: "办" * 50}) == []
    assert faults(topic, row | {name: "办" * 51}) == [("too_large", name)]
    assert faults(topic, row | {name: "办" * 161}) == [("too_large", name)]


def test_what_is_handled_may_be_named_by_a_longer_number_than_a_case_s() -> None:
    row = {"event_type": "handling.signed", "occurred_at": "2020-09-25 16:50:00", "alert_id": "A1"}
    assert faults(HANDLING, row | {"case_no": "bundle/" + "9" * 100}) == []


def test_an_alias_of_a_department_becomes_its_code() -> None:
    finding = validator(RATING, "HS-XZSPJ", "430903").check(rating(department="区行政审批局"), RECEIVED)
    assert (finding.faults, finding.record["department"]) == ([], "HS-XZSPJ")


def test_a_township_of_the_district_may_be_named() -> None:
    assert faults(RATING, rating(region="430903101")) == []


@pytest.mark.parametrize(
    ("occurred_at", "expected"),
    [
        (RECEIVED + 10 * MINUTE - 1, []),
        (RECEIVED + 10 * MINUTE, [("bad_event_time", "occurred_at")]),
        ("2021-09-25 16:50:00", [("bad_event_time", "occurred_at")]),
        ("1970-01-01 08:00:00", [("bad_event_time", "occurred_at")]),
        ("1999-12-31 23:59:59", [("bad_event_time", "occurred_at")]),
        ("2000-01-01 00:00:00", []),
    ],
)
def test_an_event_time_must_lie_between_2000_and_ten_minutes_from_now(
    occurred_at: object, expected: list[tuple[str, str]]
) -> None:
    assert faults(RATING, rating(occurred_at=occurred_at)) == expected


def test_an_entry_time_in_the_future_is_a_bad_event_time() -> None:
    assert faults(RATING, rating(entered_at=RECEIVED + 10 * MINUTE)) == [("bad_event_time", "entered_at")]


SECONDS = RECEIVED // 1000
CORRECTION = {"corrects_event_id": "6afccdfe-6277-5a03-a696-25c0b530addb", "corrected_at": "2020-09-21 10:00:00"}
SPECIAL = {"event_type": "case.special_ended", "special_started_at": "2020-09-21 10:00:00"}


@pytest.mark.parametrize("wrong", [SECONDS, "202009251650", "1999-12-31 23:59:59"])
@pytest.mark.parametrize(
    ("topic", "kind", "name"),
    [
        (CASE, "case.corrected", "corrected_at"),
        (CASE, "case.special_started", "special_started_at"),
        (CASE, "case.special_ended", "special_ended_at"),
        (CASE, "case.accepted", "verify_by"),
        (TICKET, "ticket.opened", "due_at"),
    ],
)
def test_no_time_of_an_event_lies_before_2000(topic: Topic, kind: str, name: str, wrong: object) -> None:
    row = case(**CORRECTION) if topic is CASE else {"occurred_at": "2020-09-25 16:50:00", "ticket_no": "T1"}
    assert faults(topic, row | {"event_type": kind, name: wrong}) == [("bad_event_time", name)]


@pytest.mark.parametrize("name", ["corrected_at", "special_started_at", "special_ended_at"])
def test_what_tells_the_past_does_not_lie_ahead(name: str) -> None:
    row = case(event_type="case.corrected", **CORRECTION)
    assert faults(CASE, row | {name: RECEIVED + 10 * MINUTE}) == [("bad_event_time", name)]
    assert faults(CASE, row | {name: RECEIVED + 10 * MINUTE - 1}) == []


@pytest.mark.parametrize("name", ["corrects_event_id", "corrected_at"])
def test_a_correction_of_a_case_names_the_event_and_its_time_or_would_change_nothing(name: str) -> None:
    row = case(event_type="case.corrected", **CORRECTION)
    assert faults(CASE, row) == []
    assert faults(CASE, row | {name: None}) == [("missing_field", name)]


def test_a_deadline_lies_ahead_and_a_start_may_foretell_its_end() -> None:
    assert faults(CASE, case(verify_by="2021-09-25 17:00:00")) == []
    foretold = SPECIAL | {"event_type": "case.special_started", "special_ended_at": "2020-12-01 17:00:00"}
    assert faults(CASE, case(**foretold)) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"special_ended_at": "2020-09-21 09:59:59"}, [("bad_event_time", "special_started_at")]),
        ({"special_ended_at": "2020-09-21 10:00:00"}, []),
        ({"occurred_at": "2020-09-21 09:59:59"}, [("bad_event_time", "special_started_at")]),
        ({"special_started_at": None, "special_ended_at": "2020-09-24 10:00:00"}, []),
    ],
)
def test_a_special_procedure_does_not_end_before_it_starts(
    changes: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    assert faults(CASE, case(**(SPECIAL | changes))) == expected


def test_a_behaviour_reported_in_seconds_was_not_reported_in_1970() -> None:
    row = {"event_type": "behaviour.inspected", "behaviour_no": "B1", "occurred_at": 1_601_023_800_000}
    assert ("bad_event_time", "reported_at") in faults(BEHAVIOUR, row | {"reported_at": SECONDS})
    assert faults(BEHAVIOUR, row | {"reported_at": RECEIVED + 10 * MINUTE}) == [("bad_event_time", "reported_at")]


def test_a_refusal_to_accept_gives_its_reason() -> None:
    assert faults(CASE, case(event_type="case.not_accepted", reason="  ")) == [("missing_reason", "reason")]
    assert faults(CASE, case(event_type="case.not_accepted", reason="材料不属于本机关职权")) == []


@pytest.mark.parametrize("kind", ["case.returned", "case.transferred", "case.voided"])
def test_a_return_a_transfer_and_an_annulment_of_the_case_give_their_reason(kind: str) -> None:
    assert faults(CASE, case(event_type=kind)) == [("missing_reason", "reason")]
    assert faults(CASE, case(event_type=kind, reason="转上级机关办理")) == []


def test_an_annulment_of_one_event_needs_no_reason() -> None:
    assert faults(CASE, case(event_type="case.voided", corrects_event_id=str(uuid.uuid4()))) == []


@pytest.mark.parametrize(
    ("result_set", "result", "reasoned"),
    [
        ("province.result-newer", "0", False),
        ("province.result-newer", "1", True),
        ("province.result-newer", "6", True),
        ("province.result-older", "5", True),
        ("province.result-older", "6", False),
    ],
)
def test_a_decision_that_does_not_grant_gives_its_reason(result_set: str, result: str, reasoned: bool) -> None:
    told = {"event_type": "case.decided", "result_set": result_set, "result_code": result}
    assert faults(CASE, case(**told)) == ([("missing_reason", "reason")] if reasoned else [])
    assert faults(CASE, case(**told, reason="不符合法定条件")) == []


def test_a_decision_tells_its_result() -> None:
    told = {"result_set": "province.result-newer", "result_code": "0"}
    assert faults(CASE, case(event_type="case.decided")) == [("missing_field", "result_code")]
    assert faults(CASE, case(event_type="case.decided", result_set=told["result_set"])) == [
        ("missing_field", "result_code")
    ]
    assert faults(CASE, case(event_type="case.decided", result_code=1)) == [("wrong_type", "result_code")]
    assert faults(CASE, case(event_type="case.decided", **told)) == []
    assert "result_set" in check(CASE, case(event_type="case.decided")).faults[0].mend


@pytest.mark.parametrize("kind", ["case.special_started", "case.special_ended"])
def test_an_extension_sent_as_a_special_procedure_is_refused_and_told_how_to_be_sent(kind: str) -> None:
    found = check(CASE, case(event_type=kind, special_kind_code="EXTEND")).faults
    assert [(f.reason, f.field) for f in found] == [("rule_failed", "special_kind_code")]
    assert found[0].mend.startswith("send case.extended")
    assert faults(CASE, case(event_type=kind, special_kind_code="EXPERT")) == []
    assert faults(CASE, case(event_type="case.extended", special_kind_code="EXTEND")) == []


def test_a_behaviour_is_not_reported_before_it_happened() -> None:
    row = {
        "event_type": "behaviour.inspected",
        "behaviour_no": "B1",
        "occurred_at": 1_601_023_800_000,
        "reported_at": 1_601_023_799_999,
    }
    assert faults(BEHAVIOUR, row) == [("report_before_check", "reported_at")]
    assert faults(BEHAVIOUR, row | {"reported_at": 1_601_023_800_000}) == []


@pytest.mark.parametrize(
    ("promise", "statutory", "expected"),
    [
        ((30.0, "1"), (20.0, "1"), [("rule_failed", "promise_limit")]),
        ((20.0, "1"), (20.0, "1"), []),
        ((2.0, "5"), (59.0, "2"), [("rule_failed", "promise_limit")]),
        ((2.0, "5"), (60.0, "2"), []),
        ((30.0, "1"), (20.0, "2"), []),  # working days and days have no common unit without a calendar
        ((36.0, "3"), (5.0, "1"), [("rule_failed", "promise_limit")]),  # hours are those of offices, seven a day
        ((35.0, "3"), (5.0, "1"), []),
        ((2101.0, "4"), (5.0, "1"), [("rule_failed", "promise_limit")]),
        ((5.0, "1"), (34.0, "3"), [("rule_failed", "promise_limit")]),
        ((36.0, "3"), (5.0, "2"), []),
    ],
)
def test_a_promise_is_not_longer_than_the_law_allows(
    promise: tuple[float, str], statutory: tuple[float, str], expected: list[tuple[str, str]]
) -> None:
    row = item(
        promise_limit=promise[0],
        promise_unit_code=promise[1],
        statutory_limit=statutory[0],
        statutory_unit_code=statutory[1],
    )
    assert faults(ITEM, row) == expected


@pytest.mark.parametrize(
    ("kind", "promise", "expected"),
    [
        ("1", (1.0, "1"), [("rule_failed", "promise_limit")]),
        ("1", (1.0, "5"), [("rule_failed", "promise_limit")]),
        ("1", (0.5, "1"), []),
        ("1", (4.0, "3"), []),
        ("2", (1.0, "1"), []),
    ],
)
def test_what_is_done_on_the_spot_is_not_promised_in_days(
    kind: str, promise: tuple[float, str], expected: list[tuple[str, str]]
) -> None:
    row = item(promise_limit=promise[0], promise_unit_code=promise[1], kind_set="gbt39046.case-kind", kind_code=kind)
    assert faults(ITEM, row) == expected


@pytest.mark.parametrize("number", [10**400, -(10**400), float("inf"), float("nan"), True, "3"])
def test_a_number_is_a_finite_one(number: Any) -> None:
    assert faults(ITEM, item(promise_limit=number)) == [("wrong_type", "promise_limit")]


@pytest.mark.parametrize(
    "changes",
    [
        {"promise_limit": -1.0},
        {"promise_limit": 10_001.0},
        {"promise_limit": 20.0, "statutory_limit": 10.0},  # no unit is working days
        {"steps": [{"step_name": "审查", "step_limit": -1.0, "step_unit_code": "2"}]},
    ],
)
def test_an_item_by_which_no_case_could_be_judged_is_refused(changes: dict[str, Any]) -> None:
    assert faults(ITEM, item(**changes)) == [("rule_failed", "promise_limit")]


def calendar(**changes: Any) -> dict[str, Any]:
    row = {
        "event_type": "calendar.published",
        "occurred_at": "2019-11-21 09:00:00",
        "region": "000000",
        "year": 2020,
        "revision": 1,
        "calendar_version": "2020-r1",
        "source": "国办发明电〔2019〕16号",
        "days": [{"day": "2020-10-01", "working": False, "name": "国庆节"}],
    }
    return row | changes


def open_from(*sessions: tuple[int, int]) -> dict[str, Any]:
    return {"from_on": "2020-01-01", "sessions": [{"opens": opens, "closes": closes} for opens, closes in sessions]}


DAY = {"day": "2020-10-01", "working": True, "name": ""}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"year": 0}, "year"),
        ({"year": -1}, "year"),
        ({"year": 20_200}, "year"),
        ({"days": [{**DAY, "day": "2021-10-01"}]}, "days"),
        ({"days": [DAY, {**DAY, "working": False}]}, "days"),
        ({"hours": [open_from((720, 540))]}, "hours"),
        ({"hours": [open_from((540, 720), (700, 1020))]}, "hours"),
        ({"hours": [open_from((-1, 720))]}, "hours"),
        ({"hours": [open_from((540, 1441))]}, "hours"),
    ],
)
def test_what_is_no_calendar_is_refused(changes: dict[str, Any], field: str) -> None:
    assert faults(CALENDAR, calendar(**changes)) == [("bad_format", field)]


@pytest.mark.parametrize("sessions", [((0, 1440),), ((540, 720), (720, 1020)), ((840, 1050), (510, 720))])
def test_what_is_a_calendar_is_accepted(sessions: tuple[tuple[int, int], ...]) -> None:
    assert faults(CALENDAR, calendar(hours=[open_from(*sessions)])) == []


def test_the_level_in_an_item_code_is_the_level_of_its_body() -> None:
    assert faults(ITEM, item(body_level_code="4")) == []
    assert faults(ITEM, item(body_level_code="3")) == [("bad_item_code", "item_code")]


def licence(**changes: Any) -> dict[str, Any]:
    row = {
        "event_type": "licence.issued",
        "occurred_at": "2020-09-25 16:50:00",
        "licence_version": 1,
        "licence_id": "1.2.156.3005.2.11100000MBDEM90013001.11430903MBDEM012XT.HS20200000000000001.001.J",
        "type_code": "11100000MBDEM90013001",
        "issuer_code": "11430903MBDEM012XT",
        "licence_no": "HS20200000000000001",
        "status_set": "ministry.licence-status",
        "status_code": "01",
        "origin_code": "INCREMENT",
    }
    return row | changes


def test_the_family_of_a_licence_is_derived_where_it_is_left_out() -> None:
    record = check(LICENCE, licence()).record
    assert record["family"] == "11100000MBDEM90013001/11430903MBDEM012XT/HS20200000000000001"
    assert faults(LICENCE, licence(family="another/family/1")) == [("bad_format", "family")]


def test_a_holder_is_checked_by_the_kind_of_its_document() -> None:
    kind = {"holder_id_type_set": "gat2000.156"}
    person = check(LICENCE, licence(**kind, holder_id_type_code="111", holder_id="43090319000101004x"))
    assert (person.faults, person.record["holder_id"]) == ([], "43090319000101004X")
    assert person.notes == ["holder_id: letters were turned to capitals"]
    body = licence(**kind, holder_id_type_code="001", holder_id="91430903MADEMA019A")
    assert faults(LICENCE, body) == [("bad_uscc", "holder_id")]


@pytest.mark.parametrize("kind", ["", "112"])
def test_the_number_of_any_document_is_kept_in_capitals_as_it_is_looked_up(kind: str) -> None:
    told = {"holder_id_type_set": "gat2000.156" if kind else "", "holder_id_type_code": kind}
    finding = check(LICENCE, licence(**told, holder_id="43090319000101004x"))
    assert (finding.faults, finding.record["holder_id"]) == ([], "43090319000101004X")


def test_stock_licences_may_be_older_than_the_systems_but_not_without_end() -> None:
    old = {"event_type": "licence.backfilled", "origin_code": "STOCK"}
    assert faults(LICENCE, licence(**old, occurred_at="1995-06-01 00:00:00")) == []
    assert faults(LICENCE, licence(**old, occurred_at="1989-06-01 00:00:00")) == [
        ("bad_event_time", "occurred_at")
    ]


def test_a_broken_licence_identifier_is_refused() -> None:
    assert faults(LICENCE, licence(licence_id=licence()["licence_id"][:-1] + "K")) == [
        ("bad_licence_id", "licence_id")
    ]


TYPE, ISSUER, MINISTRY = "11100000MBDEM90013001", "11430903MBDEM012XT", "11100000MBDEM90013"


def test_the_type_of_a_licence_in_small_letters_is_the_same_type_and_family() -> None:
    finding = check(LICENCE, licence(type_code=TYPE.lower()))
    assert (finding.faults, finding.record["family"]) == ([], check(LICENCE, licence()).record["family"])
    assert finding.notes == ["type_code: letters were turned to capitals"]


@pytest.mark.parametrize("code", ["x", TYPE[:-1], TYPE + "1", TYPE[:-1] + "照"])
def test_a_type_code_that_is_none_is_refused(code: str) -> None:
    assert faults(LICENCE, licence(type_code=code)) == [("bad_format", "type_code")]


def identified(kind: str = TYPE, issuer: str = ISSUER, version: int = 1) -> str:
    return people.licence_id(kind, issuer, "HS20200000000000001", version)


@pytest.mark.parametrize(
    ("changes", "differing"),
    [
        ({"licence_version": 7}, "licence_version"),
        ({"issuer_code": MINISTRY}, "issuer_code"),
        ({"type_code": TYPE[:-1] + "2"}, "type_code"),
        ({"licence_id": identified("1" * 21, "11430903MBDEM0138T", 2)}, "type_code, issuer_code, licence_version"),
        ({"origin_code": "STOCK", "licence_version": 7}, "licence_version"),
        ({"origin_code": "STOCK", "type_code": TYPE[:-1] + "2"}, "type_code"),
    ],
)
def test_a_licence_identifier_names_the_type_issuer_and_version_of_its_row(
    changes: dict[str, Any], differing: str
) -> None:
    (fault,) = check(LICENCE, licence(**changes)).faults
    assert (fault.reason, fault.field) == ("bad_licence_id", "licence_id")
    assert fault.text == f"names another {differing}"


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer_code": ISSUER.lower()},
        {"licence_version": 12, "licence_id": identified(version=12).lower()},
        {"issuer_code": "430903"},
        {"licence_id": identified(issuer="430903")},
        {"origin_code": "STOCK", "issuer_code": MINISTRY},  # re-numbered by another body (DOMAIN §6.5)
    ],
)
def test_an_issuer_may_be_told_by_its_region_and_of_stock_be_another(changes: dict[str, Any]) -> None:
    assert faults(LICENCE, licence(**changes)) == []


BACKFILL = {"event_type": "licence.backfilled", "origin_code": "STOCK"}


@pytest.mark.parametrize("told", [{}, {"event_type": "licence.revoked", "status_code": "03"}, BACKFILL])
def test_of_a_department_s_licences_only_it_and_the_data_authority_tell(told: dict[str, Any]) -> None:
    for sender, expected in (("HS-SCJGJ", []), ("HS-XZSPJ", []), ("HS-ZRZYJ", ["not_entitled"])):
        for issuer in (ISSUER, ISSUER.lower()):
            finding = validator(LICENCE, sender, "430903").check(licence(issuer_code=issuer, **told), RECEIVED)
            assert [f.reason for f in finding.faults] == expected


@pytest.mark.parametrize("issuer", [MINISTRY, "430903"])
def test_an_issuer_that_is_no_department_here_has_any_sender(issuer: str) -> None:
    row = licence(issuer_code=issuer, licence_id=identified(issuer=issuer))
    assert validator(LICENCE, "HS-ZRZYJ", "430903").check(row, RECEIVED).faults == []


def test_who_names_the_issuer_as_sender_is_refused_all_the_same() -> None:
    finding = validator(LICENCE, "HS-ZRZYJ", "430903").check(licence(department="HS-SCJGJ"), RECEIVED)
    assert [f.reason for f in finding.faults] == ["envelope_mismatch"]


@pytest.mark.parametrize("version", [0, -3])
def test_the_versions_of_a_licence_begin_with_one(version: int) -> None:
    assert ("bad_format", "licence_version") in faults(LICENCE, licence(licence_version=version))


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        ("2022-01-01", "2020-01-01", [("rule_failed", "valid_to_on")]),
        ("2022-01-01", "2022-01-01", []),
        ("2022-01-01", "长期", []),
        (None, "2020-01-01", []),
    ],
)
def test_a_licence_does_not_end_before_it_begins(first: str, last: str, expected: list[tuple[str, str]]) -> None:
    assert faults(LICENCE, licence(valid_from_on=first, valid_to_on=last)) == expected


def test_a_part_of_a_list_that_is_wrong_is_named_by_its_place() -> None:
    row = {
        "event_type": "resource.registered",
        "resource_code": "306012/000045",
        "occurred_at": "2020-09-25 16:50:00",
        "items": [{"name": "姓名"}, {"data_type": "C"}],
    }
    (fault,) = check(RESOURCE, row).faults
    assert (fault.reason, fault.field, fault.text) == ("missing_field", "items", "at 1: lacks name")


def resource(**changes: Any) -> dict[str, Any]:
    row = {
        "event_type": "resource.registered", "resource_code": "306012/000045", "occurred_at": "2020-09-25 16:50:00",
        "share_type_code": "1",
    }  # fmt: skip
    return row | changes


@pytest.mark.parametrize("code", ["306012/000045", "106012/1", "206012AB0123456789CDEFGHIJ/99999999", "306012ab/1"])
def test_a_resource_is_named_by_class_and_sequence(code: str) -> None:
    finding = check(RESOURCE, resource(resource_code=code))
    assert (finding.faults, finding.record["resource_code"]) == ([], code.upper())


@pytest.mark.parametrize(
    "code", ["不是代码", "306012", "906012/1", "30601/1", "306012/", "306012/A", "306012/123456789", "306012-1/1"]
)
def test_what_is_no_resource_code_is_refused(code: str) -> None:
    assert faults(RESOURCE, resource(resource_code=code)) == [("bad_format", "resource_code")]


def test_a_refusal_to_share_gives_its_reason() -> None:
    assert faults(RESOURCE, resource(event_type="resource.refused", reason=" ")) == [("missing_reason", "reason")]
    assert faults(RESOURCE, resource(event_type="resource.refused", reason="涉及国家秘密")) == []


@pytest.mark.parametrize(
    ("name", "code", "sound"),
    [
        ("supervision_item_code", "01310010010000", True),
        ("supervision_item_code", "0131001001000", False),
        ("supervision_item_code", "0131001001000A", False),
        ("checklist_code", "11430903MBDEM012XT400001", True),
        ("checklist_code", "11430903MBDEM012XT600001", False),
        ("checklist_code", "11430903MBDEM012YT400001", False),
        ("checklist_code", "zz", False),
    ],
)
def test_the_codes_of_supervision_have_their_shapes(name: str, code: str, sound: bool) -> None:
    row = {"event_type": "behaviour.inspected", "behaviour_no": "B1", "occurred_at": "2020-09-25 16:50:00", name: code}
    assert faults(BEHAVIOUR, row) == ([] if sound else [("bad_format", name)])


@pytest.mark.parametrize("kind", ["registered", "updated"])
@pytest.mark.parametrize("share", ["2", "3"])
def test_what_is_shared_on_a_condition_or_not_at_all_says_why(kind: str, share: str) -> None:
    row = resource(event_type=f"resource.{kind}", share_type_code=share)
    assert faults(RESOURCE, row) == [("missing_field", "share_condition")]
    assert faults(RESOURCE, row | {"share_condition": "  "}) == [("missing_field", "share_condition")]
    assert faults(RESOURCE, row | {"share_condition": "依申请审核"}) == []


@pytest.mark.parametrize(
    "changes", [{}, {"share_type_code": ""}, {"event_type": "resource.granted", "share_type_code": "2"}]
)
def test_no_condition_is_needed_to_share_freely_or_where_no_resource_is_described(changes: dict[str, Any]) -> None:
    assert faults(RESOURCE, resource(**changes)) == []


@pytest.mark.parametrize("topic", INBOUND, ids=lambda t: t.name)
def test_every_example_of_the_contracts_is_accepted_by_the_publisher(topic: Topic) -> None:
    import json

    paths = sorted((HERE / topic.name).glob("*.json"))
    assert len(paths) >= 3
    for path in paths:
        row = json.loads(path.read_text(encoding="utf-8"))
        row.pop("received_at", None)
        region = "430903" if row["region"] == "000000" else row["region"]
        found = validator(topic, row["department"], region).check(row, 1_893_456_000_000)
        assert (path.stem, found.faults) == (path.stem, [])


@pytest.mark.parametrize(("last", "expected"), [(2.0, []), (2.5, [("rule_failed", "steps")])])
def test_the_steps_together_are_not_longer_than_the_promise(last: float, expected: list[tuple[str, str]]) -> None:
    limits = (("受理审核", 1.0), ("现场核查", 2.0), ("决定", last))
    steps = [{"step_name": name, "step_limit": limit, "step_unit_code": "1"} for name, limit in limits]
    row = item(promise_limit=5.0, promise_unit_code="1", statutory_limit=None, statutory_unit_code="", steps=steps)
    assert faults(ITEM, row) == expected


def test_a_step_that_leaves_out_what_has_a_default_is_judged_and_stored_with_it() -> None:
    finding = check(ITEM, item(steps=[{"step_name": "受理", "step_limit": 1.0}, {"step_name": "决定"}]))
    assert finding.faults == []
    assert finding.record["steps"] == [
        {"step_name": "受理", "step_limit": 1.0, "step_unit_code": "1"},
        {"step_name": "决定", "step_limit": 0, "step_unit_code": "1"},
    ]
    late = [{"step_name": "受理", "step_limit": 6.0}]
    assert faults(ITEM, item(steps=late)) == [("rule_failed", "steps")]


@pytest.mark.parametrize("name", ["case_no", "item_code", "reason", "department", "region"])
def test_half_a_character_is_a_fault_of_its_field(name: str) -> None:
    assert ("bad_format", name) in faults(CASE, case(**{name: "\ud800"}))
