"""The directory entry of a resource: expectations of DOMAIN §7.5, typed by hand."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from schemas import codesets
from streams.rules import catalogue

DAY = 86_400_000


def event(kind: str, at: int, **more: Any) -> dict[str, Any]:
    """A resource event; ``at`` is its time in ms and, being unique here, its id."""
    return {
        "event_id": f"{at:05}", "event_type": f"resource.{kind}", "occurred_at": at, "received_at": at + 1,
        "region": "430903", "department": "HS-SLJ", "resource_code": "306012/000045", "record_count": None,
        "request_no": "", "requester": "", "items": [], **dict.fromkeys(catalogue.TEXTS, ""), **more,
    }  # fmt: skip


def entry(*events: dict[str, Any]) -> dict[str, Any]:
    made = catalogue.fold(events)
    assert made is not None
    return made


def test_a_resource_that_nobody_registered_has_no_entry() -> None:
    assert catalogue.fold([event("requested", 1)]) is None


@pytest.mark.parametrize(
    ("cycle", "expected", "broken"),
    [
        ("DAILY", 2 * DAY, 3 * DAY),
        ("WEEKLY", 8 * DAY, 15 * DAY),
        ("MONTHLY", 31 * DAY + 267_840_000, 62 * DAY + 267_840_000),
        ("REALTIME", 900_000, 1_800_000),
        ("IRREGULAR", None, None),
        ("", None, None),
    ],
)
def test_an_update_is_expected_a_cycle_and_its_grace_later_and_broken_after_two(
    cycle: str, expected: int | None, broken: int | None
) -> None:
    assert catalogue.due(cycle, 0) == (expected, broken)


def test_a_heartbeat_without_change_is_an_update() -> None:
    made = entry(event("registered", 1, update_cycle_code="DAILY"), event("heartbeat", 500, record_count=0))
    assert (made["last_update_at"], made["record_count"], made["entry_version"]) == (500, 0, 2)


def test_an_open_objection_disputes_until_it_is_closed() -> None:
    told = [event("registered", 1), event("objection_raised", 5, request_no="Q1")]
    assert entry(*told)["disputed"] is True
    assert entry(event("objection_closed", 6, request_no="Q1"), *told)["disputed"] is False
    assert entry(event("objection_closed", 6, request_no="Q2"), *told)["disputed"] is True


def test_a_withdrawn_resource_comes_back_when_registered_again() -> None:
    told = [event("registered", 1), event("withdrawn", 5)]
    assert entry(*told)["withdrawn"] is True
    assert entry(*told, event("registered", 9))["withdrawn"] is False


def test_a_condition_belongs_to_the_share_type_it_was_told_for() -> None:
    told = [event("registered", 1, share_type_code="2", share_condition="仅限办案")]
    shown = [(e["share_type_code"], e["share_condition"]) for e in (
        entry(*told, event("updated", 5, share_type_code="1")),
        entry(*told, event("updated", 5, share_type_code="3")),
        entry(*told, event("updated", 5, share_type_code="1"), event("updated", 9, share_type_code="2")),
    )]  # fmt: skip
    assert shown == [("1", ""), ("3", ""), ("2", "")]


def test_an_update_that_repeats_the_share_type_or_leaves_it_out_keeps_the_condition() -> None:
    told = [event("registered", 1, share_type_code="2", share_condition="仅限办案")]
    for later, expected in (
        ({"share_type_code": "2"}, "仅限办案"),
        ({}, "仅限办案"),
        ({"share_condition": "依申请审核"}, "依申请审核"),
    ):
        assert entry(*told, event("updated", 5, **later))["share_condition"] == expected


def test_departments_that_use_one_number_do_not_close_each_others_objection() -> None:
    told = [event("registered", 1)]
    told += [event("objection_raised", at, request_no="1", requester=name) for at, name in ((5, "甲局"), (6, "乙局"))]
    one = event("objection_closed", 7, request_no="1", requester="甲局")
    assert entry(*told, one)["disputed"] is True
    assert entry(*told, one, event("objection_closed", 8, request_no="1", requester="乙局"))["disputed"] is False


def test_who_names_no_requester_means_his_own_department() -> None:
    told = [event("registered", 1)]
    told += [event("objection_raised", at, request_no="1", department=d) for at, d in ((5, "HS-GAFJ"), (6, "HS-MZJ"))]
    assert entry(*told, event("objection_closed", 7, request_no="1", department="HS-GAFJ"))["disputed"] is True


def test_a_provider_that_does_not_say_whose_objection_closes_all_of_the_number() -> None:
    told = [event("registered", 1), event("objection_raised", 5, request_no="1", requester="甲局")]
    assert entry(*told, event("objection_closed", 7, request_no="1"))["disputed"] is False
    assert entry(*told, event("objection_closed", 7, request_no="2", requester="甲局"))["disputed"] is True


# --- one data, one source: whose word about a resource counts (DOMAIN §7.1) ---

OWN = [event("registered", 10, title="水质", update_cycle_code="DAILY"), event("heartbeat", 20, record_count=7)]
SHOWN = "title", "department", "region", "last_update_at", "record_count", "withdrawn", "disputed"


def shown(*events: dict[str, Any]) -> list[Any]:
    """What the entry shows, the same in whatever order the events came."""
    (same,) = {tuple(entry(*order)[name] for name in SHOWN) for order in permutations(events)}
    return list(same)


@pytest.mark.parametrize("kind", ["registered", "updated", "heartbeat", "withdrawn"])
def test_what_another_department_says_of_a_resource_changes_nothing(kind: str) -> None:
    for at in (15, 30):
        other = event(kind, at, department="HS-JTJ", region="430902", title="路况", record_count=0)
        assert shown(*OWN, other) == ["水质", "HS-SLJ", "430903", 20, 7, False, False]
        assert entry(*OWN, other)["entry_version"] == 3


def test_another_department_neither_brings_a_withdrawn_resource_back_nor_begins_it_with_a_heartbeat() -> None:
    gone = event("withdrawn", 30)
    assert shown(*OWN, gone, event("registered", 40, department="HS-JTJ"))[5] is True
    assert shown(*OWN, event("heartbeat", 5, department="HS-JTJ", record_count=0)) == shown(*OWN)
    assert catalogue.fold([event("heartbeat", 5, department="HS-JTJ")]) is None


def test_the_data_authority_may_describe_and_withdraw_any_resource_which_stays_its_owners() -> None:
    by = {"department": "HS-XZSPJ", "region": "430900"}
    corrected = event("updated", 30, title="水质监测", record_count=8, **by)
    assert shown(*OWN, corrected) == ["水质监测", "HS-SLJ", "430903", 30, 8, False, False]
    assert shown(*OWN, corrected, event("withdrawn", 40, **by))[5] is True


def test_anybody_may_ask_for_a_resource_or_object_to_it_but_tells_nothing_of_its_size() -> None:
    asked = event("requested", 30, department="HS-JTJ", record_count=0)
    objected = event("objection_raised", 31, department="HS-JTJ", request_no="1", record_count=0)
    assert shown(*OWN, asked, objected) == ["水质", "HS-SLJ", "430903", 20, 7, False, True]


def test_a_resource_belongs_to_whom_first_described_it_also_if_that_is_heard_later() -> None:
    earlier = event("registered", 5, department="HS-JTJ", title="路况", received_at=99)
    assert shown(*OWN, earlier) == ["路况", "HS-JTJ", "430903", 5, None, False, False]


def test_what_the_data_authority_registers_for_a_provider_is_the_providers() -> None:
    provider = codesets.departments()["HS-SLJ"].uscc
    by = {"department": "HS-XZSPJ", "title": "水质", "update_cycle_code": "DAILY"}
    first = event("registered", 10, provider_code=provider, **by)
    assert shown(first, event("heartbeat", 20, record_count=7)) == ["水质", "HS-SLJ", "430903", 20, 7, False, False]
    assert shown(event("registered", 10, provider_code="elsewhere", **by))[1] == "HS-XZSPJ"
