"""The processes under test: started, killed, stopped, started again with or without an armed failpoint.

All from the one thread that calls (the kernel ties a child to the thread that started it). Decides nothing about
faults; says how every life ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from connectors.local.process import die_with_parent, free_port
from govbus.chaos.ground import Ground, command, environment

KINDS = {
    "feed": "feed", "relay": "relay", "worker-1": "worker", "worker-2": "worker", "consume": "consume", "push": "push",
    "province": "province", "worker-3": "worker", "worker-4": "worker",
}  # fmt: skip
"""Every process by its name: what kind it is."""
USUAL = tuple(name for name in KINDS if name not in ("worker-3", "worker-4"))
"""Those that run unless a fault asks for more workers."""


@dataclass(slots=True)
class Life:
    """A process from its start to its end. ``place``: the failpoint it was armed with."""

    name: str
    process: subprocess.Popen[bytes]
    place: str
    began: float = field(default_factory=time.monotonic)
    killed: bool = False

    @property
    def age(self) -> float:
        """Seconds since its start."""
        return time.monotonic() - self.began


@dataclass(frozen=True, slots=True)
class Death:
    """How a life ended. ``by``: the failpoint, "kill" for a kill from outside, "itself" for everything else."""

    name: str
    by: str
    code: int
    seconds: float


class Fleet:
    """Holds one process a name; use as a context manager. ``extra``: more settings for every process."""

    def __init__(
        self, ground: Ground, names: Sequence[str] = USUAL, extra: Mapping[str, str] | None = None
    ) -> None:
        self.names = names
        self.lives: dict[str, Life] = {}
        self.deaths: list[Death] = []
        self.planted: Mapping[str, Sequence[str]] = {}
        """Planted bugs by the kind of process that carries them from its next start on."""
        self.releases: dict[str, Path] = {}
        """By name, the directory whose packages a process runs from its next start on; left out: ours."""
        self._ground = ground
        self._extra = extra or {}
        self._province_port = free_port()  # a killed province's usual port would be taken by that of another rig

    def __enter__(self) -> Fleet:
        self._ground.logs.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        for life in self.lives.values():
            life.process.kill()
        for life in self.lives.values():
            life.process.wait()

    def start(self, name: str, place: str = "") -> None:
        """Start ``name``, which does not run, armed with ``place``."""
        env = {**self._ground.env(), "GOVBUS_WORKER_NAME": name, "GOVBUS_FAILPOINT": place, **self._extra}
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                self._command(KINDS[name]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.releases.get(name),  # where ``python -m`` looks first
                env=environment(env),
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        self.lives[name] = Life(name, process, place)

    def log(self, name: str) -> Path:
        """Where a process writes."""
        return self._ground.logs / f"{name}.log"

    def kill(self, name: str) -> None:
        """kill -9 from outside."""
        self.lives[name].killed = True
        self.lives[name].process.kill()

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a running process."""
        os.kill(self.lives[name].process.pid, number)

    def reap(self) -> list[Death]:
        """The lives that ended since the last call; none of them is started again here."""
        ended = [life for life in self.lives.values() if life.process.poll() is not None]
        deaths = [Death(life.name, _by(life), life.process.returncode, life.age) for life in ended]
        for life in ended:
            del self.lives[life.name]
        self.deaths += deaths
        return deaths

    def missing(self) -> list[str]:
        """Names that do not run."""
        return [name for name in self.names if name not in self.lives]

    def _command(self, kind: str) -> list[str]:
        own = {"feed": ["govbus.chaos.feed", str(self._ground.home)],
               "province": ["govbus.cli", "province", "--port", str(self._province_port)]}  # fmt: skip
        words = own.get(kind, ["govbus.cli", kind])
        planted = self.planted.get(kind, ())
        return command("govbus.chaos.planted", *planted, "--", *words) if planted else command(*words)


def _by(life: Life) -> str:
    if life.process.returncode != -signal.SIGKILL:
        return "itself"
    return "kill" if life.killed else life.place.partition(":")[0] or "itself"
