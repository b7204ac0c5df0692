"""What ``govbus reconcile`` says in words."""

from __future__ import annotations

import io

from rich.console import Console

from consumers.reconcile import Difference, Report
from govbus.commands.reconcile import SHOWN, _show_differences


def test_what_json_names_and_what_nobody_names_are_told_apart() -> None:
    found = [Difference(f"event-{n}", "HS-ZJJ", "service.rating.v1", "missing_at", "applied") for n in range(SHOWN + 3)]
    said = io.StringIO()
    _show_differences(Console(file=said, width=200), Report({}, differences=found, unnamed=5))
    assert "and 3 more; --json names them" in said.getvalue()
    assert "and 5 beyond the first 23, named nowhere" in said.getvalue()
