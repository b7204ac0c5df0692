"""Whose turn it is. Processes and their threads take turns on one thread; a seed decides every turn.

A *strand* is a thread of a simulated process (a greenlet): it runs until it pauses, and it pauses wherever the outside
world could interfere: before each SQL statement and each commit, at each poll, produce, request and wait. A killed
process ends right there: whatever it had not committed is rolled back, its memory is gone. Time is virtual: it moves
only when nobody can go on without it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import greenlet

FOREVER = float("inf")


class Killed(BaseException):
    """The process is dead; leaves every strand of it, however deep."""


class Strand(greenlet.greenlet):  # type: ignore[misc]
    """One thread of a process. It may go on at ``wake_at``, or earlier if ``until`` says so."""

    def __init__(self, process: Process, work: Callable[[], None]) -> None:
        super().__init__(self._live, process.schedule._hub)
        self.process = process
        self.wake_at = 0.0
        self.until: Callable[[], bool] | None = None
        self._work = work

    def ready(self, now: float) -> bool:
        """Whether it can go on now."""
        if self.process.frozen:
            return False
        return self.wake_at <= now or (self.until is not None and self.until())

    def _live(self) -> None:
        try:
            self._work()
        except Killed:
            pass
        except Exception as error:
            self.process.fault = error


class Process:
    """A simulated process: named, with strands; ``fault`` is the exception that ended it."""

    def __init__(self, schedule: Schedule, name: str) -> None:
        self.schedule = schedule
        self.name = name
        self.alive = True
        self.frozen = False
        self.fault: Exception | None = None
        self.on_death: list[Callable[[], None]] = []
        schedule.processes.append(self)

    def spawn(self, work: Callable[[], None]) -> Strand:
        """A new thread of this process that does ``work``."""
        strand = Strand(self, work)
        self.schedule.strands.append(strand)
        return strand

    def kill(self) -> None:
        """kill -9: every strand ends where it stands."""
        self.alive = False
        self.frozen = False
        for strand in [s for s in self.schedule.strands if s.process is self]:
            if strand:  # has begun and has not ended: let it unwind
                strand.throw(Killed)
        self.schedule.forget(self)
        for act in self.on_death:
            act()


class Schedule:
    """All processes, the virtual clock (seconds) and the dice. Only the hub, the thread's first greenlet, calls
    ``turn``.
    """

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.now = 0.0
        self.turns = 0
        self.processes: list[Process] = []
        self.strands: list[Strand] = []
        self._hub = greenlet.getcurrent()

    def turn(self) -> bool:
        """Let one strand that can go on do so; False if there is none at this moment."""
        strand = self._any_ready()
        if strand is None:
            return False
        self.turns += 1
        strand.wake_at, strand.until = 0.0, None
        strand.switch()
        if strand.dead:
            self._bury(strand)
        return True

    def _any_ready(self) -> Strand | None:
        """The first that can go on, looking from a random place: to ask all of them costs more."""
        first = self.rng.randrange(len(self.strands)) if self.strands else 0
        everybody = self.strands[first:] + self.strands[:first]
        return next((s for s in everybody if s.ready(self.now)), None)

    def let_time_pass(self) -> bool:
        """Move the clock to the next strand that waits for it; False if nobody does."""
        waiting = [s.wake_at for s in self.strands if not s.process.frozen and s.wake_at < FOREVER]
        if not waiting:
            return False
        self.now = max(self.now, min(waiting))
        return True

    def forget(self, process: Process) -> None:
        """The process is gone."""
        self.processes.remove(process)
        self.strands = [s for s in self.strands if s.process is not process]

    def _bury(self, strand: Strand) -> None:
        self.strands.remove(strand)
        if strand.process.fault:
            raise Fault(strand.process.name) from strand.process.fault


class Fault(Exception):
    """A process ended by itself, with an exception; its text is the process's name."""


def pause(seconds: float = 0.0, until: Callable[[], bool] | None = None) -> None:
    """Give up the turn; go on after ``seconds`` at the earliest, or as soon as ``until()``.

    Outside a strand (setting up, judging) nothing interferes, and nothing happens here.
    """
    strand = greenlet.getcurrent()
    if not isinstance(strand, Strand):
        return
    _leave_if_dead(strand)
    schedule = strand.process.schedule
    strand.wake_at, strand.until = schedule.now + seconds, until
    schedule._hub.switch()
    _leave_if_dead(strand)


def _leave_if_dead(strand: Strand) -> None:
    if not strand.process.alive:
        raise Killed
    return


def current() -> Process | None:
    """The process whose strand runs now."""
    strand = greenlet.getcurrent()
    return strand.process if isinstance(strand, Strand) else None


class Stop:
    """What simulated processes get for ``threading.Event``: never set; waiting for it is a pause.

    ``woken``: what ends a wait early; then idle waits may be ``stretched``, for looking in vain costs time.
    """

    def __init__(self, woken: Callable[[], int] | None = None, stretched: float = 1.0) -> None:
        self._woken = woken
        self._stretched = stretched

    def is_set(self) -> bool:
        """Processes here end by kill -9 alone."""
        return False

    def wait(self, timeout: float | None = None) -> bool:
        """Time passes."""
        seconds = FOREVER if timeout is None else timeout * self._stretched
        if self._woken is None:
            pause(seconds)
        else:
            before = self._woken()
            pause(seconds, lambda: self._woken() != before)  # type: ignore[misc]
        return False


class Time:
    """What simulated modules get for the module ``time``."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule

    def monotonic(self) -> float:
        """Virtual seconds."""
        return self._schedule.now

    def sleep(self, seconds: float) -> None:
        """A pause."""
        pause(seconds)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"simulated code must not read time.{name}")
