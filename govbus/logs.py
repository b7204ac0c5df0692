"""Structured logs for every process: JSON lines, or colours on a terminal; never personal data.

A field of a log line that bears the name of a personal field of any contract is replaced; exceptions are
logged by type and place, because their messages may quote values.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import MutableMapping
from functools import cache
from typing import Any

import structlog

from schemas import access
from schemas.contracts import personal_fields
from schemas.topics import TOPICS

HIDDEN = "[personal]"
QUOTING, QUOTED = ("asyncio", "mode", "faust"), re.compile(r"\s*\b(?:exception|reason|result)=|\n")
SILENT = ("kafka",)
"""Says every failed connection as an error; our own loops say once what they wait for."""
NOISY = ("aiokafka", "faust", "mode", "httpx", "httpcore", "alembic", "asyncio")


def configure(level: str = "INFO", process: str = "") -> None:
    """Send structlog and the standard library's logging to standard error; ``process`` names this process
    in each line.
    """
    terminal = sys.stderr.isatty()
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        without_messages,
        without_personal,
        with_mend,
        without_values,
    ]
    render: Any = structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer(ensure_ascii=False)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(level)
    for name in SILENT:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    for name in NOISY:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))
    if process:
        structlog.contextvars.bind_contextvars(process=process)


def without_personal(_: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace the values of fields that some contract marks as personal."""
    for name in _personal() & line.keys():
        line[name] = HIDDEN
    return line


def without_messages(_: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace an exception by its type and the places it passed."""
    given = line.pop("exc_info", None)
    if not given:
        return line
    error = given if isinstance(given, BaseException) else given[1] if isinstance(given, tuple) else sys.exc_info()[1]
    if error is not None:
        frames = traceback.extract_tb(error.__traceback__)
        line["error"] = type(error).__name__
        line["frames"] = [f"{f.filename.rsplit('/', 1)[-1]}:{f.lineno} {f.name}" for f in frames[-12:]]
    return line


def with_mend(_: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add the settings to look at where aiokafka says that Kafka does not let us in."""
    if str(line.get("logger", "")).startswith("aiokafka") and (names := access.mend(str(line.get("event")))):
        line["mend"] = names
    return line


def without_values(_: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Cut what libraries say of a failure where they begin to quote it: an exception's text may be a row's value."""
    if str(line.get("logger", "")).startswith(QUOTING):
        line["event"] = QUOTED.split(str(line["event"]), maxsplit=1)[0]
    return line


@cache
def _personal() -> frozenset[str]:
    return frozenset[str]().union(*map(personal_fields, TOPICS))
