"""A year's holidays as typed from the State Council's notice."""

from __future__ import annotations

from pathlib import Path

import pytest

from connectors.intake import notice
from connectors.intake.calendar import different_days
from schemas.errors import Rejected

NOTICE_2020 = """from,to,kind,name
2020-01-01,,休,元旦
2020-01-24,2020-02-02,休,春节
2020-01-19,,班,春节
2020-04-04,2020-04-06,休,清明节
2020-05-01,2020-05-05,休,劳动节
2020-04-26,,班,劳动节
2020-05-09,,班,劳动节
2020-06-25,2020-06-27,休,端午节
2020-06-28,,班,端午节
2020-10-01,2020-10-08,off,国庆节、中秋节
2020-09-27,,work,国庆节、中秋节
2020-10-10,,班,国庆节、中秋节
"""


def days(tmp_path: Path, text: str, year: int = 2020) -> list[tuple[str, bool]]:
    file = tmp_path / "notice.csv"
    file.write_text(text, "utf-8")
    return [(str(d["day"]), d["working"]) for d in notice.days(file, year)]


def test_the_notice_of_2020_gives_the_days_that_the_package_knows(tmp_path: Path) -> None:
    assert days(tmp_path, NOTICE_2020) == [(str(d["day"]), d["working"]) for d in different_days(2020)]


def test_a_spreadsheets_mark_at_the_beginning_and_empty_lines_do_not_matter(tmp_path: Path) -> None:
    assert days(tmp_path, "\ufeff" + NOTICE_2020 + ",,,\n") == days(tmp_path, NOTICE_2020)


def test_since_2025_a_notice_has_the_second_day_of_may(tmp_path: Path) -> None:
    notice_2025 = "from,to,kind,name\n2025-01-01,,休,元旦\n2025-05-01,,休,劳动节\n2025-10-01,2025-10-08,休,国庆节\n"
    with pytest.raises(Rejected) as refused:
        days(tmp_path, notice_2025, 2025)
    assert [f.text for f in refused.value.faults] == ["2025-05-02 is a statutory holiday and not 休 in the file"]


@pytest.mark.parametrize(
    ("change", "reason", "text"),
    [
        (("2020-10-01,2020-10-08", "2020-10-01,2021-10-08"), "bad_row", "not in 2020"),
        (("2020-10-01,2020-10-08", "2020-10-08,2020-10-01"), "bad_row", "before its first day"),
        (("2020-06-25", "2020-06-31"), "bad_format", "not a day that exists"),
        (("2020-01-19,,班", "2020-01-19,,加"), "unknown_code", "neither 休 nor 班"),
        (("2020-01-19,,班", "2020-01-26,,班"), "conflict", "both 休 and 班"),
        (("2020-05-01,2020-05-05", "2020-05-04,2020-05-05"), "bad_row", "2020-05-01 is a statutory holiday"),
        (("from,to,kind", "from,kind,to2"), "missing_field", "is no column"),
    ],
)
def test_what_no_notice_can_say_is_refused_with_its_line(
    tmp_path: Path, change: tuple[str, str], reason: str, text: str
) -> None:
    with pytest.raises(Rejected) as refused:
        days(tmp_path, NOTICE_2020.replace(*change))
    first = refused.value.faults[0]
    assert (first.reason, text in first.text) == (reason, True)


def test_a_file_in_another_encoding_is_refused_without_a_traceback(tmp_path: Path) -> None:
    file = tmp_path / "notice.csv"
    file.write_bytes(NOTICE_2020.encode("gb18030"))
    with pytest.raises(Rejected, match="UTF-8"):
        notice.days(file, 2020)
