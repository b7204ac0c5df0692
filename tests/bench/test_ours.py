"""What a measured worker must not have said."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog

from bench.ours import Workers
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
