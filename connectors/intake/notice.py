"""Next year's holidays as a CSV, typed from the State Council's notice (国务院办公厅关于部分节假日安排的通知), into the
days of a ``reference.calendar.v1`` record. Decides whether the file can be what the notice says; publishes nothing.

Columns: ``from``, ``to`` (empty: the same day), ``kind`` (休 or off; 班 or work), ``name``. The file gives whole
holidays as the notice does, weekends among them; only what differs from Mon-Fri is kept.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from schemas.errors import Fault, Rejected
from streams.rules.calendar import defaults

COLUMNS = ("from", "to", "kind", "name")
KINDS = {"休": False, "off": False, "班": True, "work": True}
LONGEST = timedelta(days=15)


def days(path: Path, year: int) -> list[dict[str, Any]]:
    """The days of ``year`` that differ from Mon-Fri, rising; raises ``Rejected`` with every fault of the file."""
    faults: list[Fault] = []
    found: dict[date, tuple[bool, str]] = {}
    for number, row in _rows(path):
        fault = _take(found, number, row, year)
        if fault is not None:
            faults.append(fault)
    faults += [] if faults else _missing(found, year)
    if faults:
        raise Rejected(*faults)
    return [
        {"day": on, "working": working, "name": name}
        for on, (working, name) in sorted(found.items())
        if working != (on.weekday() < 5)
    ]


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = "is not UTF-8" if isinstance(error, UnicodeDecodeError) else "cannot be read"
        raise Rejected(Fault("bad_row", "", f"the file {why}", "save it as CSV in UTF-8")) from None
    reader = csv.DictReader(text.splitlines(), restval="")
    if missing := [c for c in COLUMNS if c not in (reader.fieldnames or ())]:
        raise Rejected(Fault("missing_field", missing[0], "is no column of the file", f"head it {','.join(COLUMNS)}"))
    for number, row in enumerate(reader, 2):
        if any((value or "").strip() for value in row.values() if isinstance(value, str)):
            yield number, row


def _take(found: dict[date, tuple[bool, str]], number: int, row: Mapping[str, str], year: int) -> Fault | None:
    """Note the days of one line; the fault that keeps it from being noted."""
    where = f"line {number}"
    try:
        first = date.fromisoformat(row["from"].strip())
        last = date.fromisoformat(row["to"].strip()) if row["to"].strip() else first
    except ValueError:
        return Fault("bad_format", "from, to", f"{where}: not a day that exists", "write yyyy-MM-dd")
    if first.year != year or last.year != year:
        return Fault("bad_row", "from, to", f"{where}: not in {year}", "give each year its own file")
    if not timedelta(0) <= last - first <= LONGEST:
        return Fault("bad_row", "to", f"{where}: before its first day, or over {LONGEST.days} days", "correct it")
    kind = KINDS.get(row["kind"].strip().lower())
    if kind is None:
        return Fault("unknown_code", "kind", f"{where}: neither 休 nor 班", "write 休 (off) or 班 (work)")
    for offset in range((last - first).days + 1):
        on = first + timedelta(offset)
        if found.setdefault(on, (kind, row["name"].strip()))[0] != kind:
            return Fault("conflict", "kind", f"{where}: {on} is both 休 and 班", "remove one of them")
    return None


def _missing(found: Mapping[date, tuple[bool, str]], year: int) -> list[Fault]:
    """Statutory holidays of fixed date that the file leaves out or has worked: no notice ever did."""
    fixed = sorted(on for on in (date(year, *day) for day in defaults().fixed) if defaults().holiday(on))
    wrong = [on for on in fixed if found.get(on, (on.weekday() < 5, ""))[0]]
    mend = "add it: 全国年节及纪念日放假办法 article 2"
    return [Fault("bad_row", "from", f"{on} is a statutory holiday and not 休 in the file", mend) for on in wrong]
