"""The other processes of the bus, run beside a measurement: the relay, and what its outbox tells."""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bench import ours
from bench.process import must_live, python, running
from bench.stand import Stand

LONGEST_S = 60.0
LEADING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"


@dataclass(frozen=True, slots=True)
class Relay:
    """A running relay process."""

    child: Any
    log: Path

    def must_live(self) -> None:
        """Raise if it has ended."""
        must_live(self.child, self.log)

    def wait_leading(self, engine: sa.Engine) -> None:
        """Return when it leads."""
        self._wait(engine, LEADING)

    def started_to_send(self, engine: sa.Engine) -> float:
        """The moment (``time.monotonic``) of its first mark, from what it wrote into the outbox."""
        first = float(ours.ask(engine, "SELECT min(sent_at) FROM outbox"))
        return time.monotonic() - (time.time() - first / 1000)

    def _wait(self, engine: sa.Engine, true: str) -> None:
        deadline = time.monotonic() + LONGEST_S
        while not ours.ask(engine, true):
            self.must_live()
            if time.monotonic() > deadline:
                raise TimeoutError("the relay does not lead")
            time.sleep(0.05)


def relay(place: Stand, url: str, home: Path, stack: ExitStack) -> Relay:
    """A relay on ``url``, stopped when ``stack`` is closed."""
    log = home / "relay.log"
    child = stack.enter_context(running(python("govbus.cli", "relay"), log, env=environment(place, url, home)))
    return Relay(child, log)


def environment(place: Stand, url: str, home: Path) -> dict[str, str]:
    """Environment of a process of the bus; how another Kafka wants to be spoken to is none of it."""
    path = os.pathsep.join(sys.path)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GOVBUS_KAFKA")}
    return {
        **kept,
        "PYTHONPATH": path,
        "GOVBUS_KAFKA": place.kafka,
        "GOVBUS_DATABASE_URL": url,
        "GOVBUS_HOME": str(home),
        "GOVBUS_LOG_LEVEL": "WARNING",
    }
