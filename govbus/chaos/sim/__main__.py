"""One process of the simulation: runs the seeds that standard input names and prints one JSON line for each."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import warnings

import structlog


def main() -> None:
    """``python -m govbus.chaos.sim --url URL``; standard input: a JSON list of [seed, name of a planted bug]."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    told = parser.parse_args()
    _be_quiet()
    from govbus.chaos.sim.database import connect
    from govbus.chaos.sim.planted import PLANTED
    from govbus.chaos.sim.run import Runner

    runner = Runner(connect(told.url))
    for seed, bug in json.load(sys.stdin):
        runner.expected(seed)
        with PLANTED[bug]():
            outcome = runner.one(seed)
        sys.stdout.write(json.dumps({"planted": bug, **outcome.plain()}, ensure_ascii=False) + "\n")
        sys.stdout.flush()


def _be_quiet() -> None:
    """The product says what it waits for; here it waits for nothing real. Dead processes leave coroutines behind."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    warnings.filterwarnings("ignore", message="coroutine .* was never awaited")


if __name__ == "__main__":
    main()
