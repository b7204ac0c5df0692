"""A main thread that waits hears a signal, even one that came just before it began to wait."""

from __future__ import annotations

import os
import signal
import threading
import time

from streams.store.signals import LOOK_S, Told, on_signals


def test_what_was_told_before_is_heard_and_nothing_else_is() -> None:
    told = Told()
    assert not told.wait(0.01)
    told.tell()
    assert told.wait(60)
    assert not told.wait(LOOK_S + 0.01)


def test_a_signal_that_another_thread_receives_is_heard() -> None:
    """The main thread's wait is not interrupted then: as if it had begun after the signal came."""
    told = Told()

    def later() -> None:
        time.sleep(0.2)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        os.kill(os.getpid(), signal.SIGTERM)

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # here: the other thread is the only one to take it
    thread = threading.Thread(target=later)
    try:
        with on_signals(told):
            thread.start()
            assert told.wait(60)
    finally:
        thread.join()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def test_the_former_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with on_signals(Told()):
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
