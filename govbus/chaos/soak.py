"""Hours of ordinary load: does any process grow, or keep files open?

Measures what the machine can carry, then lets a share of it flow and looks at every process now and again. The slope is
that of the floors after the warm-up, the least of every five minutes: the median of the slopes between all pairs of
them (Theil and Sen). A worker gives back once a minute and holds some megabytes more or less in between; what is never
given back raises the floor.
"""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import psutil

from govbus.chaos.cycles import ended, recovered
from govbus.chaos.ground import ground, scratch
from govbus.chaos.rounds import Tell, told
from govbus.chaos.stage import Stage, stage
from govbus.chaos.watch import Stalled

SHARE = 0.3
EVERY_S = 10.0
LAST_SHARE = 0.99
WARM_UP = 0.3
"""The share of the time after which a process is expected to have what it needs."""
FLOOR_S = 300.0
CAPACITY_CASES = 400
ROWS_A_CASE = 6.0
"""Fewer than there are: the year must not end before the time does."""
ENOUGH_MINUTES = 60
MEMORY_TARGET, MB, HOUR_S = 1.0, 1024.0 * 1024.0, 3600.0
MOST_HANDLES = 2
"""A pool may open a connection more in one hour than in another."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at a process: seconds since the start, resident MB, how many of them are pages of files (its libraries,
    above all: mapped when first used, and the kernel may drop them), open file handles.
    """

    at: float
    rss: float
    mapped: float
    handles: int

    @property
    def own(self) -> float:
        """Resident MB that no file has."""
        return self.rss - self.mapped


def run(count: int, seed: int, tell: Tell) -> dict[str, Any]:
    """``count`` minutes at ``SHARE`` of what the machine can carry."""
    tell("soak: capacity", 0, count)
    capacity = carried(seed)
    rate = SHARE * capacity
    cases = math.ceil(rate * count * 60 / ROWS_A_CASE)
    with scratch() as home, ground(home) as bus, stage(bus, seed, cases) as made:
        samples: dict[str, list[Sample]] = {name: [] for name in made.fleet.names}
        try:
            sample(made, rate, count, tell, samples)
            verdict = made.finish()
        except Stalled as error:
            verdict = {"clean": False, "shown": {"lost": [f"stalled: {error}"]}, "ledgers": {}}
        except KeyboardInterrupt:  # what was seen until then is kept
            verdict = {"clean": False, "shown": {"lost": ["interrupted, the oracle was not asked"]}, "ledgers": {}}
        faults = told(verdict, seed)["faults"] + ended(made)
        flowed = flow_minutes(made.rows, rate)
    grown = {name: grown_of(found) for name, found in samples.items() if found}
    flat = all(g["mb_per_hour"] < MEMORY_TARGET and g["handles_more"] <= MOST_HANDLES for g in grown.values())
    minutes = max((found[-1].at for found in samples.values() if found), default=0.0) / 60
    return {
        "minutes": round(minutes, 1), "under_load_minutes": round(min(minutes, flowed), 1),
        "capacity_rows_s": round(capacity), "rate_rows_s": round(rate), "processes": grown,
        "events": verdict["ledgers"].get("accepted", 0), "faults": faults, "clean": not faults,
        "met": not faults and bool(grown) and flat and min(count, flowed) >= ENOUGH_MINUTES,
    }  # fmt: skip


def carried(seed: int) -> float:
    """Rows per second from publishing to the last effect, all published as fast as it goes."""
    with scratch() as home, ground(home) as bus, stage(bus, seed, CAPACITY_CASES) as made:
        began = time.monotonic()
        made.publish_up_to(1.0)
        made.look_until(lambda: _published(made), "publishing")
        recovered(made, "publishing everything")
        return made.rows / (time.monotonic() - began)


def flow_minutes(rows: int, rate: float) -> float:
    """For how long ``rows`` flow at ``rate`` a second; the last of them go out when the soak has ended."""
    return LAST_SHARE * rows / rate / 60


def _published(made: Stage) -> bool:
    from govbus.chaos import notebook

    return any("end" in entry for entry in notebook.entries(made.ground.home))


def sample(made: Stage, rate: float, minutes: int, tell: Tell, found: dict[str, list[Sample]]) -> None:
    """Let ``rate`` rows a second flow for ``minutes``; note in ``found`` what every process uses, by name."""
    began = time.monotonic()
    due = 0.0
    while (at := time.monotonic() - began) < minutes * 60:
        made.publish_up_to(min(LAST_SHARE, at * rate / made.rows))
        made.look()
        if at >= due:
            due += EVERY_S
            tell("soak", int(at // 60), minutes)
            for name, life in made.fleet.lives.items():
                with contextlib.suppress(psutil.Error):  # it has just ended
                    found[name].append(_sample(at, life.process.pid))


def _sample(at: float, pid: int) -> Sample:
    process = psutil.Process(pid)
    with process.oneshot():
        memory = process.memory_info()
        return Sample(at, memory.rss / MB, memory.shared / MB, process.num_fds())


def grown_of(samples: Sequence[Sample]) -> Mapping[str, Any]:
    """How a process grew after its warm-up: MB per hour, of all and of its own pages; handles at the end less those at
    the beginning; and the floors, which show whether it still grows.
    """
    warm = [s for s in samples if s.at >= WARM_UP * samples[-1].at]
    floors, own = _floors(warm, lambda s: s.rss), _floors(warm, lambda s: s.own)
    third = max(1, len(warm) // 3)
    first, last = (statistics.median(s.handles for s in part) for part in (warm[:third], warm[-third:]))
    return {
        "mb_per_hour": _slope(floors), "own_mb_per_hour": _slope(own),
        "rss_mb": round(samples[-1].rss, 1), "handles": samples[-1].handles, "handles_more": last - first,
        "floors_mb": " ".join(f"{mb:.1f}" for _, mb in floors), "own_floors_mb": " ".join(f"{mb:.1f}" for _, mb in own),
    }  # fmt: skip


def _floors(warm: Sequence[Sample], size: Callable[[Sample], float]) -> list[tuple[float, float]]:
    """When a process was smallest in each ``FLOOR_S`` (seconds), and its MB then."""
    parts = (min(part, key=size) for _, part in groupby(warm, key=lambda s: s.at // FLOOR_S))
    return [(s.at, size(s)) for s in parts]


def _slope(floors: Sequence[tuple[float, float]]) -> float:
    """MB an hour."""
    slopes = [(b - a) / (then - at) for n, (at, a) in enumerate(floors) for then, b in floors[n + 1 :]]
    return round(statistics.median(slopes) * HOUR_S, 1) if slopes else 0.0
