"""Works off the queue ``delivery``: one thread a channel, each delivery in a transaction of its own.

Decides when to try again and when to give up. The row stays locked while its subscriber is called and is marked after
the answer: who dies in between leaves it waiting, so it is sent again, with the same idempotency key (at least once).
"""

from __future__ import annotations

import smtplib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import sqlalchemy as sa
import structlog

from consumers.alerts import digest
from consumers.alerts.digest import Mailbox
from consumers.alerts.queue import DIGEST
from consumers.alerts.quiet import Quiet, slot
from consumers.alerts.webhook import Refused, Undelivered, Webhook, post
from consumers.loop import FIRST_WAIT_S, LONGEST_WAIT_S, passes
from schemas.clock import wall_clock
from schemas.envelope import derived_id

log = structlog.get_logger(__name__)
EVERY_S = 0.2
FIRST_RETRY_MS, LONGEST_RETRY_MS = 5_000, 3_600_000
LONGEST_REST_MS = 60_000
"""How long a subscriber that is down is left alone at most: each of its rows would cost a timeout."""
DIGEST_ROWS = 2_000
"""Alerts that one digest lists."""


def retry_at(attempts: int, now: int) -> int:
    """When to try again after failure number ``attempts``, from 1 (epoch ms): 5 s, doubled each time, up to an hour."""
    return now + min(LONGEST_RETRY_MS, FIRST_RETRY_MS << min(attempts - 1, 20))


def idempotency_key(channel: str, event_id: object) -> str:
    """The key of one statement to one subscriber: the same at every attempt."""
    return str(derived_id("delivery", channel, event_id))


