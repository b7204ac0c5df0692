"""``govbus bench ratings``, small: the report has the shape that others rely on, and its figures are real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.stack
EVENTS = 5_000


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, dict[str, Any]]:
    """Exit code and report of a small run; it starts a Kafka and a PostgreSQL of its own."""
    command = [sys.executable, "-m", "govbus.cli", "bench", "ratings", "--events", str(EVENTS), "--rounds", "1"]
    command.append("--json")
    home = {**os.environ, "GOVBUS_HOME": str(tmp_path_factory.mktemp("home"))}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env=home, cwd=Path(__file__).parents[3]
    )
    assert done.stdout, done.stderr[-2000:]
    return done.returncode, json.loads(done.stdout)


def test_the_report_holds_what_others_rely_on(told: tuple[int, dict[str, Any]]) -> None:
    _, report = told
    assert {"name", "rounds", "ours", "peers", "ratios", "limits", "targets"} <= set(report)
    assert (report["name"], report["events"], report["rounds"]) == ("ratings", EVENTS, 1)
    assert {"rate", "rate_from_start", "rate_with_uploads"} <= set(report["ours"])
    assert set(report["limits"]) == {"consume", "decode", "copy_with_primary_key"}


def test_every_figure_was_measured(told: tuple[int, dict[str, Any]]) -> None:
    _, report = told
    figures = [*report["ours"].values(), *report["peers"]["stock_faust"].values(), *report["limits"].values()]
    assert all(figure > 0 for figure in figures)
    assert report["peers"]["stock_faust"]["events"] >= EVENTS
    assert report["ours"]["cells"] <= EVENTS


def test_with_uploads_every_rating_is_said_once_beside_alerts_and_rollups(
    told: tuple[int, dict[str, Any]],
) -> None:
    _, report = told
    assert report["ours"]["outbox_with_uploads"] >= EVENTS + report["ours"]["alerts"]


def test_the_exit_code_says_whether_the_targets_were_met(told: tuple[int, dict[str, Any]]) -> None:
    code, report = told
    assert code == (0 if all(report["targets"].values()) else 1)
