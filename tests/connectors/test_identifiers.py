"""Identifiers of the domain dossier, §1.4, §1.5, §2.2 and §6.2, typed by hand."""

from __future__ import annotations

import pytest

from connectors.identifiers import (
    check_citizen_id,
    check_issuer,
    check_item_code,
    check_licence_id,
    check_uscc,
)

LICENCE = "1.2.156.3005.2.11100000MBDEM90013001.11430903MBDEM012XT.HS2020000000000000"


@pytest.mark.parametrize(
    "code",
    [
        "91430903MADEMA0194",
        "92430903MADEMA027U",
        "93430903MADEMA035K",
        "52430903MJDEMA046F",
        "54430903MEDEMA0562",
        "11100000000013338W",
        "11430903MBDEM0138T",
    ],
)
def test_a_credit_code_with_a_right_check_character_stays_as_it_is(code: str) -> None:
    assert check_uscc(code) == (code, ())


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("91430903MADEMA019A", "check character"),
        ("91430903IADEMA0194", "without I, O"),
        ("91430903MADEMA019", "has 17"),
        ("91430903MAEDMA0194", "check character"),
        ("", "has 0"),
    ],
)
def test_a_broken_credit_code_is_refused_without_being_repeated(code: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        check_uscc(code)
    assert not code or code not in str(caught.value)


def test_a_credit_code_in_small_letters_is_turned_to_capitals_and_noted() -> None:
    assert check_uscc("91430903madema0194") == ("91430903MADEMA0194", ("letters were turned to capitals",))


def test_a_wrong_inner_check_of_the_organisation_code_is_only_a_note() -> None:
    # organisation code MADEMA01 has check 9, not 8
    code = "91430903MADEMA018" + _outer("91430903MADEMA018")
    value, notes = check_uscc(code)
    assert value == code
    assert notes == ("the organisation code's own check (place 17) does not match",)


def _outer(body: str) -> str:
    """GB 32100-2015, written out: sum of value times 3**i modulo 31."""
    alphabet = "0123456789ABCDEFGHJKLMNPQRTUWXY"
    total = sum(alphabet.index(c) * pow(3, i, 31) for i, c in enumerate(body))
    return alphabet[(31 - total % 31) % 31]


@pytest.mark.parametrize("number", ["430903190001010015", "430903190001010023", "43090319000101004X"])
def test_a_citizen_id_with_right_check_and_date_is_accepted(number: str) -> None:
    assert check_citizen_id(number) == (number, ())


def test_a_citizen_id_of_a_division_younger_than_its_bearer_is_accepted() -> None:
    # 430903 exists since 1994, the bearer was born in 1900 (DOMAIN §1.5)
    assert check_citizen_id("430903190001010015").value == "430903190001010015"


def test_a_small_x_at_the_end_of_a_citizen_id_becomes_a_capital() -> None:
    assert check_citizen_id("43090319000101004x").value == "43090319000101004X"


@pytest.mark.parametrize(
    ("number", "why"),
    [
        ("430903190001010019", "check character"),
        ("430902190002290016", "not a date"),
        ("430903190013010011", "not a date"),
        ("43090319000101001", "has 17"),
        ("43090319000101001A", "17 digits"),
    ],
)
def test_a_broken_citizen_id_is_refused_without_being_repeated(number: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        check_citizen_id(number)
    assert number not in str(caught.value)


@pytest.mark.parametrize("tail", ["1.001.J", "1.002.H", "2.001.3"])
def test_a_licence_identifier_with_its_mod_37_36_character_is_accepted(tail: str) -> None:
    assert check_licence_id(f"{LICENCE}{tail}").value == f"{LICENCE}{tail}"


@pytest.mark.parametrize("tail", ["1.001.K", "1.002.J", "2.001.4"])
def test_a_licence_identifier_with_another_last_character_is_refused(tail: str) -> None:
    with pytest.raises(ValueError, match="check character"):
        check_licence_id(f"{LICENCE}{tail}")


def test_a_licence_identifier_needs_the_national_root() -> None:
    with pytest.raises(ValueError, match=r"starts with 1\.2\.156\.3005\.2"):
        check_licence_id("11100000MBDEM90013001.11430903MBDEM012XT.HS20200000000000001.001.J")


@pytest.mark.parametrize(
    "code", ["11430903MBDEM0138T4000715002000", "11430903MBDEM0138T400071500200001", "0007150020"]
)
def test_item_codes_of_31_33_and_older_lengths_are_accepted(code: str) -> None:
    assert check_item_code(code) == (code, ())


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("11430903MBDEM0138X4000715002000", "USCC"),
        ("11430903MBDEM0138T9000715002000", "level"),
        ("11430903MBDEM0138T400071500200A", "digits"),
        ("1" * 51, "1 to 50"),
        ("区自然资源局", "1 to 50"),
    ],
)
def test_an_item_code_that_contradicts_its_structure_is_refused(code: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        check_item_code(code)


def test_an_issuer_may_still_be_a_region_code() -> None:
    assert check_issuer("430903") == ("430903", ("a region code stands for the issuer",))
