"""Files as departments send them, good and bad."""

from __future__ import annotations

import csv
import re
import shutil
import tempfile
import tracemalloc
import zipfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import xlsxwriter
from hypothesis import given
from hypothesis import strategies as st

from connectors.intake import files
from connectors.intake.files import Unreadable, open_rows
from schemas.errors import Rejected
from schemas.topics import CALENDAR, RATING

COLUMNS = (
    "case_no,event_type,occurred_at,item_code,satisfaction_set,satisfaction_code,channel_set,channel_code"
)
CELLS = "C1,rating.given,2020-09-25 16:50:00,A1,platform.satisfaction,5,platform.channel,4"
ROW = dict(zip(COLUMNS.split(","), CELLS.split(","), strict=True))


def write(tmp_path: Path, name: str, content: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path: Path, encoding: str = "utf-8") -> list[tuple[int, Any]]:
    return list(open_rows(path, RATING, encoding).rows())


def refusals(path: Path, encoding: str = "utf-8") -> list[tuple[str, str]]:
    with pytest.raises(Rejected) as caught:
        open_rows(path, RATING, encoding)
    return [(f.reason, f.field) for f in caught.value.faults]


def sheet(tmp_path: Path, *rows: list[Any]) -> Path:
    path = tmp_path / "ratings.xlsx"
    with xlsxwriter.Workbook(path, {"default_date_format": "yyyy-mm-dd hh:mm:ss"}) as book:
        page = book.add_worksheet()
        for number, cells in enumerate(rows):
            page.write_row(number, 0, cells)
    return path


