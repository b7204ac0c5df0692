"""Reads a department's file into rows: JSON Lines, CSV (UTF-8 or GB18030) and XLSX, in bounded memory.

Decides what is one row and which Python values its cells mean; the validator judges them. A file that cannot
be read as a whole (empty, wrong encoding, columns not of the contract) is refused with every fault, before
anything is published. One bad line costs only itself.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import json
import re
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any, Protocol
from xml.etree.ElementTree import ParseError

from schemas import bounds, contracts
from schemas.errors import Fault, Rejected
from schemas.topics import Topic

LINE_CHARACTERS = 1024 * 1024
"""The longest line that is read whole; a record is at most 256 KiB of Avro."""
KEPT_CHARACTERS = 64 * 1024
"""How much of a longer line its dead letter keeps."""
SCAN_BYTES = 1024 * 1024
UNPACKED_BYTES = 1024 * 1024 * 1024
"""The most an XLSX may unpack to."""
EXACT_NUMBER = 10**15
"""Spreadsheets keep 15 digits; a longer number in a cell has already lost its last ones."""
SEPARATOR = "^"
"""Between the items of a list in one cell (DOMAIN §6.3)."""
SUFFIXES: Mapping[str, str] = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".xlsx": "xlsx",
}  # fmt: skip
NOT_CALCULATED = "#GETTING_DATA"
"""A formula whose value a workbook does not hold; a spreadsheet shows this while it waits for one."""
_ERROR = ("is an error of the spreadsheet, not a value", "correct its formula, or clear the cell")
NO_VALUE: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys(
        ("#NULL!", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#N/A", "#SPILL!", "#CALC!"), _ERROR
    ),
    NOT_CALCULATED: ("is a formula, and the file does not hold its value", "open the file in Excel and save it once"),
}
"""Cells that a spreadsheet has in the place of a value: what they are, and the mend."""
SHOWN = re.compile(r"-?[0-9](\.[0-9]+)?E\+[0-9]{2,3}|#{3,}")
"""A number as a spreadsheet shows it where its column is narrow, and writes it into a CSV: 1.14309E+42, ####."""
SHOWN_ONLY = ("is a number of which the spreadsheet wrote only what it showed",
              "format the column as text and fill it in again")  # fmt: skip
HAN = re.compile("[\u3000-\u9fff\uff00-\uffef]")
"""Chinese characters and their punctuation, three bytes each in UTF-8: no text in GB18030 that makes sense reads so."""
TRUE, FALSE = frozenset({"true", "1", "是", "yes", "y"}), frozenset({"false", "0", "否", "no", "n"})


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A line that is no row: what is wrong (and ``more``), and its bytes (the beginning, if it is too long to keep)."""

    fault: Fault
    original: bytes
    more: tuple[Fault, ...] = ()

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Everything that is wrong with it."""
        return (self.fault, *self.more)


Row = Mapping[str, Any] | Unreadable
Numbered = tuple[int, Row]
"""Line in the text file, or row of the sheet, counted from 1; and what stands there."""
Line = tuple[int, str | Unreadable]


class Source(Protocol):
    """An opened file. ``done`` of ``total`` say how far reading has come, in a unit of the format's own."""

    total: int

    @property
    def done(self) -> int:
        """How far reading has come."""

    def rows(self) -> Iterator[Numbered]:
        """The rows, once."""


def open_rows(path: Path, topic: Topic, encoding: str = "utf-8") -> Source:
    """Open ``path`` by its suffix; raises ``Rejected`` with every fault of the file as a whole.

    ``encoding`` is ``utf-8`` (with or without a byte order mark) or ``gb18030``; it does not concern XLSX.
    """
    kind = SUFFIXES.get(path.suffix.lower())
    if kind is None:
        known = ", ".join(sorted(SUFFIXES))
        raise Rejected(Fault("bad_format", "", f"the file's ending {path.suffix!r} is not known", f"use {known}"))
    try:
        with path.open("rb") as file:
            first = file.read(1)
    except FileNotFoundError:
        raise Rejected(Fault("bad_format", "", f"there is no file {path}", "check the name")) from None
    except OSError as error:
        why = error.strerror or type(error).__name__
        told = f"the file cannot be read: {why}"
        raise Rejected(Fault("bad_format", "", told, "check its rights and name")) from None
    if not first:
        raise Rejected(Fault("bad_row", "", "the file is empty", "check the export that made it"))
    if kind == "xlsx":
        return Workbook(path, topic)
    _must_decode(path, encoding)
    if kind == "csv":
        return CsvFile(path, encoding, topic)
    _must_be_lines(path, encoding)
    return JsonLines(path, encoding)


