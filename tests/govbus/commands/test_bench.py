"""``govbus bench ratings``, small: the report has the shape that others rely on, and its figures are real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from govbus.cli import build

pytestmark = pytest.mark.stack
EVENTS = 5_000


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, dict[str, Any]]:
    """Exit code and report of a small run; it starts a Kafka and a PostgreSQL of its own, and downloads nothing."""
    command = [sys.executable, "-m", "govbus.cli", "bench", "ratings", "--events", str(EVENTS), "--rounds", "1"]
    command += ["--peers", "stock_faust", "--json"]
    home = {**os.environ, "GOVBUS_HOME": str(tmp_path_factory.mktemp("home"))}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env=home, cwd=Path(__file__).parents[3]
    )
    assert done.stdout, done.stderr[-2000:]
    return done.returncode, json.loads(done.stdout)


def test_the_report_holds_what_others_rely_on(told: tuple[int, dict[str, Any]]) -> None:
    _, report = told
    assert {"name", "rounds", "ours", "peers", "ratios", "limits", "targets", "spread", "not_run"} <= set(report)
    assert (report["name"], report["events"], report["rounds"]) == ("ratings", EVENTS, 1)
    assert {"rate", "rate_from_start", "rate_with_uploads"} <= set(report["ours"])
    assert set(report["limits"]) == {"consume", "decode", "copy_with_primary_key", "copy_without_key"}


def test_every_figure_was_measured(told: tuple[int, dict[str, Any]]) -> None:
    _, report = told
    rates = [*report["peers"]["stock_faust"].values(), *report["limits"].values()]
    rates += [value for name, value in report["ours"].items() if "cpu" not in name]
    assert all(rate > 0 for rate in rates)
    assert report["peers"]["stock_faust"]["events"] == EVENTS
    assert report["ours"]["cells"] <= EVENTS


def test_with_uploads_every_rating_is_said_once_beside_alerts_and_rollups(
    told: tuple[int, dict[str, Any]],
) -> None:
    _, report = told
    assert report["ours"]["outbox_with_uploads"] >= EVENTS + report["ours"]["alerts"]


def test_a_target_against_a_peer_that_did_not_run_is_not_met(told: tuple[int, dict[str, Any]]) -> None:
    code, report = told
    assert [met for text, met in report["targets"].items() if "Kafka Streams" in text] == [None]
    assert code == 1


@pytest.mark.parametrize("arguments", [["nothing"], ["ratings", "--peers", "nobody"]])
def test_what_there_is_not_is_named_before_anything_is_started(arguments: list[str]) -> None:
    done = CliRunner().invoke(build(), ["bench", *arguments])
    assert "there is no" in str(done.exception)


def test_all_benchmarks_and_peers_are_listed() -> None:
    listed = CliRunner().invoke(build(), ["bench", "--list"]).output
    benches = "ratings cases licences publishing replay timers latency recovery idle growth workers"
    for name in benches.split():
        assert f"benchmark\t{name}\t" in listed
    for name in ("stock_faust", "kafka_streams_exactly_once", "quixstreams", "pathway"):
        assert f"peer\t{name}\t" in listed
