"""Processes that outlive or die with their parent, remembered so that a recycled pid is not mistaken for
ours.

Decides what "running" means for the local stack: a pid *and* its start time.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

LOOPBACK = "127.0.0.1"
PORTS = range(20_000, 32_000)
"""Below those that Linux hands out to outgoing connections (32768 and up), so that a restart finds them
free.
"""
_PR_SET_PDEATHSIG = 1
Say = Callable[[str], None]
"""Told what an operator should know."""


def silent(_: str) -> None:
    """Says nothing."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A process as the kernel knows it: ``pid`` and ``started`` (seconds since the epoch)."""

    pid: int
    started: float

    @classmethod
    def of(cls, pid: int) -> Identity:
        """The identity of a running process; raises ``psutil.NoSuchProcess`` if there is none."""
        return cls(pid, psutil.Process(pid).create_time())

    def process(self) -> psutil.Process | None:
        """The process, or None when it is gone, a zombie, or the pid belongs to another by now."""
        with contextlib.suppress(psutil.Error):
            found = psutil.Process(self.pid)
            same = abs(found.create_time() - self.started) < 1.0
            if same and found.status() != psutil.STATUS_ZOMBIE:
                return found
        return None

    def alive(self) -> bool:
        """Whether that very process runs."""
        return self.process() is not None


def die_with_parent() -> None:
    """For ``preexec_fn``: the kernel kills this child when the thread that started it ends (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def find_by_words(pid: int, *words: str) -> Identity | None:
    """The identity of process ``pid`` if ``words`` stand one after another in its command line, else None.

    One word would not do: an editor that has our configuration open is no server of ours.
    """
    with contextlib.suppress(psutil.Error):
        line = tuple(psutil.Process(pid).cmdline())
        if any(line[at : at + len(words)] == words for at in range(len(line))):
            return Identity.of(pid)
    return None


def search_by_words(*words: str) -> Identity | None:
    """The identity of any process that has ``words`` one after another in its command line."""
    found = (find_by_words(pid, *words) for pid in psutil.pids())
    return next((identity for identity in found if identity), None)


def stop(process: psutil.Process, first: signal.Signals = signal.SIGTERM, patience: float = 20.0) -> None:
    """Signals a process, waits up to ``patience`` seconds, then kills it; returns when it has ended.

    A zombie has ended: whoever started it may be another process that has not looked yet.
    """
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(first)
        if not wait_until(lambda: _ended(process), patience, every=0.01):
            process.kill()
            wait_until(lambda: _ended(process), 10, every=0.01)


def end(identity: Identity | None, first: signal.Signals) -> None:
    """Like ``stop``, for a process that may be gone or have never been."""
    process = identity.process() if identity else None
    if process:
        stop(process, first)


def _ended(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def port_is_free(port: int) -> bool:
    """Whether a loopback TCP port can be bound now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_port(wanted: int | None = None, taken: set[int] | None = None) -> int:
    """``wanted`` if it can be bound, else any free port of ``PORTS`` that is not in ``taken``."""
    taken = taken or set()
    if wanted and wanted not in taken and port_is_free(wanted):
        return wanted
    for _ in range(1000):
        port = random.choice(PORTS)
        if port not in taken and port_is_free(port):
            return port
    raise OSError(f"no free TCP port on {LOOPBACK} between {PORTS.start} and {PORTS.stop}")


def wait_until(ready: Callable[[], bool], seconds: float, every: float = 0.05) -> bool:
    """Polls ``ready`` until it is true or ``seconds`` have passed; says which."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds an exclusive lock on ``path`` (waits for whoever has it); the kernel frees it if we die."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def read_state(path: Path) -> dict[str, Any]:
    """A component's remembered ports and identity; empty when there is none or it was cut off."""
    try:
        state = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return state if isinstance(state, dict) else {}


def write_state(path: Path, **state: object) -> None:
    """Replaces a component's state file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    draft.write_text(json.dumps(state, indent=1))
    draft.replace(path)


def identity_of(state: dict[str, Any]) -> Identity | None:
    """The identity that ``write_state(identity=remember(...))`` kept, if any."""
    kept = state.get("identity")
    return Identity(int(kept["pid"]), float(kept["started"])) if isinstance(kept, dict) else None


def remember(identity: Identity | None) -> dict[str, Any] | None:
    """An identity as JSON."""
    return asdict(identity) if identity else None


def tail(path: Path, lines: int = 15) -> str:
    """The last lines of a log, for an error message."""
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return f"(no log at {path})"
