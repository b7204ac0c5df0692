"""A supervisor's screen beside the live phase: ``govbus alerts watch`` as a process, and when it showed what.

Measures from the moment before a rating is given to the publisher to the moment its alert is printed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from connectors.local.process import die_with_parent, wait_until
from govbus.district.model import Row
from schemas import envelope
from schemas.errors import Retryable

BEGIN_S = 20.0


class Watch:
    """One ``alerts watch``; use as a context manager. Times are monotonic seconds of this process."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        command = [sys.executable, "-m", "govbus.cli", "alerts", "watch", "--json"]
        self._process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=die_with_parent,
        )
        self._shown: dict[str, float] = {}
        self._published: list[tuple[float, Sequence[Row]]] = []
        self._watching = threading.Event()

    def __enter__(self) -> Watch:
        for read in (self._read_alerts, self._read_words):
            threading.Thread(target=read, daemon=True).start()
        if not self._watching.wait(BEGIN_S):
            self.__exit__()
            raise Retryable(f"alerts watch did not begin within {BEGIN_S:.0f} s")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10)

    def published(self, rows: Sequence[Row]) -> None:
        """Note that ``rows`` are given to the publisher now."""
        self._published.append((time.monotonic(), rows))

    def waits(self, seconds: float) -> list[int]:
        """Milliseconds from publishing to the screen, sorted, for every rating that raised an alert.

        Waits until no alert came for ``seconds``, so that the slowest is in it.
        """
        seen = -1
        while seen < len(self._shown):
            seen = len(self._shown)
            wait_until(lambda known=seen: len(self._shown) > known, seconds)  # type: ignore[misc]
        given = {_event_id(row): at for at, rows in self._published for row in rows}
        return sorted(round((self._shown[e] - at) * 1000) for e, at in given.items() if e in self._shown)

    def _read_words(self) -> None:
        """What the process says beside the alerts; its first line says that it watches."""
        for line in self._process.stderr or ():
            if "watching" in line:
                self._watching.set()

    def _read_alerts(self) -> None:
        for line in self._process.stdout or ():
            at = time.monotonic()
            alert: Mapping[str, Any] = json.loads(line)
            if alert["kind_code"] == "BAD_RATING" and alert["evidence"]:
                self._shown.setdefault(alert["evidence"][0], at)


def _event_id(row: Row) -> str:
    whole = {**row.record, "region": row.region, "department": row.department}
    return str(envelope.event_id(row.topic, whole))
