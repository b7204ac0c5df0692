"""Reads the rows of an XLSX sheet one by one, with the numbers that they have there.

openpyxl gives a formula whose value the file does not hold as an empty cell; here it is ``NOT_CALCULATED``. What a
cell means is ``connectors.intake.files``' to decide.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import Element

from openpyxl.worksheet._reader import FORMULA_TAG, WorkSheetParser

from connectors.intake.files import NOT_CALCULATED


class _Parser(WorkSheetParser):
    def parse_cell(self, element: Element) -> dict[str, Any]:
        cell: dict[str, Any] = super().parse_cell(element)
        if cell["value"] is None and element.get("t") != "str" and element.find(FORMULA_TAG) is not None:
            cell["value"] = NOT_CALCULATED  # of type str it is an empty text, and calculated
        return cell


def rows(sheet: Any) -> Iterator[tuple[int, list[Any]]]:
    """Number and values of every row that ``sheet`` (of a workbook opened read-only) holds; None: an empty cell."""
    book = sheet.parent
    with sheet._get_source() as source:
        parser = _Parser(
            source, sheet._shared_strings, data_only=True, epoch=book.epoch,
            date_formats=book._date_formats, timedelta_formats=book._timedelta_formats,
        )  # fmt: skip
        for number, cells in parser.parse():
            yield number, _values(cells)


def _values(cells: list[dict[str, Any]]) -> list[Any]:
    values = [None] * max((cell["column"] for cell in cells), default=0)
    for cell in cells:
        values[cell["column"] - 1] = cell["value"]
    return values
