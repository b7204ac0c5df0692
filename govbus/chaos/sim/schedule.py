"""Whose turn it is. Processes and their threads take turns on one thread; a seed decides every turn.

A *strand* is a thread of a simulated process (a greenlet): it runs until it pauses, and it pauses wherever the outside
world could interfere: before each SQL statement and each commit, at each poll, produce, request and wait. A killed
process ends right there: whatever it had not committed is rolled back, its memory is gone. Time is virtual: it moves
only when nobody can go on without it.

A *trap* lies where a process of some kind will next be about to commit, or where it will have made something durable:
what is short is rarely met by chance.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import greenlet

from govbus.chaos.sim.kinds import INTERLEAVED, KINDS, Moment

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
        self.amid = False
        """Whether it paused within a transaction."""
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


@dataclass(slots=True)
class Trap:
    """``act`` befalls the process that is the ``steps``-th of its kind to come to ``moment`` from now on; it is told
    what that process has written.
    """

    moment: Moment
    steps: int
    act: Callable[[Process, str], None]


class Process:
    """A simulated process: named, with strands; ``fault`` is the exception that ended it."""

    def __init__(self, schedule: Schedule, name: str) -> None:
        self.schedule = schedule
        self.name = name
        self.kind = name.rsplit("-", 1)[0]
        self.told = name.encode()
        self.breaks: Literal["", "statement", "lost", "unknown"] = ""
        """What happens to this process's next statement, or to its next commit."""
        self.alive = True
        self.frozen = False
        self.fault: Exception | None = None
        self.on_death: list[Callable[[], None]] = []
        self.on_durable: Callable[[], None] = lambda: None
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
        self.happened = Counter(dict.fromkeys(KINDS, 0))
        """Faults that came true, by kind."""
        self.reached: Counter[str] = Counter()
        """Durable steps, by the kind of process and what it wrote."""
        self.traps: dict[str, deque[Trap]] = defaultdict(deque)
        """By kind of process; the first one is open."""
        self.sprung: list[Callable[[], None]] = []
        """What traps have to do, now, before anybody's next turn."""
        self.trace = hashlib.blake2b(digest_size=8)
        """Of every turn and statement: the same seed gives the same."""
        self._last: Strand | None = None
        self.processes: list[Process] = []
        self.strands: list[Strand] = []
        self._hub = greenlet.getcurrent()

    def turn(self) -> bool:
        """Let one strand that can go on do so; False if there is none at this moment."""
        strand = self._any_ready()
        if strand is None:
            return False
        self.turns += 1
        self.trace.update(strand.process.told)
        if strand is not self._last and self._last and self._last.amid:
            self.happened[INTERLEAVED] += 1
        self._last = strand
        strand.wake_at, strand.until, strand.amid = 0.0, None, False
        strand.switch()
        if strand.dead:
            self._bury(strand)
        while self.sprung:
            self.sprung.pop()()
        return True

    def _any_ready(self) -> Strand | None:
        """The first that can go on, looking from a random place: to ask all of them costs more."""
        first = self.rng.randrange(len(self.strands)) if self.strands else 0
        everybody = self.strands[first:] + self.strands[:first]
        return next((s for s in everybody if s.ready(self.now)), None)

    def note(self, kind: str) -> None:
        """Count a fault that came true; one that nobody expects is a mistake."""
        if kind not in self.happened:
            raise KeyError(kind)
        self.happened[kind] += 1

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


def pause(seconds: float = 0.0, until: Callable[[], bool] | None = None, amid: bool = False) -> None:
    """Give up the turn; go on after ``seconds`` at the earliest, or as soon as ``until()``. ``amid`` a transaction?

    Outside a strand (setting up, judging) nothing interferes, and nothing happens here.
    """
    strand = greenlet.getcurrent()
    if not isinstance(strand, Strand):
        return
    _leave_if_dead(strand)
    schedule = strand.process.schedule
    strand.wake_at, strand.until, strand.amid = schedule.now + seconds, until, amid
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


def note(kind: str) -> None:
    """Count a fault that came true in the process whose strand runs now."""
    if process := current():
        process.schedule.note(kind)


def reach(moment: Moment, what: str) -> None:
    """The process whose strand runs now is about to commit ``what``, or has just made it durable."""
    process = current()
    if process is None:
        return
    place = f"{process.kind}: {what}"
    if moment == "after a durable step":
        process.schedule.reached[place] += 1
        process.on_durable()
    traps = process.schedule.traps[process.kind]
    if not traps or traps[0].moment != moment:
        return
    traps[0].steps -= 1
    if traps[0].steps == 0:
        process.schedule.sprung.append(partial(traps.popleft().act, process, place))
        pause(amid=moment == "before a commit")


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