# --- encoding -----------------------------------------------------------------------------------------------


def _must_decode(path: Path, encoding: str) -> None:
    """Refuse a file that is not text in ``encoding``, naming the encoding it seems to be in."""
    if _decodes(path, encoding):
        if encoding == "gb18030" and _decodes(path, "utf-8", HAN):
            mend = "publish it without --encoding"
            raise Rejected(Fault("not_utf8", "", "the file is UTF-8, which reads as other characters in GB18030", mend))
        return
    if encoding != "gb18030" and _decodes(path, "gb18030"):
        mend = "export it as UTF-8, or publish with --encoding gb18030"
        raise Rejected(Fault("not_utf8", "", "the file is not UTF-8; it reads as GB18030", mend))
    raise Rejected(Fault("not_utf8", "", f"the file is not text in {encoding}", "export it as UTF-8"))


def _decodes(path: Path, encoding: str, holds: re.Pattern[str] | None = None) -> bool:
    """Whether the file is text in ``encoding``; with ``holds`` only if that is found in it."""
    decoder, found = codecs.getincrementaldecoder(encoding)(), holds is None
    with path.open("rb") as file:
        try:
            while piece := file.read(SCAN_BYTES):
                text = decoder.decode(piece)
                if "\x00" in text:
                    return False  # UTF-16, or no text at all
                found = found or bool(holds and holds.search(text))
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    return found


def _must_be_lines(path: Path, encoding: str) -> None:
    """Refuse one JSON document over many lines: each of them would be a row that is none, and a dead letter."""
    with path.open(encoding="utf-8-sig" if encoding == "utf-8" else encoding) as file:
        while (start := file.readline(LINE_CHARACTERS)) and not start.strip():
            continue
    if start.lstrip().startswith("[") or start.strip() == "{":
        mend = "write each object on a line of its own (JSON Lines), for instance by jq -c"
        raise Rejected(Fault("bad_row", "", "the file is one JSON document, not one object a line", mend))


# --- lines --------------------------------------------------------------------------------------------------


class Lines:
    """Lines of a text file, none held in memory beyond ``LINE_CHARACTERS``."""

    def __init__(self, path: Path, encoding: str) -> None:
        self._path = path
        self._encoding = "utf-8-sig" if encoding == "utf-8" else encoding
        self._raw: io.BufferedReader | None = None
        self.total = path.stat().st_size

    @property
    def done(self) -> int:
        """Bytes read so far."""
        return self._raw.tell() if self._raw and not self._raw.closed else 0

    def __iter__(self) -> Iterator[Line]:
        with (
            self._path.open("rb") as self._raw,
            io.TextIOWrapper(self._raw, self._encoding, newline=None) as text,
        ):
            number = 0
            while line := text.readline(LINE_CHARACTERS):
                number += 1
                if len(line) < LINE_CHARACTERS or line.endswith("\n"):
                    yield number, line
                else:
                    yield number, _too_long(line, text)


def _too_long(head: str, text: io.TextIOWrapper) -> Unreadable:
    """Read past the rest of a line that is too long; its digest stands for what is not kept."""
    digest, length, part = hashlib.sha256(), 0, head
    while part:
        digest.update(part.encode())
        length += len(part)
        part = "" if part.endswith("\n") else text.readline(LINE_CHARACTERS)
    fault = Fault(
        "too_large", "", f"the line has {length} characters, at most {LINE_CHARACTERS} are read", "split it"
    )
    return Unreadable(
        fault, head[:KEPT_CHARACTERS].encode() + b"\nsha256 of the line: " + digest.hexdigest().encode()
    )


# --- JSON Lines ---------------------------------------------------------------------------------------------


class JsonLines:
    """One JSON object a line; blank lines are passed over."""

    def __init__(self, path: Path, encoding: str) -> None:
        self._lines = Lines(path, encoding)
        self.total = self._lines.total

    @property
    def done(self) -> int:
        """Bytes read so far."""
        return self._lines.done

    def rows(self) -> Iterator[Numbered]:
        """The rows, once."""
        for number, line in self._lines:
            if isinstance(line, Unreadable):
                yield number, line
            elif line.strip():
                yield number, json_row(line)


