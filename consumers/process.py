"""A process of consumers: one thread each, ended together; it gives back memory now and again. Decides the exit code;
no failure is silent.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence

import structlog

from consumers.loop import Effect, Loop
from schemas.errors import Misconfigured
from streams.store import heap
from streams.store.engine import STILL_MS, connect
from streams.store.signals import Told, on_signals

log = structlog.get_logger(__name__)
Work = Callable[[threading.Event], None]


def run_all(database_url: str, kafka: str, effects: Sequence[Effect], extra: Sequence[Work] = ()) -> int:
    """Run loops and ``extra`` work until SIGTERM, SIGINT or a failure; returns the exit code."""
    engine = connect(database_url, still_ms=STILL_MS)
    heap.set_apart()
    loops: list[Work] = [Loop(engine, kafka, effect).run for effect in effects]
    try:
        return together([*loops, *extra])
    finally:
        engine.dispose()


def together(work: Sequence[Work]) -> int:
    """Run ``work`` in threads; when one fails all stop and the code is 70 (78: misconfigured), 0 when told to stop."""
    stop, told = threading.Event(), Told()
    codes: list[int] = []

    def guarded(act: Work) -> None:
        try:
            act(stop)
        except BaseException as error:
            log.error("process.fails", error=type(error).__name__, exc_info=True)
            codes.append(os.EX_CONFIG if isinstance(error, Misconfigured) else os.EX_SOFTWARE)
        finally:
            told.tell()

    threads = [threading.Thread(target=guarded, args=(act,), daemon=True) for act in work]
    with on_signals(told):
        for thread in threads:
            thread.start()
        while not told.wait(heap.EVERY_S):
            heap.give_back()
        stop.set()
        for thread in threads:
            thread.join(timeout=10)
    return codes[0] if codes else 0
