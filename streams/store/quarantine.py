"""Proves which of the suspected records kill whoever decodes them; only those are condemned.

After a death that left marks (``inflight``) a prober is forked while the process has but one thread. It decodes the
suspected records one by one in children of its own, which do nothing else. A record is condemned if a child died of
a fault (segmentation, abort, …) at it, and a second child that decodes it alone dies too. kill -9 proves nothing. So
the worker dies once for a record, and an operator who kills it at any moment, however often, condemns nobody.

Decides guilt; ``steps.decode_rows`` then refuses the record undecoded, and it is buried like any other.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import resource
import signal
import struct
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

import structlog

from streams.store import inflight, steps
from streams.store.projection import Carried

FAULTS = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS,
     signal.SIGXCPU}
)  # fmt: skip
"""Signals that a process draws upon itself; SIGKILL is not among them."""
MEMORY_BYTES = 4 * 1024**3
"""More than so much beyond what the process has already no record of 256 KiB may ask for."""
DECODING_S = 60
AT = struct.Struct("q")
KILLS = "kills_decoder"
"""The reason (``govbus.reason``) of those that are condemned."""
log = structlog.get_logger(__name__)


class Prober:
    """The process that tries records out; ends with the one that started it."""

    def __init__(self) -> None:
        ours, theirs = Pipe()
        self._lock = threading.Lock()
        self._pid = os.fork()
        if not self._pid:
            ours.close()
            _serve(theirs)
        theirs.close()
        self._pipe = ours

    def guilty(self, carried: Sequence[Carried]) -> list[int]:
        """Places in ``carried`` of the records that kill; none if the prober itself was killed."""
        with self._lock:
            try:
                self._pipe.send(carried)
                found: list[int] = self._pipe.recv()
            except (EOFError, OSError):
                log.warning("the prober is gone; nothing is proven")
                return []
        return found

    def close(self) -> None:
        """End it, after the answer that somebody waits for."""
        with self._lock:
            self._pipe.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)


_prober: Prober | None = None
_dismissing = threading.Lock()


def stand_by(directory: Path, name: str) -> None:
    """Open the marks of this process (see ``inflight.open_marks``) and, if the life before left any, the prober. It
    leaves no core file when it dies of a record: citizens' cases would lie in it.

    Call it before the first thread: what is forked must be whole.
    """
    global _prober
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    inflight.open_marks(directory, name)
    _prober = Prober() if inflight.suspects() else None


def prove(carried: Sequence[Carried]) -> None:
    """Condemn the records of one topic among the suspected of ``carried`` that kill; takes about a second at most."""
    prober = _prober
    if prober is None:
        return
    suspects = [c for c in carried if inflight.suspected(c.topic.name, {c.partition: (c.offset, c.offset)})]
    for place in prober.guilty(suspects) if suspects else ():
        one = suspects[place]
        inflight.condemned.add((one.topic.name, one.partition, one.offset))
        log.error("kills whoever decodes it", topic=one.topic.name, partition=one.partition, offset=one.offset)


def dismiss() -> None:
    """End the prober when nothing is suspected any more."""
    global _prober
    with _dismissing:
        if _prober is not None and not inflight.suspects():
            prober, _prober = _prober, None
            prober.close()


# --- in the prober ---


def _serve(pipe: Connection) -> None:
    """Try out what comes until the other end is closed; never returns."""
    try:
        inflight.forget()
        while True:
            pipe.send(culprits(pipe.recv()))
    except (EOFError, OSError):
        os._exit(0)
    finally:
        os._exit(1)


def culprits(carried: Sequence[Carried]) -> list[int]:
    """Places of the records that kill, each of them alone. Forks; call with one thread."""
    found: list[int] = []
    at = _dies_at(carried, 0, len(carried))
    while at is not None:
        if _dies_at(carried, at, at + 1) is not None:
            found.append(at)
        at = _dies_at(carried, at + 1, len(carried))
    return found


def _dies_at(carried: Sequence[Carried], start: int, stop: int) -> int | None:
    """The place at which a child that decodes ``carried[start:stop]`` draws a fault upon itself, or None."""
    with mmap.mmap(-1, AT.size) as reached:
        pid = os.fork()
        if not pid:
            _decode(carried, start, stop, reached)
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) in FAULTS:
            return int(AT.unpack_from(reached)[0])
    return None


def _decode(carried: Sequence[Carried], start: int, stop: int, reached: mmap.mmap) -> None:
    """In a child: decode row by row, saying before each which it is; never returns."""
    try:
        _bounded()
        for place in range(start, stop):
            AT.pack_into(reached, 0, place)
            with contextlib.suppress(BaseException):  # an exception is caught in the worker too
                steps.decode_row(carried[place])
    finally:
        os._exit(0)


def _bounded() -> None:
    """No core file, no endless decoding, no memory without end: each a fault of its own."""
    used = os.sysconf("SC_PAGE_SIZE") * int(Path("/proc/self/statm").read_text().split()[0])
    spent = int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CPU, (spent + DECODING_S, resource.RLIM_INFINITY))
