"""Medians, paired ratios, shares, targets."""

from __future__ import annotations

from bench.measure import Round, Target, percentile, report

ROUNDS = [
    Round({"rate": 100.0}, {"peer": {"rate": 10.0}}, {"limit": 200.0}),
    Round({"rate": 300.0}, {"peer": {"rate": 10.0}}, {"limit": 400.0}),
    Round({"rate": 200.0}, {"peer": {"rate": 5.0}}, {"limit": 1000.0}),
]
TARGETS = [
    Target("fast", least=200.0),
    Target("faster", least=31.0, peer="peer"),
    Target("near", least=0.5, limit="limit"),
]


def test_ratios_are_medians_of_the_rounds_own_ratios_not_ratios_of_medians() -> None:
    found = report("x", ROUNDS, TARGETS)
    assert found["ours"] == {"rate": 200.0}
    assert found["ratios"] == {"peer": 30.0}
    assert found["limits"] == {"limit": 0.5}


def test_the_spread_is_the_least_and_the_greatest_of_the_rounds() -> None:
    spread = report("x", ROUNDS)["spread"]
    assert spread["ours"] == {"rate": [100.0, 300.0]}
    assert spread["ratios"] == {"peer": [10.0, 40.0]}


def test_a_target_is_met_at_its_bound_and_missed_below() -> None:
    assert report("x", ROUNDS, TARGETS)["targets"] == {"fast": True, "faster": False, "near": True}


def test_a_target_may_be_a_greatest_value() -> None:
    targets = [Target("quick", figure="p99", most=60), Target("quicker", figure="p99", most=59)]
    assert report("x", [Round({"p99": 60.0})], targets, figure="p99")["targets"] == {"quick": True, "quicker": False}


def test_a_target_about_many_events_is_not_judged_by_few() -> None:
    target = Target("a million", least=1.0, events=1_000_000)
    assert report("x", ROUNDS, [target], events=999_999)["targets"] == {"a million": None}
    assert report("x", ROUNDS, [target], events=1_000_000)["targets"] == {"a million": True}


def test_a_peer_that_failed_once_has_no_figure_and_its_target_is_not_judged() -> None:
    rounds = [*ROUNDS, Round({"rate": 1.0}, {}, {"limit": 1.0}, {"peer": "it counted wrong"})]
    found = report("x", rounds, TARGETS)
    assert (found["peers"], found["ratios"], found["not_run"]) == ({}, {}, {"peer": "it counted wrong"})
    assert found["targets"]["faster"] is None


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(v) for v in range(100, 0, -1)]
    assert (percentile(values, 0.5), percentile(values, 0.99), percentile([7.0], 0.99)) == (50.0, 99.0, 7.0)
