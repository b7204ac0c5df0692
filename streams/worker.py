"""Runs the worker process: Faust's worker around our application, with our logging and our exit code."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import faust
import structlog

from streams.rules import mask
from streams.store import heap
from streams.store.horizon import Clock

SWITCH_S = 0.001
"""How long one thread may keep the others waiting. At Python's 5 ms, the thread that applies waits that long after each
of its some hundred calls into polars and PostgreSQL while the others fetch."""
STOP_S = 15.0
"""How long it may take to end once it is told to. Without a broker the client waits for a minute and more; nothing is
lost by leaving, for the cursors are in the database."""
log = structlog.get_logger(__name__)


class QuietWorker(faust.Worker):  # type: ignore[misc]
    """Faust's worker without its banner and without its own logging set-up; it ends in time."""

    def _setup_logging(self) -> None:
        """Logging is the composition root's."""

    def _schedule_shutdown(self, signal: signal.Signals) -> None:
        leaving = threading.Timer(STOP_S, _leave)
        leaving.daemon = True
        leaving.start()
        super()._schedule_shutdown(signal)


def run(
    bootstrap: str,
    database_url: str,
    home: Path,
    clock: Clock = "wall",
    settle_ms: int = 200,
    uploads: bool = True,
    name: str = "",
    **more: Any,
) -> None:
    """Process until told to stop (SIGTERM, SIGINT); exits with 0 then, with 70 on a fault.

    ``bootstrap`` is ``host:port[,host:port]``, ``database_url`` a SQLAlchemy URL; ``more`` goes to ``create_app``.
    """
    from streams.agents import projections
    from streams.app import create_app
    from streams.fault import die
    from streams.store import quarantine
    from streams.store.engine import STILL_MS, connect

    log.info("worker starts", masking=mask.version())
    quarantine.stand_by(home / "worker", name or "worker")
    _collect_seldom()
    sys.setswitchinterval(SWITCH_S)
    engine = connect(database_url, pool_size=12, ping=False, still_ms=STILL_MS)
    app = create_app(bootstrap, engine, projections(uploads), home, clock, settle_ms, name, **more)
    try:
        QuietWorker(app, quiet=True, redirect_stdouts=False, loglevel="WARN").execute_from_commandline()
    except SystemExit as end:
        if end.code:
            die("worker", end)
        raise
    except BaseException as error:
        die("worker", error)
    finally:
        engine.dispose()


def _leave() -> None:
    log.warning("told to end, and Kafka's client does not: leaving", seconds=STOP_S)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _collect_seldom() -> None:
    """Make the garbage collector walk seldom over the hundreds of thousands of records that wait under load.

    Records form no cycles; at the default thresholds the walks cost a fifth of the worker's time.
    """
    heap.set_apart()
    gc.set_threshold(100_000, 20, 100)


def main(arguments: Sequence[str] | None = None, **more: Any) -> None:
    """``python -m streams``: everything on the command line, nothing from the environment, so PLAINTEXT alone; ``more``
    as in ``run``.
    """
    heap.keep_small()
    parser = argparse.ArgumentParser(prog="python -m streams", description="Process the inbound topics.")
    parser.add_argument("--kafka", required=True, help="bootstrap servers")
    parser.add_argument("--database-url", required=True, help="SQLAlchemy URL of PostgreSQL")
    parser.add_argument("--home", type=Path, default=Path(".govbus"))
    parser.add_argument("--clock", choices=get_args(Clock), default="wall")
    parser.add_argument("--settle-ms", type=int, default=200)
    parser.add_argument("--name", default="", help="static group member, see streams.app.create_app")
    parser.add_argument("--log-level", default="WARNING")
    parser.add_argument("--without-uploads", action="store_true", help="say no single ratings (benchmarks)")
    given: Any = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(level=given.log_level)
    uploads = not given.without_uploads
    run(given.kafka, given.database_url, given.home, given.clock, given.settle_ms, uploads, given.name, **more)
