"""Keeps child processes running: starts them, restarts what dies and says why, stops them all at the end.

Decides when a child is started again; knows nothing of what the children do. Children never outlive it: on Linux
the kernel kills them with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from connectors.local.process import die_with_parent, tail, wait_until
from schemas.errors import Retryable
from streams.store.signals import Told, on_signals

MISCONFIGURED = 78
"""Exit code after which a restart cannot help (sysexits' EX_CONFIG)."""
LOG_LIMIT = 20_000_000
"""Bytes after which a log is set aside (one old log is kept) at the child's next start."""
EVERY = 0.05


@dataclass(frozen=True, slots=True)
class Child:
    """A command to keep running. ``ready`` is asked until it is true; None: ready as soon as it runs.

    ``after``: seconds after the supervisor's start at which it is started first. ``nice``: how far it steps
    back for the others when the processors are busy (0 to 19).
    """

    name: str
    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    ready: Callable[[], bool] | None = None
    after: float = 0.0
    nice: int = 0


@dataclass(frozen=True, slots=True)
class Ended:
    """A child that ended although nobody asked it to. ``code`` as ``subprocess`` gives it: -9 is signal 9."""

    name: str
    pid: int
    code: int
    ran_seconds: float
    restart_in: float | None
    said: str

    def __str__(self) -> str:
        again = "not restarted" if self.restart_in is None else f"restarting in {self.restart_in:.1f} s"
        return f"{self.name} ({self.pid}) ended after {self.ran_seconds:.1f} s: {why(self.code)}; {again}"


@dataclass(slots=True)
class _Running:
    child: Child
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    failures: int = 0
    start_at: float = 0.0
    given_up: bool = False


def why(code: int) -> str:
    """An exit code in words."""
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}"
        return f"killed by signal {-code}"
    known = {0: "by itself", 70: "exit code 70, internal error", MISCONFIGURED: "exit code 78, misconfigured"}
    return known.get(code, f"exit code {code}")


class Supervisor:
    """Runs children from ``start`` (or ``with``) to ``stop``; each writes to ``logs/<name>.log``.

    A child that ends is started again after ``backoff[0]`` seconds, doubled at each failure up to
    ``backoff[1]``, and counted afresh once it has run for ``steady`` seconds. ``grace`` is how long a
    child may take to end when asked.
    """

    def __init__(
        self,
        children: Sequence[Child],
        logs: Path,
        *,
        on_end: Callable[[Ended], None] | None = None,
        backoff: tuple[float, float] = (0.5, 10.0),
        steady: float = 10.0,
        grace: float = 15.0,
    ) -> None:
        self._all = {child.name: _Running(child) for child in children}
        self.logs = logs
        self._on_end = on_end
        self._backoff = backoff
        self._steady = steady
        self._grace = grace
        self._stopping = threading.Event()
        self._watcher: threading.Thread | None = None

    def start(self) -> None:
        """Starts every child and watches them from a thread."""
        self.logs.mkdir(parents=True, exist_ok=True)
        self._stopping.clear()
        for running in self._all.values():
            running.start_at = time.monotonic() + running.child.after
        self._watcher = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        self._watcher.start()

    def stop(self) -> None:
        """Asks every child to end (SIGTERM), kills what has not after ``grace`` seconds, returns when all
        are gone.
        """
        self._stopping.set()
        if self._watcher:
            self._watcher.join()
            self._watcher = None

    def __enter__(self) -> Supervisor:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def pid(self, name: str) -> int | None:
        """Process id of a child that runs, else None."""
        process = self._all[name].process
        return process.pid if process and process.poll() is None else None

    def log(self, name: str) -> Path:
        """Where a child's output goes."""
        return self.logs / f"{name}.log"

    def wait_ready(self, seconds: float, names: Collection[str] = ()) -> None:
        """Returns when every child (of ``names``, if given) runs and is ready; else raises ``Retryable`` with
        the late ones' logs.
        """
        wanted = set(names or self._all)
        if not wait_until(lambda: not wanted & set(self._unready()), seconds, every=EVERY):
            late = sorted(wanted & set(self._unready()))
            raise Retryable("\n".join(f"{name} is not ready:\n{tail(self.log(name))}" for name in late))

    def run(self, seconds: float | None = None) -> None:
        """Waits for SIGINT or SIGTERM (or ``seconds``), then stops the children; call from the main
        thread.
        """
        asked = Told()
        with on_signals(asked):
            asked.wait(seconds)
        self.stop()

    def _unready(self) -> list[str]:
        return [n for n, r in self._all.items() if not (self.pid(n) and (r.child.ready is None or r.child.ready()))]

    def _watch(self) -> None:
        """The one thread that starts children: the kernel ties a child to the thread that started it."""
        try:
            while not self._stopping.wait(EVERY):
                for running in self._all.values():
                    self._look_at(running)
        finally:
            self._end_all()

    def _look_at(self, running: _Running) -> None:
        if running.process is None:
            if not running.given_up and time.monotonic() >= running.start_at:
                self._spawn(running)
            return
        code = running.process.poll()
        if code is not None:
            self._note(running, running.process, code)

    def _spawn(self, running: _Running) -> None:
        path = self.log(running.child.name)
        if path.exists() and path.stat().st_size > LOG_LIMIT:
            path.replace(path.with_suffix(".log.1"))
        with path.open("ab") as log:
            running.process = subprocess.Popen(
                list(running.child.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **running.child.env},
                start_new_session=True,
                preexec_fn=partial(_begin, running.child.nice),
            )
        running.started = time.monotonic()

    def _note(self, running: _Running, process: subprocess.Popen[bytes], code: int) -> None:
        ran = time.monotonic() - running.started
        running.failures = 1 if ran >= self._steady else running.failures + 1
        wait = min(self._backoff[0] * 2 ** (running.failures - 1), self._backoff[1])
        running.given_up = code == MISCONFIGURED
        running.start_at = time.monotonic() + wait
        running.process = None
        name = running.child.name
        again = None if running.given_up else wait
        ended = Ended(name, process.pid, code, ran, again, tail(self.log(name)))
        if self._on_end:
            self._on_end(ended)

    def _end_all(self) -> None:
        left = [r.process for r in self._all.values() if r.process and r.process.poll() is None]
        for process in left:
            _signal_group(process, signal.SIGTERM)
        wait_until(lambda: all(p.poll() is not None for p in left), self._grace, every=EVERY)
        for process in left:
            _signal_group(process, signal.SIGKILL)
            process.wait()


def _begin(nice: int) -> None:
    """In the child, before its program."""
    die_with_parent()
    os.nice(nice)


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signals a child and whatever it started: it leads a process group of its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
