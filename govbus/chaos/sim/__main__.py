"""One process of the simulation: runs the seeds it is given and prints one JSON line for each."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import warnings

import structlog


def main() -> None:
    """``python -m govbus.chaos.sim --url URL --seeds 1,2,5 [--planted NAME]…``"""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--step", type=int, default=1)
    parser.add_argument("--planted", default="nothing")
    told = parser.parse_args()
    _be_quiet()
    from govbus.chaos.sim import run
    from govbus.chaos.sim.database import connect
    from govbus.chaos.sim.planted import PLANTED

    runner = run.Runner(connect(told.url))
    seeds = range(told.first, told.first + told.count * told.step, told.step)
    for seed in seeds:
        runner.expected(seed)
        with PLANTED[told.planted]():
            outcome = runner.one(seed)
        line = {"seed": seed, "complaints": outcome.complaints[:20], "happened": outcome.happened}
        sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
        sys.stdout.flush()
        if told.planted != "nothing" and outcome.complaints:
            return


def _be_quiet() -> None:
    """The product says what it waits for; here it waits for nothing real. Dead processes leave coroutines behind."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    warnings.filterwarnings("ignore", message="coroutine .* was never awaited")


if __name__ == "__main__":
    main()
