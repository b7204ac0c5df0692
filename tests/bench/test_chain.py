"""The processes of a benchmark know nothing of the Kafka that the operator has configured."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.chain import environment


def test_how_the_operator_s_kafka_is_spoken_to_is_none_of_a_benchmark_s(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KAFKA", "KAFKA_SECURITY", "KAFKA_PASSWORD"):
        monkeypatch.setenv(f"GOVBUS_{name}", "SASL_SSL")
    stand: Any = SimpleNamespace(kafka="127.0.0.1:9")
    found = environment(stand, "postgresql://", Path("home"))
    assert {n: v for n, v in found.items() if n.startswith("GOVBUS_KAFKA")} == {"GOVBUS_KAFKA": "127.0.0.1:9"}
