"""How a worker ends that must not go on: at once, saying where, and nothing else."""

from __future__ import annotations

import os
import sys
import traceback

import structlog

from schemas.errors import Misconfigured

log = structlog.get_logger(__name__)


def die(name: str, error: BaseException) -> None:
    """End the process with exit code 70, 78 if ``Misconfigured``. Says where; not the message, which may hold personal
    data, unless it is one of ours for the operator.
    """
    while isinstance(error, SystemExit) and error.__context__ is not None:
        error = error.__context__
    wrong = isinstance(error, Misconfigured)
    frames = traceback.extract_tb(error.__traceback__)[-12:]
    log.critical(
        "fault: ending the process",
        where=name,
        error=type(error).__name__,
        code=_code(error),
        **({"why": str(error)} if wrong else {}),
        frames=[f"{f.filename.rsplit('/', 1)[-1]}:{f.lineno} {f.name}" for f in frames],
    )
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(os.EX_CONFIG if wrong else os.EX_SOFTWARE)


def _code(error: BaseException) -> str:
    """SQLSTATE of a database error, else the exit code or nothing."""
    cause = getattr(error, "orig", error)
    return str(getattr(cause, "sqlstate", None) or getattr(cause, "code", None) or "")