@dataclass
class Deliverer:
    """Delivers to webhooks and makes digests."""

    engine: sa.Engine
    quiet: Quiet
    attempts: int
    clock: Callable[[], int] = wall_clock
    _down: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Channels that are down: how often in a row they were found so, and until when (epoch ms) they are left alone."""

    def webhook(self, hook: Webhook) -> Callable[[threading.Event], None]:
        """The work of one subscriber, to run in a thread."""
        return lambda stop: self._run(stop, hook.channel, lambda: self.call(hook))

    def digests(self, box: Mailbox, at: int) -> Callable[[threading.Event], None]:
        """The work of the digest at minute ``at`` of the day, to run in a thread."""
        return lambda stop: self._run(stop, DIGEST, lambda: self.digest(box, at))

    def _run(self, stop: threading.Event, channel: str, act: Callable[[], bool]) -> None:
        wait = FIRST_WAIT_S
        while not stop.is_set():
            try:
                if not act():
                    stop.wait(EVERY_S)
                wait = FIRST_WAIT_S
            except Exception as error:
                if not passes(error):
                    raise
                log.warning("delivery.waits", channel=channel, why=type(error).__name__, seconds=round(wait, 1))
                stop.wait(wait)
                wait = min(LONGEST_WAIT_S, wait * 2)

    def call(self, hook: Webhook) -> bool:
        """Try the delivery that has waited longest; False if none is due or the subscriber is left alone."""
        now = self.clock()
        if now < self._down.get(hook.channel, (0, 0))[1]:
            return False
        with self.engine.begin() as tx:
            row = tx.execute(_NEXT, {"channel": hook.channel, "now": now}).one_or_none()
            if row is None:
                return False
            held = self.quiet.alert_until(row.body["colour_code"], now)
            if held > now:
                tx.execute(_HOLD, {"channel": hook.channel, "id": row.event_id, "until": held})
                return True
            try:
                post(hook, idempotency_key(hook.channel, row.event_id), row.body, now)
            except Undelivered as error:
                self._failed(tx, hook.channel, row, str(error))
                self._found(hook.channel, isinstance(error, Refused))
            else:
                self._found(hook.channel, True)
                tx.execute(_DONE, {"channel": hook.channel, "ids": [row.event_id], "now": self.clock()})
        return True

    def _found(self, channel: str, up: bool) -> None:
        """Note how a subscriber was found; one that is down is left alone for twice as long each time."""
        times, now = self._down.pop(channel, (0, 0))[0] + 1, self.clock()
        if not up:
            self._down[channel] = (times, min(retry_at(times, now), now + LONGEST_REST_MS))

    def _failed(self, tx: sa.Connection, channel: str, row: sa.Row[*tuple[object, ...]], why: str) -> None:
        now, tried = self.clock(), row.attempts + 1
        dead = now if tried >= self.attempts else None
        log.warning("delivery.failed", channel=channel, event_id=str(row.event_id), attempt=tried, why=why,
                    dead=dead is not None)  # fmt: skip
        tx.execute(
            _FAILED,
            {"channel": channel, "id": row.event_id, "tried": tried, "why": why, "dead": dead,
             "again": retry_at(tried, now)},
        )  # fmt: skip

    def digest(self, box: Mailbox, at: int) -> bool:
        """Make the digest of what was queued before the last slot, once the quiet hours are over; False: nothing to
        tell.
        """
        now = self.clock()
        moment = slot(at, now)
        if self.quiet.until(now) > now:
            return False
        with self.engine.begin() as tx:
            rows = tx.execute(_DIGEST, {"channel": DIGEST, "slot": moment, "now": now, "most": DIGEST_ROWS}).all()
            if not rows:
                return False
            try:
                digest.send(box, digest.message(box, [r.body for r in rows], moment, rows[0].event_id), moment)
            except (OSError, smtplib.SMTPException) as error:
                for row in rows:
                    self._failed(tx, DIGEST, row, f"no mail ({type(error).__name__})")
            else:
                tx.execute(_DONE, {"channel": DIGEST, "ids": [r.event_id for r in rows], "now": self.clock()})
        return len(rows) == DIGEST_ROWS


def waiting(tx: sa.Connection, dead: bool = False) -> list[sa.Row[*tuple[object, ...]]]:
    """What is not delivered yet, oldest first; ``dead``: only what was given up."""
    return list(tx.execute(_WAITING, {"dead": dead}))


def heard(tx: sa.Connection, channel: str) -> bool:
    """Whether anything was ever for ``channel``."""
    return bool(tx.execute(_HEARD, {"channel": channel}).scalar_one())


def redrive(tx: sa.Connection, channel: str) -> int:
    """Have what was given up on ``channel`` ("": on any) tried anew; how many."""
    return tx.execute(_REDRIVE, {"channel": channel}).rowcount


_OPEN = "channel = :channel AND done_at IS NULL AND dead_at IS NULL"
_NEXT = sa.text(
    f"SELECT event_id, body, attempts FROM delivery WHERE {_OPEN} AND not_before <= :now "
    "ORDER BY not_before, seq LIMIT 1 FOR UPDATE SKIP LOCKED"
)
_DIGEST = sa.text(
    f"SELECT event_id, body, attempts FROM delivery WHERE {_OPEN} AND queued_at < :slot AND not_before <= :now "
    "ORDER BY seq LIMIT :most FOR UPDATE"
)
_ONE = "WHERE channel = :channel AND event_id = :id"
_HOLD = sa.text(f"UPDATE delivery SET not_before = :until {_ONE}")
_DONE = sa.text(
    "UPDATE delivery SET done_at = :now, attempts = attempts + 1, last_error = '' "
    "WHERE channel = :channel AND event_id = ANY(:ids)"
)
_FAILED = sa.text(
    "UPDATE delivery SET attempts = :tried, last_error = :why, dead_at = CAST(:dead AS bigint), not_before = :again "
    f"{_ONE}"
)
_WAITING = sa.text(
    "SELECT channel, event_id, case_no, queued_at, not_before, attempts, last_error, dead_at FROM delivery "
    "WHERE done_at IS NULL AND (NOT :dead OR dead_at IS NOT NULL) ORDER BY seq"
)
_HEARD = sa.text("SELECT EXISTS (SELECT FROM delivery WHERE channel = :channel)")
_REDRIVE = sa.text(
    "UPDATE delivery SET dead_at = NULL, attempts = 0, not_before = 0 "
    "WHERE dead_at IS NOT NULL AND (:channel = '' OR channel = :channel)"
)
