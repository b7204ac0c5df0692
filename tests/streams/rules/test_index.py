"""Where a licence stands: expectations of DOMAIN §6.4, §6.5 and narrative 40, typed by hand."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from streams.rules import index


def event(kind: str, at: int, status: str, version: int = 1, origin: str = "INCREMENT", **more: Any) -> dict[str, Any]:
    """A licence event; ``at`` is its effective time and, being unique here, its id."""
    return {
        "event_id": f"{at:05}", "event_type": f"licence.{kind}", "occurred_at": at, "region": "430903",
        "department": "HS-SCJGJ", "family": "T/I/1", "licence_version": version, "licence_id": "1.2",
        "type_code": "T",
        "type_name": "营业执照", "licence_no": "1",
        "status_set": "ministry.licence-status", "status_code": status,
        "origin_code": origin, "holder_name": "", "holder_id": "91430903MADEMA0194", "issued_on": None,
        "valid_from_on": None, "valid_to_on": None, **more,
    }  # fmt: skip


def statuses(*events: dict[str, Any]) -> list[str]:
    return [s.status for s in index.fold(events)]


def test_a_revoked_licence_stays_revoked_when_old_stock_says_it_is_valid() -> None:
    revoked = event("revoked", 50, "03")
    assert statuses(event("issued", 10, "01"), revoked, event("backfilled", 90, "01", origin="STOCK")) == ["REVOKED"]


@pytest.mark.parametrize(("kind", "expected"), [("revoked", "REVOKED"), ("cancelled", "CANCELLED")])
def test_who_ends_a_licence_of_the_stock_ends_it_whatever_increments_there_are(kind: str, expected: str) -> None:
    end = event(kind, 50, "01", origin="STOCK")
    assert statuses(event("issued", 10, "01"), event("suspended", 20, "02"), end) == [expected]


def test_stock_that_is_backfilled_as_ended_does_not_end_what_increments_say_is_valid() -> None:
    assert statuses(event("issued", 10, "01"), event("backfilled", 50, "04", origin="STOCK")) == ["VALID"]


def on(day: str) -> int:
    """Epoch ms of an ISO day's beginning in Asia/Shanghai."""
    return int(datetime.fromisoformat(f"{day}T00:00:00+08:00").timestamp() * 1000)


ISSUED, REVOKED = event("issued", on("2018-05-01"), "01"), event("revoked", on("2021-03-01"), "03")


def late(*days: str | None, **more: Any) -> dict[str, Any]:
    """The second version, backfilled on 1 April 2021: the days of its issue and of its validity."""
    told = {"origin": "STOCK", "issued_on": days[0], "valid_from_on": days[1], **more}
    return event("backfilled", on("2021-04-01"), "01", 2, **told)


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        (("2019-05-01", None), "REVOKED"),
        ((None, "2019-05-01"), "REVOKED"),
        (("2021-03-20", "2021-03-01"), "REVOKED"),
        (("2021-03-02", None), "VALID"),  # issued anew after the end
        ((None, None), "REVOKED"),
    ],
)
def test_a_version_that_is_backfilled_late_began_on_the_earliest_day_it_names(
    days: tuple[str | None, str | None], expected: str
) -> None:
    for origin in ("STOCK", "INCREMENT"):
        told = [ISSUED, REVOKED, late(*days, origin=origin)]
        assert [statuses(*order) for order in (told, told[::-1])] == [["REVOKED", expected]] * 2


def test_what_happens_to_a_backfilled_version_does_not_tell_when_it_began() -> None:
    later = event("suspended", on("2021-05-01"), "02", 2), event("restored", on("2021-06-01"), "01", 2)
    assert statuses(ISSUED, REVOKED, late("2019-05-01", None), *later) == ["REVOKED", "REVOKED"]
    assert statuses(ISSUED, REVOKED, late(None, None), *later) == ["REVOKED", "REVOKED"]


def test_a_version_that_an_increment_granted_after_the_end_stays_valid_whatever_the_stock_says() -> None:
    anew = event("issued", on("2021-03-15"), "01", 2, issued_on="2018-05-01")
    for days in (("2019-05-01", None), (None, None)):
        assert statuses(ISSUED, REVOKED, anew, late(*days)) == ["REVOKED", "VALID"]


