"""Child processes of a benchmark: stopped for certain, quiet unless they die."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from connectors.local.process import die_with_parent
from schemas.errors import GovbusError

ROOT = Path(__file__).parents[1]


@contextmanager
def running(
    command: Sequence[str], log: Path, *, piped: bool = False, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run ``command`` (in our environment or in ``env``); its errors go to ``log``, its output there too or, if
    ``piped``, to us.
    """
    with log.open("w") as errors:
        out: int | IO[str] = subprocess.PIPE if piped else errors
        child = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=errors,
            text=True,
            cwd=ROOT,
            env=env,
            preexec_fn=die_with_parent,
        )
        try:
            yield child
        finally:
            stop(child)


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs a module with our interpreter."""
    return [sys.executable, "-m", module, *arguments]


def stop(child: subprocess.Popen[str]) -> None:
    """Ask the child to end, kill it after five seconds."""
    child.terminate()
    try:
        child.wait(5)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    if child.stdout:
        child.stdout.close()


def must_live(child: subprocess.Popen[str], log: Path, patience: float = 0.0) -> None:
    """Raise ``GovbusError`` with the log's last lines if the child has ended, or ends within ``patience`` seconds."""
    if patience:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(patience)
    if child.poll() is not None:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise GovbusError(f"a measured process ended with {child.returncode}:\n{tail}")


def wait(until: float) -> None:
    """Sleep until that moment of ``time.monotonic``."""
    time.sleep(max(0.0, until - time.monotonic()))
