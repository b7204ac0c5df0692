"""The page is made from the reports and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from bench import page
from bench.contest import Contest
from bench.given import Given
from bench.measure import Round, Target, report
from bench.peers.protocol import Task
from bench.peers.table import PEERS
from bench.stand import Stand
from bench.workers import paper, plan
from schemas.topics import RATING

RATINGS = report(
    "ratings",
    [Round({"rate": 50_000.0}, {"stock_faust": {"rate": 2_500.0}}, {"consume": 100_000.0}, {"pathway": "no network"})],
    [Target("twenty times", least=20, peer="stock_faust"), Target("all of it", least=1.0, limit="consume")],
    events=1_000,
)
OPEN = [Target("open", peer="none", least=1)]
LATENCY = report("latency", [Round({"rate": 1.0, "p99_ms_at_500": 22.0})], OPEN, events=9)


def written(out: Path, *reports: dict[str, Any]) -> Path:
    return [page.add(r, out) for r in reports][-1]


def test_the_page_names_every_figure_ratio_target_and_absent_peer(tmp_path: Path) -> None:
    text = written(tmp_path, RATINGS, LATENCY).read_text()
    assert "| ratings | twenty times | met |" in text
    assert "| ratings | all of it | **missed** |" in text
    assert "| latency | open | not judged |" in text
    assert "| peer: stock_faust | 2,500 | 2,500 | 2,500 | 20.00 × (20.00 to 20.00) |" in text
    assert "| limit: consume | 100,000 | 100,000 | 100,000 | 50% of it |" in text
    assert "Not run: pathway: no network" in text
    assert "![latency](performance/latency.svg)" in text


def test_the_results_beside_it_are_the_reports_and_each_has_a_plot(tmp_path: Path) -> None:
    written(tmp_path, LATENCY, RATINGS)
    found = json.loads((tmp_path / "performance" / "results.json").read_text())
    assert [{k: v for k, v in r.items() if k != "machine"} for r in found] == [RATINGS, LATENCY]
    drawn = (tmp_path / "performance" / "ratings.svg").read_text()
    assert "stock_faust" in drawn
    assert "50,000" in drawn
    assert "p99_ms_at_500" in (tmp_path / "performance" / "latency.svg").read_text()


def test_a_new_report_takes_the_place_of_the_last_one_of_its_name_and_of_no_other(tmp_path: Path) -> None:
    again = report("latency", [Round({"rate": 1.0, "p99_ms_at_500": 33.0})], events=9)
    text = written(tmp_path, LATENCY, RATINGS, again).read_text()
    assert ("| govbus: p99_ms_at_500 | 33.00 |" in text, "22.00" in text, "| peer: stock_faust |" in text) == (
        True, False, True
    )  # fmt: skip


def test_the_same_results_give_the_same_plot(tmp_path: Path) -> None:
    once, again = (written(tmp_path / name, RATINGS).parent / "performance/ratings.svg" for name in "ab")
    assert once.read_bytes() == again.read_bytes()


COSTS = {"worker_cpu_us": 10.0, "kafka_cpu_us": 1.0, "postgres_cpu_us": 14.0, "wal_bytes": 500.0}
SETTLED = {f"{name}_settled": 10 * cost for name, cost in COSTS.items()}
WRITING = {"kafka_fill_cpu_us": 2.0}


def test_the_plan_divides_seventy_per_cent_of_the_cores_by_the_cost_of_an_event_and_the_least_part_decides() -> None:
    found = paper(COSTS | WRITING)
    assert round(found["8 workers"]) == 560_000
    assert round(found["4 brokers"]) == 800_000  # of two cores each: an event is written three times and read once
    assert [round(found[f"PostgreSQL, {cores} cores"]) for cores in (8, 16, 32)] == [400_000, 800_000, 1_600_000]
    assert [round(found[f"the whole, {cores} cores"]) for cores in (8, 16)] == [400_000, 560_000]
    assert round(found["its write-ahead log, MB/s, 8 cores"]) == 200


def test_the_page_shows_the_plan_with_and_without_what_follows_from_an_event(tmp_path: Path) -> None:
    planned = report("workers", [Round({"rate": 1.0})], events=9, paper=plan({**COSTS, **SETTLED, **WRITING}))
    text = written(tmp_path, planned).read_text()
    assert "| Part | until committed | with rollups merged and said |" in text
    assert "| 8 workers | 560,000 | 56,000 |" in text


def test_a_figure_that_fewer_rounds_measured_says_in_how_many(tmp_path: Path) -> None:
    twice = report("idle", [Round({"rate": 1.0, "once": 7.0}), Round({"rate": 1.0})], events=9)
    text = written(tmp_path, twice).read_text()
    assert "| govbus: once (in 1 of 2 rounds) | 7.00 |" in text
    assert "| govbus: rate | 1.00 |" in text


def test_a_peer_that_was_not_chosen_is_not_run(tmp_path: Path) -> None:
    task, stand, given = Task(RATING, (), 9), cast(Stand, None), Given(tmp_path, peers=frozenset({"stock_faust"}))
    left_out = Contest(stand, given, task, PEERS, lambda _: ({}, {}, None), dict).failed
    assert set(left_out) == {"kafka_streams", "kafka_streams_exactly_once", "quixstreams", "pathway"}
    told = report("ratings", [Round({"rate": 2.0}, {"stock_faust": {"rate": 1.0}}, failed=left_out)], events=9)
    text = written(tmp_path, told).read_text()
    assert "Not run: pathway: not chosen (--peers)" in text
    assert "measured before" not in text


def test_a_latency_says_how_long_a_load_lasts_and_how_long_its_sender_gathers(tmp_path: Path) -> None:
    under = report("latency", [Round({"rate": 1.0, "p99_ms_at_500": 22.0})], events=9, seconds=20.0, linger_ms=5)
    assert "Each load lasts 20.0 s; how long the sender gathers: 5 ms." in written(tmp_path, under).read_text()


def test_what_an_older_report_does_not_hold_is_said_on_the_page(tmp_path: Path) -> None:
    settled = Round({"rate": 2.0, "rate_settled": 1.0, "database_mb": 9.0}, {"stock_faust": {"rate": 1.0}})
    old = {**COSTS, **SETTLED}
    planned = report("workers", [Round(old)], events=9, paper={"until committed": {"4 brokers": 9.0}})
    text = written(tmp_path, report("ratings", [settled], events=9), planned, LATENCY).read_text()
    assert "Not run: kafka_streams, kafka_streams_exactly_once, pathway, quixstreams: measured before" in text
    assert "Measured before settled rounds were kept apart: in the rounds that have a `rate_settled`" in text
    assert "Measured before the brokers' writing was" in text
    assert "how long the sender gathers: not kept" in text
