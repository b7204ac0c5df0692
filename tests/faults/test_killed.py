"""Processes die with kill -9 at failpoints and at random moments while a simulated year flows: nothing is lost or
doubled, says an oracle that knows nothing of the product. The long form is `make chaos`.

No wait here is for a length of time: a test fails when nothing at all has moved for two minutes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from connectors.local.postgres import Postgres
from govbus.chaos.ground import Ground, command, environment
from govbus.chaos.kills import OWNERS, kills
from govbus.chaos.stage import stage
from streams.store import failpoints

CASES = 300
PLACES = (
    "publish.after_commit", "relay.after_send", "apply.after_state", "apply.after_commit", "consume.after_cursor",
    "push.after_post", "province.after_commit",
)  # fmt: skip
"""One of every process: where what is done and what is known to be done differ."""
BLAMES = """
import sqlalchemy as sa
from govbus.settings import load
engine = sa.create_engine(load().database_url)
with engine.begin() as tx:
    tx.execute(sa.text("DELETE FROM rating_event WHERE event_id IN (SELECT event_id FROM rating_event LIMIT 1)"))
    tx.execute(sa.text("DELETE FROM alert_inbox WHERE alert_id IN (SELECT alert_id FROM alert_inbox LIMIT 1)"))
    for table, what in {
        "case_event": "digest = gen_random_uuid()", "directory_view": "title = title || '?'",
        "dead_letter": "reason = 'other'", "alert_inbox": "due_at = coalesce(due_at, 0) + 1",
        "rating_out": '"out" = NOT "out"', "rating_cell_merged": "defaults = defaults + 1",
    }.items():
        tx.execute(sa.text(f"UPDATE {table} SET {what} WHERE ctid = (SELECT max(ctid) FROM {table})"))
with sa.create_engine(load().province_database_url).begin() as tx:
    tx.execute(sa.text("UPDATE province_record SET body = body || jsonb_build_object('pf', '?') WHERE event_id = ("
                       "SELECT event_id FROM province_record WHERE kind = 'rating' LIMIT 1)"))
"""
GARBLED = (
    "applied with another content", "entry not as last said", "dead letter not as last said", "alert not as last said",
    "whether a rating counts is not as last said", "rollup's last word not said",
    "at the province with another content",
)  # fmt: skip


@pytest.fixture(scope="module")
def district(bus: Any, postgres: Postgres) -> Ground:
    """The module's bus as the rig knows it."""
    return Ground(
        bus.kafka, bus.database_url, bus.province_database_url, bus.settings.home, bus.cluster, postgres
    )


@pytest.mark.stack
def test_no_event_is_lost_or_doubled_when_every_process_is_killed(district: Ground) -> None:
    with stage(district, 5, CASES) as made:
        figures = kills(made, len(PLACES) + 7, 1, PLACES)
        verdict = made.finish()
    assert verdict["shown"] == {}
    assert verdict["clean"], verdict.get("failed")
    assert verdict["ledgers"]["published"] == verdict["ledgers"]["carried"] > 1_000
    assert figures["kills"] >= len(PLACES)
    assert set(PLACES) - figures["by"].keys() == set(), "failpoints that were not reached"
    subprocess.run([sys.executable, "-c", BLAMES], env=environment(district.env()), check=True, timeout=120)
    again = subprocess.run(
        command("govbus.chaos.oracle"), env=environment(district.env()), capture_output=True, text=True, timeout=300
    )
    found = json.loads(again.stdout)
    assert found["counts"]["lost"] >= 2, "the oracle does not see what was taken away"
    seen = " ".join(text for texts in found["shown"].values() for text in texts)
    assert [what for what in GARBLED if what not in seen] == [], "the oracle does not see what was garbled"


def test_every_failpoint_has_a_process_that_comes_to_it() -> None:
    assert {name.partition(".")[0] for name in failpoints.NAMES} == OWNERS.keys()


def test_the_oracle_imports_nothing_of_the_product() -> None:
    code = "import sys, govbus.chaos.oracle; print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert {"streams", "connectors", "consumers"} & set(done.stdout.split()) == set()


def test_the_report_says_which_part_missed_its_target(tmp_path: Path) -> None:
    from govbus.chaos import report

    parts = {"kills": ("kill -9", "0 lost"), "poison": ("poison", "exact"), "planted": ("planted", "all")}
    missed = {"text": "kill -9", "target": "0 lost", "asked": 9, "done": 8, "lost": 1, "doubled": 0, "met": False,
              "took_s": 240.0, "recovery_s": {"p95": 4.5}, "faults": ["seed 3: lost"]}  # fmt: skip
    report.merge(tmp_path, "kills", missed, parts)
    report.merge(tmp_path, "planted", {"text": "planted", "target": "all", "met": True, "caught": 14}, parts)
    page = (tmp_path / "reliability.md").read_text()
    assert "| kill -9 | 0 lost | 9 | 8 | 1 | 0 | 4.5 s | **missed** | 4 min | " in page
    assert "| poison | exact |  |  |  |  |  | not run |  |  |" in page
    assert "| faults | seed 3: lost |" in page
    assert "Target: all · met" in page
