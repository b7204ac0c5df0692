"""``govbus bench idle``: what a bus costs that has nothing to do, as at night: the cores that each process uses."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

from bench import ours
from bench.chain import environment, relay
from bench.given import Given
from bench.measure import Round, Target, report
from bench.process import must_live, python, running
from bench.stand import Stand, cpu_of, stand
from streams.store.engine import connect

SETTLED_S, MEASURED_S = 10.0, 20.0
"""Starting is over after so long; then it is measured for so long."""
TARGETS = (Target("an idle bus uses under a quarter of a core", figure="cores", most=0.25),)


def run(given: Given) -> dict[str, Any]:
    """The report of ``given.rounds`` rounds with a worker, a relay and the consumers beside Kafka and PostgreSQL."""
    with stand() as place:
        rounds = [_round(place, given, number) for number in range(given.rounds)]
        return report("idle", rounds, TARGETS, figure="cores", events=0, seconds=MEASURED_S)


def _round(place: Stand, given: Given, number: int) -> Round:
    with place.database() as url, place.directory(f"idle-{number}") as home, ExitStack() as stack:
        engine = connect(url)
        stack.callback(engine.dispose)
        relaying = relay(place, url, home, stack)
        relaying.wait_leading(engine)
        workers = ours.start(place, url, home, stack)
        log, env = home / "consume.log", environment(place, url, home)
        consuming = stack.enter_context(running(python("govbus.cli", "consume"), log, env=env))

        def used() -> dict[str, float]:
            workers.must_live()
            relaying.must_live()
            must_live(consuming, log)
            own = {"worker": workers.cpu(), "relay": cpu_of(relaying.child.pid), "consume": cpu_of(consuming.pid)}
            return {**own, **place.cpu()}

        given.tell("start", 0, 1)
        time.sleep(SETTLED_S)
        began, before = time.monotonic(), used()
        given.tell("measure", 0, 1)
        time.sleep(MEASURED_S)
        after, spent = used(), time.monotonic() - began
    cores = {name: (after[name] - before[name]) / spent for name in after}
    return Round({"cores": sum(cores.values()), **{f"{name}_cores": share for name, share in cores.items()}})
