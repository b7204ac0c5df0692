"""What departments write is shown as they wrote it, by every command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import govbus
from consumers.directory.view import Hit
from consumers.reconcile import Difference, Report
from govbus import recount
from govbus.commands import (
    bench,
    calendar,
    chaos,
    clock,
    demo,
    directory,
    indicators,
    licence,
    publish,
    reconcile,
    rollup,
    schemas,
    stack,
    topics,
)
from govbus.screen import console
from schemas.errors import Fault, Rejected
from schemas.evolution import Finding
from streams.rules.indicators import Figure
from streams.store.indicators import Chosen
from streams.store.indicators import Report as Figures

ODD = "人口库[/旧]的[draft] :dog:"
AT = "2021-03-01T10:15:00+08:00"
FAULT = {"reason": "bad_row", "field": ODD, "text": ODD, "mend": ODD}


def entry() -> Hit:
    told = dict.fromkeys(("resource_code", "title", "department", "share_type_code", "share_condition"), ODD)
    return Hit(1, "FRESH", {**told, "disputed": True})


def licences() -> list[dict[str, Any]]:
    names = ("licence_id", "type_name", "licence_version", "holder_name", "holder_id", "standing", "origin")
    return [{**dict.fromkeys(names, ODD), "valid_to_on": None, "disputed": False}]


def differences() -> Report:
    return Report({ODD: {"published": 1}}, differences=[Difference(ODD, ODD, ODD, ODD, ODD, ODD)], forged=[ODD])


def days() -> dict[str, Any]:
    day = {"day": ODD, "working": False, "name": ODD}
    return {"calendar_version": ODD, "outcome": ODD, "days": [day], "faults": [FAULT]}


def effects() -> dict[str, Any]:
    moved = {"case_no": ODD, "department": ODD, "clock": ODD, "subject": ODD, "due_before": AT, "due_after": AT,
             "provisional_before": True, "provisional_after": True}  # fmt: skip
    card = {"case_no": ODD, "department": ODD, "colour": ODD, "rule_id": ODD, "issued_at": AT, "revoked_at": AT}
    return {"version": ODD, "received_at": AT, "looked_at": 1, "pending": 1, "clocks": [moved], "cards": [card]}


def applied() -> dict[str, Any]:
    line = {"clock": "step", "step": ODD, "on_time": True, "stopped": AT, "pauses": [], "opened": AT, "due": AT,
            "yellow_at": AT, "counted_minutes": 1, "limit": 1, "unit": "1", "provisional": True,
            "days": [{"day": ODD, "minutes": 1}]}  # fmt: skip
    card = {"colour": ODD, "rule_id": ODD, "issued_at": AT, "revoked_at": AT, "revoked_reason": ODD}
    part = {"case_no": ODD, "department": ODD, "status": ODD}
    to_come = {"name": ODD, "department": ODD, "limit": 1, "unit": "1", "item_code": ODD}
    return {"case_no": ODD, "status": ODD, "department": ODD, "clocks": [line], "cards": [card], "parts": [part],
            "planned": [to_come]}  # fmt: skip


def ratings() -> dict[str, Any]:
    counts = dict.fromkeys(("n5", "n4", "n3", "n2", "n1", "total", "defaults"), 1)
    return {"item": ODD, "department": ODD, **counts, "good_rate": None, "bad_rate": None}


def figures() -> Figures:
    return Figures("id", 0, Chosen(("item",)), {}, {(ODD,): {"red_cards": Figure(1.0)}})


def refused() -> publish.Report:
    report = publish.Report("service.rating.v1", ODD, False, False)
    report.refuse(Rejected(Fault("bad_row", ODD, ODD, ODD)))
    return report


def measured() -> dict[str, Any]:
    return {"name": ODD, "events": 1, "rounds": 1, "ours": {}, "peers": {}, "limits": {}, "spread": {}, "ratios": {},
            "not_run": {ODD: ODD}, "targets": {ODD: True}}  # fmt: skip


def demonstrated() -> dict[str, Any]:
    return {"cards": {ODD: 1}, "latency_ms": {"p50": 1, "p99": 1, "samples": 1, "rate": 1}, "bad_ratings": 1,
            "receipts": {"batches": 1, "records": 1}, "faults": {ODD: 1}, "faults_expected": {}, "seconds": 1,
            "oracle_differences": [ODD], "ok": False}  # fmt: skip


SHOWN: dict[str, tuple[Callable[[], None], int]] = {
    "directory": (lambda: directory.show([entry()]), 5),
    "licence": (lambda: licence._table(licences()), 7),
    "reconcile": (lambda: reconcile.show(differences()), 8),
    "calendar load": (lambda: calendar._show_days(days()), 7),
    "calendar effects": (lambda: calendar._show(effects()), 9),
    "clock": (lambda: clock._show_applied(applied()), 14),
    "rollup": (lambda: rollup._table(("item", "department"), [ratings()]), 2),
    "indicators show": (lambda: indicators._print(figures(), False), 1),
    "indicators recount": (
        lambda: indicators._differences(console(), [recount.Difference(ODD, ODD, ODD, ODD)]), 4
    ),
    "publish": (lambda: refused().show(), 3),
    "schemas": (lambda: schemas._show([Finding(ODD, ODD, ODD, ODD, ODD)]), 5),
    "topics": (lambda: topics._say({}, False, [ODD]), 1),
    "stack": (
        lambda: stack._show([{"name": ODD, "running": True, "address": ODD, "pid": 1, "log": ODD}], False, [ODD]), 4
    ),
    "chaos": (
        lambda: chaos._show({"kills": {"clean": True, "text": ODD, "target": ODD, ODD: ODD, "more": {ODD: ODD}}}), 6
    ),
    "bench": (lambda: bench._show(measured()), 4),
    "demo": (lambda: demo._summary(console(), demonstrated()), 3),
}  # fmt: skip
"""What prints, and how often it has such a text to show."""


@pytest.mark.parametrize(("show", "times"), SHOWN.values(), ids=SHOWN)
def test_texts_with_brackets_are_shown_whole_wherever_they_stand(
    show: Callable[[], None], times: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    show()
    assert capsys.readouterr().out.count(ODD) == times


def test_no_command_has_a_console_of_another_kind() -> None:
    root = Path(govbus.__file__).parent
    assert [p.name for p in root.rglob("*.py") if "Console(" in p.read_text()] == ["screen.py"]
