"""What a measured worker must not have said, and when its sizes are taken."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from bench import ours
from bench.ours import Work, Workers
from schemas.errors import GovbusError
from streams.store.unfit import HALVED


def test_a_worker_that_halved_a_chunk_has_measured_nothing(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    workers = Workers([(None, log)])
    with log.open("w") as out:
        said = structlog.wrap_logger(structlog.PrintLogger(out))
        said.warning("another thing")
        out.flush()
        workers.must_not_halve()
        said.warning(HALVED, processor="tally", where="InvalidOperationError in frames.py, line 164")
    with pytest.raises(GovbusError, match=r"measured nothing: .*halves.*frames\.py, line 164"):
        workers.must_not_halve()


@pytest.mark.stack
def test_sizes_are_those_of_the_last_commit_and_apart_from_them_those_after_settling(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand: Any = SimpleNamespace(cpu=lambda: {"kafka": 0.0, "postgres": 0.0})
    monkeypatch.setattr(ours, "start", lambda *_: Workers())
    monkeypatch.setattr(ours, "wait", lambda _engine, _work, wanted, *_: (time.monotonic(), wanted))
    said = iter((1.0, 2.0))
    work = Work((), 9, lambda _: None, "SELECT false", sizes=lambda _: {"outbox": next(said)})
    found = ours.measure(stand, database, work, tmp_path, lambda _: None)
    assert (found["outbox"], found["outbox_settled"]) == (1.0, 2.0)
    assert {"database_mb", "database_mb_settled", "worker_mb", "worker_mb_settled"} <= set(found)