def test_of_two_undated_versions_of_the_stock_the_order_of_the_batch_counts() -> None:
    old = event("backfilled", on("2021-03-31"), "03", origin="STOCK")
    assert statuses(old, late(None, None)) == ["REVOKED", "VALID"]
    assert statuses(old, late("2019-05-01", None)) == ["REVOKED", "REVOKED"]


def test_a_licence_of_the_stock_that_was_suspended_is_not_restored_by_another_batch() -> None:
    told = [event("backfilled", 5, "01", origin="STOCK"), event("suspended", 50, "02", origin="STOCK")]
    batch = event("backfilled", 90, "01", origin="STOCK")
    assert statuses(*told, batch) == ["SUSPENDED"]
    assert statuses(*told, batch, event("restored", 95, "01", origin="STOCK")) == ["VALID"]


def test_the_origin_of_a_licence_of_which_there_are_increments_is_increment() -> None:
    (found,) = index.fold([event("issued", 10, "01"), event("revoked", 50, "03", origin="STOCK")])
    assert found.origin == "INCREMENT"


def test_a_new_version_supersedes_the_old_one() -> None:
    assert statuses(event("issued", 10, "01"), event("changed", 20, "01", 2)) == ["SUPERSEDED", "VALID"]


def test_a_suspended_licence_is_valid_again_when_restored() -> None:
    assert statuses(event("issued", 10, "01"), event("suspended", 20, "02")) == ["SUSPENDED"]
    assert statuses(event("issued", 10, "01"), event("suspended", 20, "02"), event("restored", 30, "01")) == ["VALID"]


def test_nothing_of_the_same_version_comes_after_an_end() -> None:
    assert statuses(event("revoked", 20, "03"), event("restored", 30, "01")) == ["REVOKED"]


def test_a_version_that_began_before_the_end_cannot_outlive_it() -> None:
    assert statuses(event("revoked", 50, "03"), event("changed", 40, "01", 2)) == ["REVOKED", "REVOKED"]


@pytest.mark.parametrize(("code", "expected"), [("03", "REVOKED"), ("07", "FORFEITED")])
def test_what_was_wrongly_granted_or_forfeited_leaves_no_later_version(code: str, expected: str) -> None:
    both = event("issued", 10, "01"), event("changed", 20, "01", 2)
    assert statuses(*both, event("revoked", 30, code), event("restored", 40, "01", 2)) == [expected, expected]


@pytest.mark.parametrize(("code", "expected"), [("04", "CANCELLED"), ("06", "TRANSFERRED")])
def test_the_formal_end_of_an_old_version_is_not_that_of_the_new_one(code: str, expected: str) -> None:
    told = [event("issued", 10, "01"), event("changed", 20, "01", 2), event("cancelled", 21, code)]
    assert statuses(*told) == [expected, "VALID"]


def test_the_cancellation_of_the_newest_version_is_that_of_the_licence() -> None:
    told = [event("issued", 10, "01"), event("changed", 20, "01", 2), event("cancelled", 30, "04", 2)]
    assert statuses(*told) == ["CANCELLED", "CANCELLED"]


def test_a_licence_issued_anew_after_the_end_is_valid() -> None:
    assert statuses(event("revoked", 50, "03"), event("issued", 60, "01", 2)) == ["REVOKED", "VALID"]


def test_the_formal_cancellation_after_a_forfeiture_does_not_hide_it() -> None:
    assert statuses(event("revoked", 10, "07"), event("cancelled", 20, "04")) == ["FORFEITED"]


def test_a_revocation_without_a_terminal_status_code_still_revokes() -> None:
    assert statuses(event("issued", 10, "01"), event("revoked", 20, "99")) == ["REVOKED"]


