"""Code sets: what the standards say, and which of them contradict each other."""

from __future__ import annotations

import pytest
from stdnum.cn import uscc

from schemas import codesets
from schemas.contracts import event_types
from schemas.topics import TOPICS


@pytest.mark.parametrize("set_id", codesets.ids())
def test_a_set_says_its_id_title_source_and_translates_every_code_to_a_known_one(set_id: str) -> None:
    loaded = codesets.load(set_id)

    assert loaded.id == set_id
    assert loaded.title
    assert len(loaded.source) > 10
    assert loaded.values
    assert set(loaded.canonical) == set(loaded.values)
    assert all(codesets.known(loaded.canonical_set, code) for code in loaded.canonical.values())


def test_the_best_rating_is_1_in_the_national_standard_and_5_on_the_platform() -> None:
    assert codesets.canonical("gbt39046.satisfaction", "1") == "5"
    assert codesets.canonical("gbt39046.satisfaction", "4") == "2"
    assert codesets.canonical("platform.satisfaction", "5") == "5"
    assert (
        codesets.name("gbt39046.satisfaction", "1")
        == codesets.name("platform.satisfaction", "5")
        == "非常满意"
    )


def test_the_same_digit_is_another_channel_in_the_two_sets() -> None:
    assert codesets.canonical("gbt39046.channel", "1") == "WINDOW"
    assert codesets.canonical("platform.channel", "1") == "PC"
    assert codesets.from_canonical("platform.channel", "PHONE") == "6"
    assert codesets.from_canonical("platform.channel", "POST") is None


def test_the_two_provincial_result_sets_disagree_on_1_5_and_6() -> None:
    older, newer = (codesets.load(f"province.result-{age}").values for age in ("older", "newer"))

    assert {c for c in older if older[c] != newer[c]} == {"0", "1", "5", "6"}
    assert (older["1"], newer["1"]) == ("退回办结", "不予许可")


def test_an_unknown_set_or_code_is_not_known_and_has_no_translation() -> None:
    assert not codesets.known("govbus.operation", "X")
    assert not codesets.known("govbus.nothing", "I")
    assert codesets.canonical("platform.channel", "8") is None
    assert codesets.canonical("govbus.nothing", "1") is None
    with pytest.raises(KeyError):
        codesets.load("../codesets/govbus.operation")


def test_the_27_departments_have_valid_credit_codes_and_their_aliases() -> None:
    departments = codesets.departments()

    assert len(departments) == 27
    assert len({d.uscc for d in departments.values()}) == 27
    assert all(uscc.is_valid(d.uscc) for d in departments.values())
    assert departments["HS-XZSPJ"].aliases == ("区行政审批局",)
    assert departments["HS-STHJFJ"].aliases == ("生态环境局赫山分局",)
    assert codesets.name("govbus.department", "HS-ZJJ") == "区住建局"


def test_the_first_digit_of_every_tag_is_a_level() -> None:
    tags = codesets.load("platform.eval-detail").values

    assert len(tags) == 40
    assert {level: sum(t[0] == level for t in tags) for level in "12345"} == dict.fromkeys("12345", 8)
    assert tags["110"] == "无理由超过法定办理时间"


def test_the_event_types_of_the_contracts_are_exactly_the_set() -> None:
    told = [kind for t in TOPICS for kind in event_types(t)]

    assert sorted(told) == sorted(codesets.load("govbus.event-type").values)