def json_row(line: str) -> Row:
    """The row that a line of JSON is."""
    try:
        row = json.loads(line, object_pairs_hook=_object, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        where = f" at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else ""
        return _unreadable(line, f"is not a JSON object{where}", "write one object a line, in UTF-8")
    if not isinstance(row, dict):
        return _unreadable(line, "is not a JSON object", "write one object a line")
    if bounds.too_deep(row):
        return _unreadable(line, f"is nested over {bounds.DEEPEST} levels", "write the fields of the contract")
    return row


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a name stands twice in an object")
    return made


def _no_constant(_: str) -> Any:
    raise ValueError("NaN and Infinity are not JSON")


def _unreadable(line: str, text: str, mend: str) -> Unreadable:
    return Unreadable(Fault("bad_row", "", text, mend), line.rstrip("\r\n").encode())


# --- tables -------------------------------------------------------------------------------------------------


class Table:
    """Columns of a table against a contract, and what a cell's text means there."""

    def __init__(self, topic: Topic, header: Iterable[object]) -> None:
        self.names = [str(cell).strip() if cell is not None else "" for cell in header]
        fields = contracts.field_specs(topic)
        _must_fit(topic, self.names, fields)
        self._meanings = [_meaning(fields[name]["type"]) for name in self.names]
        self._type_at = self.names.index("event_type")
        self._types = frozenset(fields["event_type"]["event_types"])

    def row(self, cells: list[Any]) -> Row | None:
        """The row's values; empty cells are left out, None if all are empty.

        It is unreadable if a spreadsheet has lost the value of a cell.
        """
        filled, lost = {}, []
        for name, meaning, cell in zip(self.names, self._meanings, cells, strict=True):
            if cell is not None and (not isinstance(cell, str) or (cell := cell.strip())):
                filled[name] = meaning(cell)
                if isinstance(cell, str) and (cell[0] == "#" or "E+" in cell) and (why := _lost(cell)):
                    lost.append(Fault("bad_format", name, *why))
        return Unreadable(lost[0], _line_of(cells), tuple(lost[1:])) if lost else filled or None

    def is_row(self, cells: list[str]) -> bool:
        """Whether ``cells`` are surely a row: as many as the header has, and an event type where it belongs."""
        return len(cells) == len(self.names) and cells[self._type_at].strip() in self._types

    def names_a_type(self, line: str) -> bool:
        """Whether a cell of ``line``, whatever its quotes mean, is an event type."""
        return any(cell.strip('" \n') in self._types for cell in line.split(","))


def _lost(cell: str) -> tuple[str, str] | None:
    """What a spreadsheet has put in the place of the cell's value, and the mend; None if it is a value."""
    return NO_VALUE.get(cell) or (SHOWN_ONLY if SHOWN.fullmatch(cell) else None)


def _must_fit(topic: Topic, names: list[str], fields: Mapping[str, Mapping[str, Any]]) -> None:
    from connectors.validate import filled_by_the_bus, shown

    mend = "the first row holds the field names of the contract, separated by commas"
    faults = [
        Fault("unknown_field", shown(n), "the contract has no such column", mend)
        for n in names
        if n not in fields
    ]
    faults += [
        Fault("bad_row", shown(n), "the column stands twice", "leave one of the two out")
        for n in sorted({n for n in names if names.count(n) > 1})
    ]
    left_out = [n for n, f in fields.items() if "default" not in f and n not in names]
    faults += [
        Fault("missing_field", n, "the column is required", "add the column; its first cell is the field's name")
        for n in left_out
        if n not in filled_by_the_bus(topic)
    ]
    if faults:
        raise Rejected(*faults)


def _meaning(kind: Any) -> Callable[[Any], Any]:
    """How a cell of this Avro type is read; what does not fit stays as it is, for the validator to name."""
    if isinstance(kind, list):
        (kind,) = [k for k in kind if k != "null"]
    if isinstance(kind, dict):
        if kind["type"] == "array":
            return _list_of_objects if isinstance(kind["items"], dict) else _list_of_texts
        if kind.get("logicalType") == "date":
            return _day
        return _as_it_is if "logicalType" in kind else _meaning(kind["type"])
    return {"int": _whole, "long": _whole, "double": _number, "boolean": _truth, "string": _words}.get(
        kind, _as_it_is
    )


def _as_it_is(cell: Any) -> Any:
    return cell


def _day(cell: Any) -> Any:
    """A sheet holds days as midnights."""
    return cell.date() if isinstance(cell, datetime) else cell


def _words(cell: Any) -> Any:
    """Numbers of a sheet that stand for codes become text, unless the sheet has already cut their digits."""
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    exact = isinstance(cell, int) and not isinstance(cell, bool) and abs(cell) < EXACT_NUMBER
    return str(cell) if exact else cell


def _whole(cell: Any) -> Any:
    if isinstance(cell, str):
        return int(cell) if re.fullmatch(r"[+-]?[0-9]{1,19}", cell) else cell
    return int(cell) if isinstance(cell, float) and cell.is_integer() else cell


def _number(cell: Any) -> Any:
    if isinstance(cell, str) and re.fullmatch(r"[+-]?([0-9]{1,300}(\.[0-9]*)?|\.[0-9]+)", cell):
        return float(cell)
    return cell


def _truth(cell: Any) -> Any:
    text = str(cell).lower()
    return True if text in TRUE else False if text in FALSE else cell


def _list_of_texts(cell: Any) -> Any:
    text = _words(cell)
    return [part.strip() for part in text.split(SEPARATOR) if part.strip()] if isinstance(text, str) else cell


def _list_of_objects(cell: Any) -> Any:
    try:
        read = json.loads(cell, object_pairs_hook=_object, parse_constant=_no_constant)
    except (ValueError, TypeError, RecursionError):
        return cell
    return cell if bounds.too_deep(read) else read


# --- CSV ----------------------------------------------------------------------------------------------------


class CsvFile:
    """RFC 4180 with a header of field names; a quoted cell may hold line breaks.

    A quote counts where a cell begins with it; elsewhere it is a character like any other, as in 19" of a screen.
    """

    def __init__(self, path: Path, encoding: str, topic: Topic) -> None:
        self._lines = Lines(path, encoding)
        self.total = self._lines.total
        self._ahead = _Lookahead(self._lines)
        csv.field_size_limit(LINE_CHARACTERS)  # of the whole process; its own 131,072 would refuse a longer cell
        _, header = next(self._ahead, (0, None))
        if not isinstance(header, str):
            raise Rejected(Fault("bad_row", "", "the file has no header that can be read"))
        self._table = Table(topic, _cells(header))

    @property
    def done(self) -> int:
        """Bytes read so far."""
        return self._lines.done

    def rows(self) -> Iterator[Numbered]:
        """The rows, once."""
        for number, cells in self._read():
            if isinstance(cells, Unreadable):
                yield number, cells
            elif not any(cells):
                continue
            elif len(cells) != len(self._table.names):
                yield number, self._uneven(cells)
            elif (row := self._table.row(cells)) is not None:
                yield number, row

    def _uneven(self, cells: list[str]) -> Unreadable:
        text = f"has {len(cells)} cells, the header has {len(self._table.names)}"
        return Unreadable(Fault("bad_row", "", text, "quote cells that hold commas or line breaks"), _line_of(cells))

    def _read(self) -> Iterator[tuple[int, list[str] | Unreadable]]:
        """Records with the number of their first line."""
        for number, line in self._ahead:
            if isinstance(line, Unreadable):
                yield number, line
            elif '"' in line:
                yield number, self._quoted(line)
            else:
                yield number, line.rstrip("\n").split(",")

    def _quoted(self, line: str) -> list[str] | Unreadable:
        """The record that begins in ``line``. Where its quotes do not fit, the lines after it begin records anew."""
        inside: list[Line] = []
        try:
            return next(csv.reader(chain((line,), self._inside(line, inside)), strict=True, skipinitialspace=True))
        except csv.Error:
            self._ahead.give_back(inside)
            return _misquoted(line, inside)

    def _inside(self, first: str, taken: list[Line]) -> Iterator[str]:
        """The lines that a quoted cell goes on in, ``first`` having left it open; ends at one that can be none."""
        length = len(first)
        for number, line in self._ahead:
            taken.append((number, line))
            length += len(line) if isinstance(line, str) else LINE_CHARACTERS
            if not isinstance(line, str) or length > LINE_CHARACTERS or self._is_row(line, first):
                return
            yield line

    def _is_row(self, line: str, first: str) -> bool:
        """Whether a line inside a quoted cell is a row, so that the quote in ``first`` is a stray one.

        A line of a text may look like a row too, by its commas: but then ``first`` names no event type yet. A row may
        hold stray quotes of its own, so its commas alone are asked as well.
        """
        table, split = self._table, line.rstrip("\r\n").split(",")
        return (table.is_row(_cells(line)) or table.is_row(split[: len(table.names)])) and table.names_a_type(first)


class _Lookahead:
    """Lines of a file; those that were read too far are given back and come again."""

    def __init__(self, lines: Lines) -> None:
        self._lines = iter(lines)
        self._back: deque[Line] = deque()

    def __iter__(self) -> Iterator[Line]:
        return self

    def __next__(self) -> Line:
        return self._back.popleft() if self._back else next(self._lines)

    def give_back(self, lines: list[Line]) -> None:
        """Let ``lines``, the last that were read, come again."""
        self._back.extendleft(reversed(lines))


def _cells(line: str) -> list[str]:
    """The cells of a line taken by itself; a quote that is left open ends with it."""
    return next(csv.reader((line,), skipinitialspace=True), [])


def _misquoted(line: str, inside: list[Line]) -> Unreadable:
    seen = f", seen in line {inside[-1][0]}; the lines after this one are read by themselves" if inside else ""
    text = f"a quoted cell is never closed, or a quote inside it is not doubled{seen}"
    return _unreadable(line, text, "close the cell, and double the quotes inside it")


def _line_of(cells: list[Any]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue().encode()


# --- XLSX ---------------------------------------------------------------------------------------------------


NO_WORKBOOK = Fault(
    "bad_format", "", "the file is not an XLSX workbook, is damaged, or is locked with a password", "save it as .xlsx"
)
BROKEN = (
    ParseError, zlib.error, zipfile.BadZipFile, ValueError, LookupError, EOFError, OSError, RuntimeError, TypeError,
    AttributeError,
)  # fmt: skip
"""What reading a damaged workbook may end with."""


class Workbook:
    """The first sheet of an XLSX; its first row holds the field names."""

    def __init__(self, path: Path, topic: Topic) -> None:
        sheet = _first_sheet(path)
        self._name = path.name
        self.total = sheet.max_row or 0
        sheet.reset_dimensions()  # a sheet may say that it is smaller than it is: what lies beyond would not be read
        self._at = 0
        self._cells = _rows_of(sheet)
        header = self._header()
        if not header:
            raise Rejected(Fault("bad_row", "", "the first sheet is empty", "put the rows on the first sheet"))
        self._table = Table(topic, header)

    def _header(self) -> list[Any]:
        try:
            number, header = next(self._cells, (0, []))
        except BROKEN:
            raise Rejected(NO_WORKBOOK) from None
        if number != 1:
            return []
        while header and header[-1] is None:
            header.pop()
        return header

    @property
    def done(self) -> int:
        """Rows read so far."""
        return self._at

    def rows(self) -> Iterator[Numbered]:
        """The rows, once."""
        width = len(self._table.names)
        for number, cells in self._read():
            self._at = number
            if isinstance(cells, Unreadable):
                yield number, cells
                continue
            if any(cell is not None for cell in cells[width:]):
                fault = Fault(
                    "bad_row",
                    "",
                    "has cells beyond the last named column",
                    "name the column or clear the cells",
                )
                yield number, Unreadable(fault, _line_of(cells))
                continue
            padded = [*cells[:width], *[None] * (width - len(cells))]
            if (row := self._table.row(padded)) is not None:
                yield number, row

    def _read(self) -> Iterator[tuple[int, list[Any] | Unreadable]]:
        """Rows with their number. Where the sheet is broken the reading ends: what stood before is read already."""
        number = 1
        try:
            for number, cells in self._cells:
                yield number, cells
        except BROKEN:
            yield number + 1, self._broken_after(number)

    def _broken_after(self, number: int) -> Unreadable:
        text = f"the sheet is broken after row {number}; the rest of it is not read"
        fault = Fault("bad_row", "", text, "save the workbook anew and publish it again")
        return Unreadable(fault, f"{self._name}, after row {number}".encode(errors="replace"))


def _rows_of(sheet: Any) -> Iterator[tuple[int, list[Any]]]:
    from connectors.intake import sheet as parser  # here: openpyxl takes long to load, and few files need it

    return parser.rows(sheet)


def _first_sheet(path: Path) -> Any:
    import openpyxl

    try:
        with zipfile.ZipFile(path) as packed:
            if sum(entry.file_size for entry in packed.infolist()) > UNPACKED_BYTES:
                told = f"the workbook unpacks to over {UNPACKED_BYTES >> 30} GiB"
                raise Rejected(Fault("too_large", "", told, "split it"))
            # a part's checksum is seen at its end only: by then rows with wrong cells would stand on the bus
            if packed.testzip() is not None:
                raise Rejected(NO_WORKBOOK)
        return openpyxl.load_workbook(path, read_only=True, data_only=True).worksheets[0]
    except BROKEN:
        raise Rejected(NO_WORKBOOK) from None
