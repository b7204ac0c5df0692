"""Where a rule ends with an exception: the record is found and buried, so that one record does not stop everybody.

A processor is a function of the log. Where it fails it would fail again after every restart, and all departments
would wait for a release that can take one record. So the chunk is halved until the record stands alone; it becomes a
dead letter with the reason ``rule_failed`` and the place in the program, and the cursor passes it. It stays in the
log: ``govbus rebuild`` under a mended release applies it in its place (a consumer: ``govbus dlq redrive``).

What is no single record's fault still ends the process: a missing table, a missing module, too many such dead letters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import psycopg
import sqlalchemy as sa
import structlog

from schemas.errors import Fault, Misconfigured, Retryable
from streams.store.applier import Applied, Gap, apply_batch
from streams.store.engine import reading
from streams.store.failure import place
from streams.store.projection import Carried, Projection, Refused
from streams.store.steps import bury

MOST = 20
"""So many open dead letters of this kind at most; with more of them the program is at fault, not a record."""
NOBODYS = (Gap, Retryable, Misconfigured, ImportError, NameError, AttributeError, MemoryError)
"""What another record would meet as well, and what callers know how to take."""
A_RECORDS = (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.ProgramLimitExceeded)
"""Of the database's errors, those that a value brings: all others (no such table, no permission) meet every record."""
MEND = "report it; under a release that can take it: govbus rebuild, or for a consumer govbus dlq redrive"
_BURIED = sa.text("SELECT count(*) FROM dead_letter WHERE origin = 'STREAM' AND reason = 'rule_failed' AND field = '' "
                  "AND redriven_at IS NULL")  # fmt: skip
HALVED = "a chunk failed; applying its halves"
"""Said each time: where no single record fails, this is the only trace of a program that has become very slow."""
log = structlog.get_logger(__name__)
T = TypeVar("T")


def is_nobodys(error: BaseException) -> bool:
    """Whether no single record is at fault, so that another one would meet the same."""
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    if isinstance(cause, psycopg.Error):
        return not isinstance(cause, A_RECORDS)
    return isinstance(error, NOBODYS)


def together(tx: sa.Connection, act: Callable[[Sequence[T]], None], ones: Sequence[T]) -> list[tuple[T, Exception]]:
    """Let ``act`` take ``ones`` at once; where that fails, one by one. Those at which it fails then, each with its
    exception, left as they were; with over ``MOST`` of them the program is at fault, and it raises.
    """
    try:
        with tx.begin_nested():
            act(ones)
    except Exception as error:
        if is_nobodys(error):
            raise
        if len(ones) == 1:
            return [(ones[0], error)]
        failed = [failed for one in ones for failed in together(tx, act, [one])]
        if len(failed) > MOST:
            raise
        return failed
    return []


def apply(
    engine: sa.Engine,
    projection: Projection,
    carried: Sequence[Carried],
    since: Mapping[int, int],
    prepared: object = None,
    until: Mapping[int, int] | None = None,
) -> Applied:
    """As ``apply_batch``, but a record that the projection's rule cannot take is buried."""
    try:
        return apply_batch(engine, projection, carried, since, prepared, until)
    except Exception as error:
        if is_nobodys(error) or not len(carried):
            raise
        return _apart(engine, projection, list(carried), since, until, error)


def _apart(
    engine: sa.Engine,
    projection: Projection,
    carried: list[Carried],
    since: Mapping[int, int],
    until: Mapping[int, int] | None,
    error: Exception,
) -> Applied:
    """Apply both halves of what failed with ``error``, or bury it if it is one record."""
    if len(carried) == 1:
        return _bury(engine, projection, carried[0], since, until, error)
    log.warning(HALVED, processor=projection.name, records=len(carried), where=place(error))
    middle = len(carried) // 2
    first = apply(engine, projection, carried[:middle], since)
    reached = {one.partition: one.offset + 1 for one in carried[:middle]}
    second = apply(engine, projection, carried[middle:], {**since, **reached}, None, until)
    at = {**first.next_offsets, **second.next_offsets}
    return Applied(at, first.applied + second.applied, first.dropped + second.dropped)


def _bury(
    engine: sa.Engine,
    projection: Projection,
    one: Carried,
    since: Mapping[int, int],
    until: Mapping[int, int] | None,
    error: Exception,
) -> Applied:
    with reading(engine).connect() as tx:
        found = fault(tx, projection.name, one, error)
    return apply_batch(engine, _Burying(projection, found), [one], since, None, until)


def fault(tx: sa.Connection, processor: str, one: Carried, error: Exception) -> Fault:
    """Why ``one``, at which ``processor`` ended with ``error``, is a dead letter; raises that if there are ``MOST``."""
    if tx.execute(_BURIED).scalar_one() >= MOST:
        raise error
    where = place(error)
    log.error("a rule failed; its record is a dead letter", processor=processor, topic=one.topic.name,
              partition=one.partition, offset=one.offset, where=where)  # fmt: skip
    return Fault("rule_failed", "", f"{processor}: {where}", MEND)


class _Burying:
    """Stands in for a processor: buries what it is given, at the processor's cursor."""

    def __init__(self, projection: Projection, fault: Fault) -> None:
        self.name, self.topic, self._fault = projection.name, projection.topic, fault

    def apply(self, tx: sa.Connection, carried: Sequence[Carried]) -> None:
        bury(tx, [Refused(one, self._fault) for one in carried])