def test_json_lines_are_numbered_as_in_the_file_and_blank_lines_passed_over(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", '{"case_no": "C1"}\n\n{"case_no": "C2"}\r\n')
    assert read(path) == [(1, {"case_no": "C1"}), (3, {"case_no": "C2"})]


@pytest.mark.parametrize(
    "line",
    ["{", "[1]", "3", '{"a": NaN}', '{"a": 1, "a": 2}', "[" * 100_000, '{"a": ' + "[" * 32 + "1" + "]" * 32 + "}"],
)
def test_a_json_line_that_is_no_object_costs_only_itself(tmp_path: Path, line: str) -> None:
    (first, (_, bad), last) = read(write(tmp_path, "a.jsonl", f'{{"n": 1}}\n{line}\n{{"n": 3}}\n'))
    assert (first, last) == ((1, {"n": 1}), (3, {"n": 3}))
    assert isinstance(bad, Unreadable)
    assert (bad.fault.reason, bad.original) == ("bad_row", line.encode())


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    assert refusals(write(tmp_path, "a.csv", "")) == [("bad_row", "")]


@pytest.mark.parametrize("name", ["x" * 300, "."], ids=["over-long name", "directory"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "..csv").mkdir()
    with pytest.raises(Rejected, match="cannot be read"):
        open_rows(tmp_path / f"{name}.csv", RATING)


def test_a_file_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    assert refusals(write(tmp_path, "a.doc", "x")) == [("bad_format", "")]


def test_a_line_of_fifty_megabytes_is_one_refused_row_and_never_in_memory_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.write(b'{"n": 1}\n{"comment": "')
        for _ in range(50):
            file.write(b"x" * 1_000_000)
        file.write(b'"}\n{"n": 3}\n')
    tracemalloc.start()
    rows = read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [number for number, _ in rows] == [1, 2, 3]
    assert rows[1][1].fault.reason == "too_large"
    assert "50000" in rows[1][1].fault.text
    assert len(rows[1][1].original) < 70_000
    assert rows[2][1] == {"n": 3}
    assert peak < 20_000_000


def test_csv_cells_become_the_contracts_types_and_empty_cells_are_left_out(tmp_path: Path) -> None:
    header = COLUMNS + ",service_no,anonymous,tags,comment,entered_at"
    row = CELLS + ',2,是,510^511,"快, ""很快""",'
    ((number, cells),) = read(write(tmp_path, "a.csv", f"\ufeff{header}\n{row}\n"))
    assert number == 2
    expected = {"service_no": 2, "anonymous": True, "tags": ["510", "511"], "comment": '快, "很快"'}
    assert cells == ROW | expected


def test_a_csv_cell_that_does_not_fit_its_type_is_left_for_the_validator(tmp_path: Path) -> None:
    ((_, cells),) = read(write(tmp_path, "a.csv", f"{COLUMNS},service_no\n{CELLS},two\n"))
    assert cells["service_no"] == "two"


def test_a_quoted_cell_may_hold_line_breaks(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", f'{COLUMNS},comment\n{CELLS},"one\ntwo"\n{CELLS},three\n')
    assert [(n, c["comment"]) for n, c in read(path)] == [(2, "one\ntwo"), (4, "three")]


def test_every_column_that_is_missing_or_unknown_is_told_at_once(tmp_path: Path) -> None:
    header = COLUMNS.replace("case_no,", "").replace("item_code", "item_kode")
    assert refusals(write(tmp_path, "a.csv", f"{header}\n")) == [
        ("unknown_field", "item_kode"),
        ("missing_field", "case_no"),
        ("missing_field", "item_code"),
    ]


def test_a_row_with_too_few_cells_costs_only_itself(tmp_path: Path) -> None:
    rows = read(write(tmp_path, "a.csv", f"{COLUMNS}\nC1,rating.given\n{CELLS}\n"))
    assert (rows[0][0], rows[0][1].fault.reason, rows[0][1].original) == (2, "bad_row", b"C1,rating.given")
    assert rows[1] == (3, ROW)


def commented(tmp_path: Path, *comments: str) -> list[tuple[int, Any]]:
    """A row C1, C2, … for each comment as it stands in the file: line, and comment or fault."""
    rows = "".join(f"{CELLS.replace('C1', f'C{n}')},{comment}\n" for n, comment in enumerate(comments, 1))
    found = read(write(tmp_path, "a.csv", f"{COLUMNS},comment\n{rows}"))
    return [(n, row.fault.reason if isinstance(row, Unreadable) else row["comment"]) for n, row in found]


def test_a_quote_that_is_never_closed_costs_only_its_line(tmp_path: Path) -> None:
    rows = read(write(tmp_path, "a.csv", f'{COLUMNS}\n{CELLS}\n"C2,' + f"{CELLS}\n" * 3))
    assert [n for n, _ in rows] == [2, 3, 4, 5]
    assert "never closed" in rows[1][1].fault.text
    assert "line 4" in rows[1][1].fault.text
    assert rows[1][1].original == f'"C2,{CELLS}'.encode()
    assert rows[2:] == [(4, ROW), (5, ROW)]


def test_a_quote_never_closed_in_the_last_line_is_told(tmp_path: Path) -> None:
    assert commented(tmp_path, "one", '"two') == [(2, "one"), (3, "bad_row")]


def test_quotes_inside_cells_without_quotes_are_characters(tmp_path: Path) -> None:
    comments = ['19" screen', "x", "y", 'a 5" pipe', "z", 'say "hi"']
    assert commented(tmp_path, *comments) == list(enumerate(comments, 2))


@pytest.mark.parametrize("end", ["y", 'y"', '"y', '"y"', 'y "z" y'])
def test_a_stray_quote_before_a_cell_hides_none_of_the_rows_after_it(tmp_path: Path, end: str) -> None:
    after = {'"y': "bad_row", '"y"': "y"}.get(end, end)
    expected = [(2, "one"), (3, "bad_row"), (4, "x"), (5, after), (6, "z")]
    assert commented(tmp_path, "one", '"stray', "x", end, "z") == expected


def test_a_stray_quote_before_the_first_cell_hides_no_row(tmp_path: Path) -> None:
    rows = read(write(tmp_path, "a.csv", f'{COLUMNS}\n"{CELLS}\n{CELLS.replace("C1", "C2" + chr(34))}\n{CELLS}\n'))
    assert [(n, isinstance(row, Unreadable)) for n, row in rows] == [(2, True), (3, False), (4, False)]


def test_line_breaks_in_the_first_cell_are_text(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", f'comment,{COLUMNS}\n"one\n\ntwo",{CELLS}\n"three, ""x""\n",{CELLS}\n')
    assert [(n, row["comment"]) for n, row in read(path)] == [(2, "one\n\ntwo"), (5, 'three, "x"')]


def test_a_line_of_a_text_that_has_a_row_s_commas_stays_text(tmp_path: Path) -> None:
    names = ["case_no", "comment", *(n for n in COLUMNS.split(",") if n != "case_no")]
    cells = dict(zip(COLUMNS.split(","), CELLS.split(","), strict=True))
    row = ",".join(cells[n] for n in names[2:])
    path = write(tmp_path, "a.csv", f'{",".join(names)}\nC-1,"第一行\n很好,谢谢",{row}\nC-2,"一行",{row}\n')
    found = [(n, row["case_no"], row["comment"]) for n, row in read(path)]
    assert found == [(2, "C-1", "第一行\n很好,谢谢"), (4, "C-2", "一行")]


TEXTS = st.lists(st.text(st.sampled_from('好,"\n g'), max_size=12).filter(str.strip), min_size=1, max_size=5)


@given(TEXTS, st.integers(0, 5))
def test_whatever_the_csv_module_writes_is_read_as_it_was_written(texts: list[str], at: int) -> None:
    names = COLUMNS.split(",")
    names.insert(at, "comment")
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "a.csv"
        with path.open("w", newline="") as out:
            writer = csv.writer(out)
            writer.writerow(names)
            for text in texts:
                cells = CELLS.split(",")
                cells.insert(at, text)
                writer.writerow(cells)
        found = [row["comment"] for _, row in read(path)]
    assert found == [text.replace("\r\n", "\n").strip() for text in texts]


def test_a_ditto_mark_in_each_of_two_rows_makes_them_no_one_row(tmp_path: Path) -> None:
    assert commented(tmp_path, '",x', '",x', "z") == [(2, "bad_row"), (3, "bad_row"), (4, "z")]


def test_of_rows_with_stray_quotes_each_looks_no_farther_than_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    rightly = files._cells

    def cells(line: str) -> list[str]:
        looked.append(line)
        return rightly(line)

    monkeypatch.setattr(files, "_cells", cells)
    assert {found for _, found in commented(tmp_path, *['屏幕19","好'] * 300)} == {"bad_row"}
    assert len(looked) < 5 * 300


def test_a_quote_inside_a_quoted_cell_costs_only_its_lines(tmp_path: Path) -> None:
    comments = ['"good "and" fast"', '"one\nsaid "hi"\ntwo"', "x"]
    assert commented(tmp_path, *comments) == [*((n, "bad_row") for n in (2, 3, 4, 5)), (6, "x")]


def test_a_space_before_the_quote_leaves_the_cell_quoted(tmp_path: Path) -> None:
    assert commented(tmp_path, ' "good, but\nslow"', "x") == [(2, "good, but\nslow"), (4, "x")]


def test_a_line_too_long_after_a_stray_quote_costs_only_itself(tmp_path: Path) -> None:
    comments = ["one", '"stray', "y" * 1_100_000, "z"]
    assert commented(tmp_path, *comments) == [(2, "one"), (3, "bad_row"), (4, "too_large"), (5, "z")]


def test_a_quoted_cell_is_read_up_to_a_mebibyte(tmp_path: Path) -> None:
    text = "\n".join(["y" * 1000] * 1100)
    first, *lines, last = commented(tmp_path, f'"{text}"', "z")
    assert first == (2, "bad_row")
    assert lines == [(n, "bad_row") for n in range(3, 1102)]  # none of them has the cells of a row
    assert last == (1102, "z")


@pytest.mark.parametrize("quote", ["", '"'])
def test_a_cell_may_be_as_long_as_its_line(tmp_path: Path, quote: str) -> None:
    assert commented(tmp_path, quote + "y" * 140_000 + quote) == [(2, "y" * 140_000)]


def test_gb18030_text_is_told_clearly_and_read_when_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", f"{COLUMNS},comment\n{CELLS},办得快\n".encode("gb18030"))
    with pytest.raises(Rejected, match="reads as GB18030") as caught:
        open_rows(path, RATING)
    assert (caught.value.reason, "--encoding gb18030" in caught.value.faults[0].mend) == ("not_utf8", True)
    assert read(path, "gb18030")[0][1]["comment"] == "办得快"


@pytest.mark.parametrize("text", ['\n[{"case_no": "c1"}]\n', '{\n  "case_no": "c1"\n}\n', "[\n"])
def test_one_json_document_over_many_lines_is_refused_whole_and_makes_no_row_of_each_line(
    tmp_path: Path, text: str
) -> None:
    with pytest.raises(Rejected, match="one JSON document"):
        read(write(tmp_path, "a.json", text))
    assert read(write(tmp_path, "b.json", '\n{"case_no": "c1"}\n')) == [(2, {"case_no": "c1"})]


def test_utf8_is_not_read_as_other_chinese_because_somebody_says_gb18030(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", f"{COLUMNS},comment\n{CELLS},满意\n")
    assert path.read_text("gb18030").endswith("婊℃剰\n")
    with pytest.raises(Rejected) as caught:
        read(path, "gb18030")
    assert (caught.value.reason, caught.value.faults[0].mend) == ("not_utf8", "publish it without --encoding")
    ascii_only = write(tmp_path, "b.csv", f"{COLUMNS},comment\n{CELLS},good\n")
    assert read(ascii_only, "gb18030")[0][1]["comment"] == "good"


def test_bytes_that_are_no_text_at_all_are_refused(tmp_path: Path) -> None:
    assert refusals(write(tmp_path, "a.csv", "case_no".encode("utf-16"))) == [("not_utf8", "")]


def test_lists_of_objects_stand_as_json_in_a_cell(tmp_path: Path) -> None:
    header = "event_type,occurred_at,year,revision,calendar_version,source,days"
    cell = '"[{""day"": ""2020-01-31"", ""working"": false}]"'
    path = write(
        tmp_path, "a.csv", f"{header}\ncalendar.published,2020-01-27 09:00:00,2020,2,2020-r2,国办,{cell}\n"
    )
    ((_, row),) = open_rows(path, CALENDAR).rows()
    assert not isinstance(row, Unreadable)
    assert (row["year"], row["days"]) == (2020, [{"day": "2020-01-31", "working": False}])


def test_a_sheet_gives_numbers_times_and_codes_as_the_contract_wants_them(tmp_path: Path) -> None:
    at = datetime(2020, 9, 25, 16, 50)  # noqa: DTZ001 - spreadsheets hold no zone
    cells = ["C1", "rating.given", at, "A1", "platform.satisfaction", 5, "platform.channel", "4", 2, True]
    path = sheet(tmp_path, [*COLUMNS.split(","), "service_no", "anonymous"], cells, [None] * 10)
    assert read(path) == [(2, ROW | {"occurred_at": at, "service_no": 2, "anonymous": True})]


def test_a_number_that_a_sheet_has_cut_short_stays_a_number_for_the_validator_to_refuse(
    tmp_path: Path,
) -> None:
    cells = [430903190001010015, *CELLS.split(",")[1:]]
    ((_, row),) = read(sheet(tmp_path, COLUMNS.split(","), cells))
    assert not isinstance(row["case_no"], str)


def test_cells_beyond_the_named_columns_of_a_sheet_are_a_bad_row(tmp_path: Path) -> None:
    ((_, row),) = read(sheet(tmp_path, COLUMNS.split(","), [*CELLS.split(","), None, "stray"]))
    assert row.fault.reason == "bad_row"


def test_a_sheet_with_a_missing_column_is_refused(tmp_path: Path) -> None:
    assert refusals(sheet(tmp_path, COLUMNS.split(",")[1:])) == [("missing_field", "case_no")]


def test_a_file_that_only_claims_to_be_a_workbook_is_refused(tmp_path: Path) -> None:
    assert refusals(write(tmp_path, "a.xlsx", "case_no,event_type")) == [("bad_format", "")]


def damaged(path: Path, damage: Callable[[bytes], bytes]) -> Path:
    """The workbook with another text of its first sheet, packed anew: the archive itself is whole."""
    whole = shutil.move(path, path.with_suffix(".whole"))
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, damage(old.read(name)) if name.endswith("sheet1.xml") else old.read(name))
    return path


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace(b'<row r="900"', b'<row r="nine"'),
        lambda text: text.replace(b'<c r="A900" t="s"><v>', b'<c r="A900" t="s"><v>9999'),
    ],
    ids=["cut off", "a row without a number", "a text that is not there"],
)
def test_a_sheet_that_is_broken_midway_gives_its_rows_and_one_that_says_after_which(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = damaged(sheet(tmp_path, COLUMNS.split(","), *[CELLS.split(",")] * 1999), damage)
    *whole, (number, broken) = read(path)
    assert whole == [(n, ROW) for n in range(2, number)]
    assert 800 < number < 1200
    assert broken.fault.reason == "bad_row"
    assert f"broken after row {number - 1};" in broken.fault.text
    assert broken.original == f"ratings.xlsx, after row {number - 1}".encode()


@pytest.mark.parametrize("size", [b"A1:B2", b"A1:H2"], ids=["columns too", "rows"])
def test_rows_and_cells_beyond_the_size_that_a_sheet_says_it_has_are_read(tmp_path: Path, size: bytes) -> None:
    cells = CELLS.split(",")
    whole = sheet(tmp_path, COLUMNS.split(","), cells, [None] * 8, cells[:-1], [*cells, None, "stray"], cells, [""] * 8)
    path = damaged(whole, lambda text: re.sub(b'<dimension ref="[^"]*"', b'<dimension ref="' + size + b'"', text))
    first, short, (number, stray), last = read(path)
    assert (first, last) == ((2, ROW), (6, ROW))
    assert short == (4, {name: value for name, value in ROW.items() if name != "channel_code"})
    assert (number, stray.fault.reason) == (5, "bad_row")


def test_a_sheet_whose_first_row_is_broken_is_refused(tmp_path: Path) -> None:
    path = damaged(sheet(tmp_path, COLUMNS.split(","), CELLS.split(",")), lambda text: text.partition(b"</row>")[0])
    assert refusals(path) == [("bad_format", "")]


def test_a_workbook_with_one_flipped_byte_is_refused_before_any_row_is_read(tmp_path: Path) -> None:
    path = sheet(tmp_path, COLUMNS.split(","), *[CELLS.split(",")] * 1999)
    with zipfile.ZipFile(path) as packed:
        entry = packed.getinfo("xl/worksheets/sheet1.xml")
    content = bytearray(path.read_bytes())
    content[entry.header_offset + entry.compress_size // 2] ^= 1
    path.write_bytes(content)
    assert refusals(path) == [("bad_format", "")]


def told(row: Any) -> list[tuple[str, str, str]]:
    return [(f.reason, f.field, f.mend) for f in row.faults]


def test_a_formula_without_its_value_is_told_and_not_taken_for_an_empty_cell(tmp_path: Path) -> None:
    path = tmp_path / "ratings.xlsx"
    with xlsxwriter.Workbook(path) as book:
        page = book.add_worksheet()
        page.write_row(0, 0, [*COLUMNS.split(","), "revision", "is_default", "comment"])
        for at in (1, 2, 3):
            page.write_row(at, 0, CELLS.split(","))
        page.write_formula("I2", "=1+0", None, 1)  # with the values that the spreadsheet has computed
        page.write_formula("J2", "=TRUE()", None, True)
        page.write_formula("K2", '=""', None, "")
        page.write_formula("I3", "=1+0", None, "")  # as programs write it, which compute nothing
        page.write_formula("J3", "=TRUE()", None, "")
        page.write_row(4, 0, [None] * 11)
        page.write_formula("A5", "=A2", None, "")
    # an empty text that was computed, as Excel has it
    path = damaged(path, lambda text: text.replace(b'<c r="K2">', b'<c r="K2" t="str">'))
    first, (number, bad), last, (end, only) = read(path)
    assert (first, last) == ((2, ROW | {"revision": 1, "is_default": True}), (4, ROW))
    save = "open the file in Excel and save it once"
    assert (number, told(bad)) == (3, [("bad_format", "revision", save), ("bad_format", "is_default", save)])
    assert (end, told(only)) == (5, [("bad_format", "case_no", save)])


@pytest.mark.parametrize("error", ["#N/A", "#REF!", "#DIV/0!"])
def test_a_cell_that_holds_an_error_is_refused_with_its_name(tmp_path: Path, error: str) -> None:
    path = tmp_path / "ratings.xlsx"
    with xlsxwriter.Workbook(path) as book:
        page = book.add_worksheet()
        page.write_row(0, 0, COLUMNS.split(","))
        page.write_row(1, 0, CELLS.split(","))
        page.write_formula("A2", "=1/0", None, error)
    ((_, row),) = read(path)
    assert told(row) == [("bad_format", "case_no", "correct its formula, or clear the cell")]
    assert row.original == CELLS.replace("C1", error).encode()
    ((_, row),) = read(write(tmp_path, "a.csv", f"{COLUMNS}\n{CELLS.replace('C1', error)}\n"))
    assert told(row) == [("bad_format", "case_no", "correct its formula, or clear the cell")]


@pytest.mark.parametrize("shown", ["1.14309E+42", "1E+15", "#########"])
def test_a_number_that_a_spreadsheet_wrote_as_it_showed_it_is_refused(tmp_path: Path, shown: str) -> None:
    ((_, row),) = read(write(tmp_path, "a.csv", f"{COLUMNS}\n{CELLS.replace('C1', shown)}\n"))
    assert told(row) == [("bad_format", "case_no", "format the column as text and fill it in again")]


@pytest.mark.parametrize("text", ["#1", "E+", "1.1E+1 A", "A1E+42", "2E10", "# N/A"])
def test_a_text_that_only_resembles_a_lost_value_is_a_text(tmp_path: Path, text: str) -> None:
    ((_, row),) = read(write(tmp_path, "a.csv", f"{COLUMNS}\n{CELLS.replace('C1', text)}\n"))
    assert row["case_no"] == text


@pytest.mark.parametrize("value", ["430903199001010015", "E12345678", "王小明"])
def test_of_a_file_without_a_header_no_value_is_told_as_a_column(tmp_path: Path, value: str) -> None:
    path = write(tmp_path, "a.csv", f"C1,{value},rating,{value},E1\n")
    with pytest.raises(Rejected) as caught:
        open_rows(path, RATING, "utf-8")
    assert value not in str(caught.value)
    assert {(f.reason, f.field) for f in caught.value.faults} >= {("bad_row", "?"), ("unknown_field", "?")}
