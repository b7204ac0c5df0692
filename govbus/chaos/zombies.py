"""Workers stopped for longer than their session lasts: others take over, then the zombie goes on where it stood.

What it still holds must come to nothing: its successor has written the same, and the cursor says so.
"""

from __future__ import annotations

import signal
import time
from typing import Any

from govbus.chaos.kills import GRACE_S
from govbus.chaos.stage import Stage

STOPPED_S = 8.0
"""Longer than ``streams.app.SESSION_S``."""
WORKERS = ("worker-1", "worker-2")


def zombies(stage: Stage, count: int) -> dict[str, Any]:
    """Stop a worker ``count`` times, each in its turn, while events flow."""
    for number in range(count):
        name = WORKERS[number % len(WORKERS)]
        stage.fleet.signal(name, signal.SIGSTOP)
        _flow(stage, STOPPED_S + stage.rng.uniform(0.0, 2.0))
        stage.fleet.signal(name, signal.SIGCONT)
        _flow(stage, GRACE_S)
    return {"zombies": count}


def _flow(stage: Stage, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        stage.flow()
        stage.look()
        for name in [n for n in WORKERS if n not in stage.fleet.lives]:
            stage.fleet.start(name)
