"""How a process with threads waits to be told to end. Decides nothing about how it ends.

A signal's handler runs between any two steps of the main thread. So it must not want a lock that this may hold, as an
Event's ``set`` does while the main thread begins to wait for that event; and a main thread that goes to wait just
after the signal came sleeps on, unless it looks again from time to time.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from queue import Empty, SimpleQueue

LOOK_S = 0.5
"""How late a signal may be heard that came at the worst moment."""
ASKING = (signal.SIGINT, signal.SIGTERM)


class Told:
    """Told once or more, from threads or handlers."""

    def __init__(self) -> None:
        self._words: SimpleQueue[None] = SimpleQueue()  # its put is reentrant

    def tell(self) -> None:
        """Wake whoever waits, now or later."""
        self._words.put(None)

    def wait(self, seconds: float | None = None) -> bool:
        """True when told; False after ``seconds``, if given."""
        end = float("inf") if seconds is None else time.monotonic() + seconds
        while True:
            left = end - time.monotonic()
            try:
                self._words.get(timeout=max(0.0, min(LOOK_S, left)))
            except Empty:
                if left <= LOOK_S:
                    return False
            else:
                return True


@contextlib.contextmanager
def on_signals(told: Told) -> Iterator[None]:
    """While inside, SIGINT and SIGTERM tell ``told``, if this is the main thread; the former handlers come back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.signal(number, lambda *_: told.tell()) for number in ASKING}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
