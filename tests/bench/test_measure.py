from bench.measure import Round, Target, report

ROUNDS = [
    Round({"rate": 100.0}, {"peer": {"rate": 10.0}}, {"limit": 200.0}),
    Round({"rate": 300.0}, {"peer": {"rate": 10.0}}, {"limit": 400.0}),
    Round({"rate": 200.0}, {"peer": {"rate": 5.0}}, {"limit": 1000.0}),
]
TARGETS = [Target("fast", "rate", 200.0), Target("faster", "rate", 31.0, peer="peer")]


def test_ratios_are_medians_of_the_rounds_own_ratios_not_ratios_of_medians() -> None:
    found = report("x", ROUNDS, "rate", TARGETS)
    assert found["ours"] == {"rate": 200.0}
    assert found["ratios"] == {"peer": 30.0}
    assert found["limits"] == {"limit": 0.5}


def test_a_target_is_met_at_its_bound_and_missed_below() -> None:
    assert report("x", ROUNDS, "rate", TARGETS)["targets"] == {"fast": True, "faster": False}
