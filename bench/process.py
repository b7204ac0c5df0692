"""Child processes of a benchmark: started with our interpreter, stopped for certain, quiet unless they
die.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from schemas.errors import GovbusError

ROOT = Path(__file__).parents[1]


@contextmanager
def python(module: str, arguments: Sequence[str], log: Path, *, piped: bool = False) -> Iterator[subprocess.Popen[str]]:
    """Run ``python -m module``; its errors go to ``log``, its output there too or, if ``piped``, to us."""
    with log.open("w") as errors:
        out: int | IO[str] = subprocess.PIPE if piped else errors
        command = [sys.executable, "-m", module, *arguments]
        child = subprocess.Popen(command, stdout=out, stderr=errors, text=True, cwd=ROOT)
        try:
            yield child
        finally:
            _stop(child)


def _stop(child: subprocess.Popen[str]) -> None:
    child.terminate()
    try:
        child.wait(5)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    if child.stdout:
        child.stdout.close()


def must_live(child: subprocess.Popen[str], log: Path) -> None:
    """Raise ``GovbusError`` with the log's last lines if the child has ended."""
    if child.poll() is not None:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise GovbusError(f"a measured process ended with {child.returncode}:\n{tail}")