def test_stock_and_increment_that_name_different_holders_are_disputed() -> None:
    issued = event("issued", 10, "01")
    same = event("backfilled", 20, "01", origin="STOCK", holder_id="91430903madema0194")
    other = event("backfilled", 20, "01", origin="STOCK", holder_id="92430903MADEMA027U")
    empty = event("backfilled", 20, "01", origin="STOCK", holder_id="")
    assert [index.fold([issued, e])[0].disputed for e in (same, other, empty)] == [False, True, False]
    assert index.fold([issued, other])[0].holder_id == "91430903MADEMA0194"


# --- a licence of the stock goes on: later increments need not repeat what it said (DOMAIN §6.5) ---

HOLDER = "91430903MADEMA0194"
STOCK = event("backfilled", 5, "01", origin="STOCK", valid_from_on="2010-01-01", valid_to_on="2022-12-31")
BARE: dict[str, Any] = {"holder_id": "", "type_name": "", "licence_id": ""}


def test_a_change_lifts_no_suspension_and_may_tell_of_one() -> None:
    issued, suspended, restored = event("issued", 10, "01"), event("suspended", 20, "02"), event("restored", 40, "01")
    assert statuses(issued, suspended, event("changed", 30, "01")) == ["SUSPENDED"]
    assert statuses(issued, suspended, event("changed", 30, "01"), restored) == ["VALID"]
    assert statuses(issued, suspended, restored, event("changed", 50, "01")) == ["VALID"]
    assert statuses(issued, suspended, restored, event("changed", 50, "02")) == ["SUSPENDED"]
    changed = event("changed", 30, "01", 2)
    assert statuses(issued, suspended, changed) == ["SUPERSEDED", "SUSPENDED"]
    assert statuses(issued, suspended, changed, event("restored", 40, "01", 2)) == ["SUPERSEDED", "VALID"]
    assert statuses(issued, suspended, event("restored", 25, "01"), changed) == ["SUPERSEDED", "VALID"]
    assert statuses(issued, changed, event("suspended", 50, "02")) == ["SUPERSEDED", "VALID"]  # of the old version
    anew = event("issued", 27, "01", 2)
    assert statuses(issued, suspended, anew, event("changed", 30, "01", 3))[-1] == "VALID"


# --- an old paper under a higher version number (DOMAIN §6.4, §6.5) ---


def paper(status: str, day: str | None, **more: Any) -> dict[str, Any]:
    """The second version, as a batch of 1 April 2021 has it."""
    return event("backfilled", on("2021-04-01"), status, 2, origin="STOCK", issued_on=day, **more)


GRANTED = event("issued", on("2018-05-01"), "01")


@pytest.mark.parametrize("day", ["2017-06-01", "2018-05-01", None])
def test_an_old_paper_of_the_stock_neither_ends_nor_supersedes_what_an_increment_granted(day: str | None) -> None:
    assert statuses(GRANTED, paper("01", day)) == ["VALID", "SUPERSEDED"]
    assert statuses(GRANTED, paper("04", day)) == ["VALID", "CANCELLED"]
    assert statuses(GRANTED, paper("03", day)) == ["VALID", "REVOKED"]
    suspended = event("suspended", on("2021-03-01"), "02")
    assert statuses(GRANTED, suspended, paper("01", day)) == ["SUSPENDED", "SUPERSEDED"]


@pytest.mark.parametrize("day", ["2017-06-01", "2019-06-01", None])
def test_a_terminal_status_wins_over_stock_that_is_told_late_under_another_number(day: str | None) -> None:
    cancelled = event("cancelled", on("2021-03-01"), "04")
    assert statuses(GRANTED, cancelled, paper("01", day)) == ["CANCELLED", "CANCELLED"]


def test_stock_that_is_younger_than_the_increment_is_a_version_like_any_other() -> None:
    assert statuses(GRANTED, paper("01", "2019-06-01")) == ["SUPERSEDED", "VALID"]
    assert statuses(GRANTED, event("cancelled", on("2021-03-01"), "04"), paper("01", "2021-03-02"))[-1] == "VALID"


def test_an_old_paper_that_names_another_holder_makes_the_licence_disputed() -> None:
    for holder, disputed in (("91430903madema0194", False), ("92430903MADEMA027U", True), ("", False)):
        found = index.fold([GRANTED, paper("01", "2012-05-01", holder_id=holder)])
        assert [s.disputed for s in found] == [disputed, disputed]


