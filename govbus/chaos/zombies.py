"""Workers stopped for longer than their session lasts: others take over, then the zombies go on where they stood.

What they still hold must come to nothing: their successors have written the same, and the cursor says so. Half of the
workers are stopped at once, so that there is always somebody to take over.
"""

from __future__ import annotations

import signal
import time
from typing import Any

from govbus.chaos.fleet import KINDS
from govbus.chaos.kills import GRACE_S
from govbus.chaos.stage import MOST, Stage

STOPPED_S = 8.0
"""Longer than ``streams.app.SESSION_S``."""


def zombies(stage: Stage, count: int) -> dict[str, Any]:
    """Stop workers ``count`` times, half of them at once and each in its turn, while events flow."""
    workers = [name for name in stage.fleet.names if KINDS[name] == "worker"]
    made = turn = 0
    seconds: list[float] = []
    wrong: list[str] = []
    while made < count:
        began = time.monotonic()
        half = workers[turn % 2 :: 2][: count - made]
        stopped = [name for name in half if name in stage.fleet.lives]
        for name in stopped:
            stage.fleet.signal(name, signal.SIGSTOP)
        flow(stage, STOPPED_S + stage.rng.uniform(0.0, 2.0))
        for name in stopped:
            stage.fleet.signal(name, signal.SIGCONT)
        flow(stage, GRACE_S)
        made, turn = made + len(stopped), turn + 1
        if stage.published >= MOST:
            wrong.append(f"nothing flowed any more while the {made}th worker was stopped")
        seconds.append(time.monotonic() - began)
    return {"zombies": made, "wrong": wrong, "seconds": {f"{len(workers) // 2} of {len(workers)} at once": seconds}}


def flow(stage: Stage, seconds: float) -> None:
    """Let things run and events flow for a while."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        stage.flow()
        stage.look()