def test_what_is_backfilled_as_an_increment_overwrites_neither_holder_nor_validity() -> None:
    issued = event("issued", 10, "01", valid_to_on="2030-10-11")
    batch = event("backfilled", 90, "01", holder_id="92430903MADEMA027U", valid_to_on="2022-12-31")
    (found,) = index.fold([issued, batch])
    assert (found.holder_id, found.valid_to_on, found.disputed) == (HOLDER, "2030-10-11", True)
    assert [index.fold([e])[0].origin for e in (issued, batch)] == ["INCREMENT", "STOCK"]


@pytest.mark.parametrize("later", [("suspended", "02"), ("restored", "01"), ("revoked", "03"), ("cancelled", "04")])
def test_a_stock_licence_keeps_its_dates_holder_and_type_when_something_happens_to_it(later: tuple[str, str]) -> None:
    (found,) = index.fold([STOCK, event(later[0], 50, later[1], **BARE)])
    assert (found.valid_from_on, found.valid_to_on) == ("2010-01-01", "2022-12-31")
    assert (found.holder_id, found.type_name, found.licence_id) == (HOLDER, "营业执照", "1.2")
    assert (found.origin, found.disputed) == ("INCREMENT", False)


def test_an_increment_that_states_validity_wins_over_stock_whichever_came_last() -> None:
    issued = event("issued", 1, "01", valid_from_on="2020-01-01", holder_id="92430903MADEMA027U")
    (found,) = index.fold([issued, STOCK, event("suspended", 50, "02", **BARE)])
    assert (found.valid_from_on, found.valid_to_on, found.holder_id) == ("2020-01-01", None, "92430903MADEMA027U")


def test_of_stock_without_dates_a_later_increment_may_tell_them() -> None:
    bare = event("backfilled", 5, "01", origin="STOCK")
    restored = event("restored", 60, "01", **BARE)
    told = [bare, event("suspended", 50, "02", valid_to_on="2023-12-31"), restored]
    assert index.fold(told)[0].valid_to_on == "2023-12-31"


def of_stock(*told: tuple[str, int, str]) -> list[dict[str, Any]]:
    return [event(kind, at, status, origin="STOCK") for kind, at, status in told]


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (
            (("backfilled", 5, "01"), ("suspended", 50, "02"), ("restored", 60, "01"), ("backfilled", 90, "07")),
            "FORFEITED",
        ),
        ((("backfilled", 5, "07"), ("restored", 60, "01")), "FORFEITED"),
        ((("backfilled", 5, "01"), ("suspended", 50, "02"), ("backfilled", 90, "04")), "CANCELLED"),
    ],
)
def test_what_became_of_a_licence_of_the_stock_takes_away_no_end_that_the_stock_tells(
    told: tuple[tuple[str, int, str], ...], expected: str
) -> None:
    assert statuses(*of_stock(*told)) == [expected]


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ((("backfilled", 5, "07"), ("restored", 60, "01")), "FORFEITED"),
        ((("backfilled", 5, "07"), ("suspended", 60, "02")), "FORFEITED"),
        ((("backfilled", 5, "07"), ("cancelled", 60, "04")), "FORFEITED"),
        ((("backfilled", 5, "01"), ("suspended", 50, "02"), ("backfilled", 90, "04")), "CANCELLED"),
    ],
)
def test_nor_does_it_where_what_became_of_the_licence_bears_the_origin_of_an_increment(
    told: tuple[tuple[str, int, str], ...], expected: str
) -> None:
    events = [event(k, at, status, origin="STOCK" if k == "backfilled" else "INCREMENT") for k, at, status in told]
    assert statuses(*events) == [expected]


def test_what_is_backfilled_is_stock_whatever_origin_its_sender_gives_it() -> None:
    told = [event("issued", 10, "01"), event("suspended", 20, "02")]
    assert statuses(*told, event("backfilled", 30, "01", origin="INCREMENT")) == ["SUSPENDED"]
