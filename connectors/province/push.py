"""Ratings and rollups on their way to the province: queue once, send in batches, keep the signed receipt.

Decides when to try again and what counts as a receipt. A batch keeps its id and content over retries and
restarts: both are stored before the first byte is sent. Records that the province refuses stay in the queue
with its reason, until somebody has them sent again; one that it refuses without a word of its own, by a status, is set
aside only while it takes others.
"""

from __future__ import annotations

import json
import random
import threading
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from itertools import accumulate
from typing import Any

import httpx
import sqlalchemy as sa
import structlog
from sqlalchemy.dialects.postgresql import insert

from connectors.province import format, line
from schemas import codec, receipts
from schemas.errors import Retryable
from schemas.topics import BY_NAME, Topic
from streams.store import bulk, failpoints
from streams.store.engine import is_transient, why
from streams.store.projection import Event
from streams.store.tables import outbox, push_queue, receipt

log = structlog.get_logger(__name__)
BATCH, BATCH_BYTES = 500, 4 * 1024 * 1024
"""Records of a batch at most, and about how many bytes: a platform refuses a request that is larger than it takes."""
IDLE_S = 0.5
"""How long records gather before the next batch: a transaction, a request and a signature for each would starve what
cannot wait on the same server."""
FIRST_WAIT_S, LONGEST_WAIT_S, LONGEST_RETRY_AFTER_S = 0.5, 60.0, 600.0
LOCK = 430_903_001
"""PostgreSQL advisory lock of the one sender; a second one stands by."""
REASON = 300
"""Characters of why there is no answer."""
LATER, TOO_LARGE, OTHER_CONTENT = frozenset({408, 409, 425, 429}), 413, 409
MOST_DOUBTED = 5
"""So many records that a status refuses are passed over at most: a province that refuses all of them is not to be asked
about the whole queue, one by one.
"""


class Queue:
    """Effect of the pushed topics: every record into ``push_queue``, once."""

    name = "province-queue"
    topics: tuple[Topic, ...] = format.PUSHED
    patience_ms = 250

    def apply(self, tx: sa.Connection, events: Sequence[Event]) -> None:
        """Queue ``events`` in the order of the log."""
        rows = [_queued(e.carried.topic, e.event_id, e.digest, e.record) for e in events]
        if rows:
            tx.execute(_QUEUE, rows)


_QUEUE = insert(push_queue).on_conflict_do_nothing(index_elements=["event_id"])


def _queued(topic: Topic, event_id: uuid.UUID, digest: uuid.UUID, record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "event_id": event_id,
        "topic": topic.name,
        "region": record["region"],
        "department": record["department"],
        "digest": digest,
        "body": format.body(topic, record),
    }


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing to send."""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A batch was sent and its receipt is stored; it could have had ``most`` records."""

    batch_id: uuid.UUID
    records: int
    refused: int
    most: int = BATCH


@dataclass(frozen=True, slots=True)
class Again:
    """Not acknowledged; try the same batch again, ``after`` seconds if the province said so; ``too_large``, or
    ``refused`` by this status: try its records in smaller ones; ``other_content``: form it anew.
    """

    why: str
    after: float | None = None
    too_large: bool = False
    other_content: bool = False
    refused: int = 0


Outcome = Idle | Acknowledged | Again


@dataclass
class Sender:
    """Sends the queue in order, a batch of at most ``most`` records at a time. ``address``: the province's URL and
    public key (hex).
    """

    engine: sa.Engine
    address: Callable[[], tuple[str, str]]
    region: str
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=line.TIMEOUT, trust_env=False))
    clock: Callable[[], float] = time.time
    jitter: Callable[[], float] = random.random
    most: int = BATCH
    _line: line.Line = field(default_factory=line.Line, init=False)
    _doubted: set[uuid.UUID] = field(default_factory=set, init=False)
    """Batches of one record that a status refused; whoever starts again knows none and finds them anew."""
    _taking: bool = field(default=False, init=False)
    """Whether the province has just acknowledged something."""

    def run(self, stop: threading.Event, tell: Callable[[Outcome], None] = lambda _: None) -> None:
        """Send until ``stop``, as the only sender on this database."""
        failures = 0
        while not stop.is_set():
            try:
                with self.engine.connect() as guard:
                    if not self._only_sender(guard, stop):
                        return
                    while not stop.is_set():
                        outcome = self.step()
                        tell(outcome)
                        failures = failures + 1 if isinstance(outcome, Again) else 0
                        stop.wait(self.wait(outcome, failures))
                        guard.execute(sa.text("SELECT 1"))  # the lock is gone with its connection
                        guard.commit()
            except Exception as error:
                if not is_transient(error):
                    raise
                failures += 1
                log.warning("push.waits", waits_for="the database", why=why(error))
                stop.wait(self.wait(Again("database"), failures))

    def _only_sender(self, guard: sa.Connection, stop: threading.Event) -> bool:
        """Wait for the lock of the one sender; False if told to stop first."""
        said = False
        while not stop.is_set():
            held = guard.execute(sa.select(sa.func.pg_try_advisory_lock(LOCK))).scalar_one()
            guard.commit()
            if held:
                return True
            if not said:
                log.info("push.stands_by", why="another sender is at work")
                said = True
            stop.wait(1.0)
        return False

    def wait(self, outcome: Outcome, failures: int) -> float:
        """Seconds until the next step: 0 after a full batch, backoff with jitter or as told after a failure."""
        if isinstance(outcome, Acknowledged) and outcome.records >= outcome.most:
            return 0.0
        if not isinstance(outcome, Again):
            return IDLE_S
        backoff: float = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(failures - 1, 16)) * (
            0.5 + self.jitter() / 2
        )
        return backoff if outcome.after is None else max(backoff, min(outcome.after, LONGEST_RETRY_AFTER_S))

    def step(self) -> Outcome:
        """Send the oldest unacknowledged batch, forming one if there is none."""
        with self.engine.begin() as tx:
            rows = self._next(tx)
        if not rows:
            return Idle()
        batch_id = rows[0]["batch_id"]
        failpoints.reach("push.after_form")
        try:
            url, public_key = self.address()
            answer = self._post(url, batch_id, rows)
            failpoints.reach("push.after_post")
            if isinstance(answer, Again):
                return self._told(batch_id, answer, len(rows))
            body = receipts.check(answer, batch_id, {r["event_id"]: r["digest"] for r in rows}, public_key)
        except Retryable as error:
            return self._told(batch_id, Again(str(error)))
        except receipts.NotAReceipt as error:
            return self._told(batch_id, Again(f"not a receipt: {error}"))
        with self.engine.begin() as tx:
            done = _keep(tx, batch_id, body, str(answer["signature"]), int(self.clock() * 1000))
            failpoints.reach("push.before_keep_commit")
        failpoints.reach("push.after_keep")
        self._taking = True
        self._doubted.discard(batch_id)
        done = replace(done, most=self.most)
        self.most = _larger(self.most, len(rows))
        return done

    def _next(self, tx: sa.Connection) -> list[Mapping[str, Any]]:
        """The oldest open batch or a new one. Doubted ones are passed over until another is acknowledged, and then
        tried once more; where nothing else is left, or ``MOST_DOUBTED`` are, it begins again with the first.
        """
        if not self._taking and len(self._doubted) == MOST_DOUBTED:
            self._doubted.clear()
        passed: Collection[uuid.UUID] = () if self._taking else self._doubted
        rows = _open_batch(tx, passed) or _form_batch(tx, self.region, self.most)
        if not rows and self._doubted:
            self._doubted.clear()
            rows = _open_batch(tx)
        return rows

    def _told(self, batch_id: uuid.UUID, again: Again, records: int = 0) -> Again:
        """Say why the batch goes again and count the attempt. One that is too large for the province, or that it
        refuses, is given up, and its ``records`` form new ones of half the size; so is one whose id the province knows
        with another content, for then the sender's region has changed, which is part of both: what was stored before
        will be known again. A record refused alone is doubted, and set aside if it was already and another is taken.
        """
        log.warning("push.waits", waits_for="the province", batch=str(batch_id), why=again.why)
        smaller = records > 1 and (again.too_large or again.refused > 0)
        doubted = records == 1 and again.refused > 0
        aside = doubted and batch_id in self._doubted
        with self.engine.begin() as tx:
            mine = sa.update(push_queue).where(push_queue.c.batch_id == batch_id)
            tx.execute(mine.values(attempts=push_queue.c.attempts + 1))
            if smaller or again.other_content:
                tx.execute(mine.values(batch_id=None))
            if aside:
                tx.execute(mine.values(refused_reason=f"http {again.refused}"))
        if smaller:
            self.most = records // 2
        if doubted:
            self._doubted ^= {batch_id}
        self._taking = aside
        return again

    def _post(
        self, url: str, batch_id: uuid.UUID, rows: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any] | Again:
        """The province's JSON answer, or why there is none. Redirects are not followed."""
        content = receipts.canonical(format.batch(batch_id, self.region, rows))
        headers = {"Idempotency-Key": str(batch_id), "Content-Type": "application/json", **line.PLAIN}
        sent: dict[str, Any] = {"content": content, "headers": headers, "extensions": {"trace": self._line.trace}}
        try:
            address = f"{url.rstrip('/')}/v1/batches"
            with self._line.bounded(), self.client.stream("POST", address, **sent) as response:
                if not response.is_success:
                    return self._unwilling(response)
                text = line.read(response)
        except httpx.HTTPError as error:
            return Again(f"no answer: {_reason(error)}")
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError):
            raise receipts.NotAReceipt("the answer is not JSON") from None
        if not isinstance(answer, dict):
            raise receipts.NotAReceipt("the answer is not an object")
        return answer

    def _unwilling(self, response: httpx.Response) -> Again:
        """What a status says that is no success."""
        status = response.status_code
        why = f"the province answers {status} {httpx.codes.get_reason_phrase(status)}".rstrip()
        refuses = 400 <= status < 500 and status not in LATER | {TOO_LARGE}
        return Again(
            why, self._retry_after(response), status == TOO_LARGE, status == OTHER_CONTENT, status if refuses else 0
        )

    def _retry_after(self, response: httpx.Response) -> float | None:
        """Seconds that ``Retry-After`` asks for (RFC 9110 §10.2.3: seconds or a date), or None."""
        text = response.headers.get("Retry-After", "")
        if text.isdecimal():
            return float(text)
        try:
            moment = parsedate_to_datetime(text)
        except (ValueError, OverflowError):
            return None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return max(0.0, moment.timestamp() - self.clock())


def _reason(error: httpx.HTTPError) -> str:
    """What kept an answer away. Of a connection the system's own words too, as of a certificate; other errors may quote
    what was sent or came back.
    """
    words = f": {error}" if isinstance(error, httpx.NetworkError) and str(error) else ""
    return f"{type(error).__name__}{words}"[:REASON]


_UNDONE = push_queue.c.refused_reason.is_(None)


def _open_batch(tx: sa.Connection, but: Collection[uuid.UUID] = ()) -> list[Mapping[str, Any]]:
    """The rows of the oldest batch that is formed but not acknowledged and not among ``but``, in order."""
    formed = push_queue.c.batch_id.is_not(None), push_queue.c.batch_id.not_in(but)
    first = sa.select(push_queue.c.batch_id).where(*formed, _UNDONE)
    batch_id = tx.execute(first.order_by(push_queue.c.seq).limit(1)).scalar_one_or_none()
    if batch_id is None:
        return []
    rows = sa.select(push_queue).where(push_queue.c.batch_id == batch_id, _UNDONE).order_by(push_queue.c.seq)
    return [dict(r) for r in tx.execute(rows).mappings()]


def _form_batch(tx: sa.Connection, region: str, most: int = BATCH) -> list[Mapping[str, Any]]:
    """The next rows of the queue, ``most`` of them, as a new batch; its id is stored with them."""
    free = sa.select(push_queue).where(push_queue.c.batch_id.is_(None), _UNDONE)
    found = tx.execute(free.order_by(push_queue.c.seq).limit(most).with_for_update()).mappings()
    rows = _fitting([dict(r) for r in found])
    if not rows:
        return []
    ids = [r["event_id"] for r in rows]
    batch_id = _new_id(tx, region, ids, sum(r["attempts"] for r in rows))
    tx.execute(_OF_BATCH, {"ids": ids, "formed": batch_id})
    return [{**r, "batch_id": batch_id} for r in rows]


_OF_BATCH = (
    sa.update(push_queue).where(bulk.any_of(push_queue.c.event_id, "ids")).values(batch_id=sa.bindparam("formed"))
)


def _new_id(tx: sa.Connection, region: str, ids: Sequence[uuid.UUID], tried: int) -> uuid.UUID:
    """The id of a batch that has no receipt yet: whoever knows an id answers as before."""
    batch_id = format.batch_id(region, ids, tried)
    known = tx.execute(sa.select(receipt.c.batch_id).where(receipt.c.batch_id == batch_id)).first()
    return _new_id(tx, region, ids, tried + 1) if known else batch_id


def _fitting(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first rows that make a batch of ``BATCH_BYTES`` at most; one at least."""
    sizes = accumulate(len(receipts.canonical(row["body"])) for row in rows)
    return rows[: max(1, sum(size <= BATCH_BYTES for size in sizes))]


def _larger(most: int, taken: int) -> int:
    """``most`` after a batch of ``taken`` records: a tenth more if that was all it could have. What a province takes is
    found once; to try the largest batch after each success would cost refusals and their pauses every time.
    """
    return min(BATCH, most + max(1, most // 10)) if taken >= most else most


def _keep(
    tx: sa.Connection, batch_id: uuid.UUID, body: Mapping[str, Any], signature: str, now: int
) -> Acknowledged:
    """Store the receipt; acknowledged records leave the queue, refused ones stay with the reason."""
    row = {"batch_id": batch_id, "received_at": now, "body": body, "signature": signature}
    tx.execute(insert(receipt).values(row).on_conflict_do_nothing(index_elements=["batch_id"]))
    refused = [r for r in body["records"] if r["outcome"] == receipts.REFUSED]
    for r in refused:
        mine = sa.update(push_queue).where(push_queue.c.event_id == uuid.UUID(r["event_id"]))
        tx.execute(mine.values(refused_reason=str(r.get("reason") or "no reason given")[:500]))
    tx.execute(sa.delete(push_queue).where(push_queue.c.batch_id == batch_id, _UNDONE))
    return Acknowledged(batch_id, len(body["records"]), len(refused))


def refused(tx: sa.Connection) -> dict[str, int]:
    """How many records the province refused, by its reason."""
    why = push_queue.c.refused_reason
    rows = tx.execute(sa.select(why, sa.func.count()).where(why.is_not(None)).group_by(why).order_by(why))
    return {str(reason): n for reason, n in rows}


def again(tx: sa.Connection, reason: str = "") -> int:
    """Have what the province refused (for ``reason``; "": for any) sent once more as if it had never been; how many."""
    mine = sa.update(push_queue).where(push_queue.c.refused_reason == reason if reason else ~_UNDONE)
    return tx.execute(mine.values(refused_reason=None, batch_id=None)).rowcount


@dataclass(frozen=True, slots=True)
class Requeued:
    """``records`` go to the province once more. ``forged``: so many receipts are not signed by it and prove nothing;
    ``lost``: so many acknowledged records the outbox does not have.
    """

    records: int
    forged: int
    lost: int


def acknowledged(tx: sa.Connection, since: int) -> int:
    """How many words on a record the receipts that came at ``since`` (epoch ms) or later have."""
    words = sa.func.coalesce(sa.func.sum(sa.func.jsonb_array_length(receipt.c.body["records"])), 0)
    return int(tx.execute(sa.select(words).where(receipt.c.received_at >= since)).scalar_one())


def again_since(engine: sa.Engine, since: int, public_key: str) -> Requeued:
    """Queue what genuine receipts that came at ``since`` (epoch ms, our clock) or later acknowledge, for a province
    that has lost it. What is in the queue stays as it is there.
    """
    late = sa.select(receipt).where(receipt.c.received_at >= since).order_by(receipt.c.received_at)
    records = forged = lost = 0
    with engine.connect() as side, engine.begin() as tx:  # one look at the receipts: the push goes on and adds to them
        for row in side.execution_options(stream_results=True, max_row_buffer=10).execute(late):
            if not receipts.genuine(row.batch_id, row.body, row.signature, public_key):
                forged += 1
                continue
            told = dict(receipts.acknowledged(row.body))
            stored = map(_stored_row, tx.execute(_STORED, {"ids": list(told)}))
            rows = [r for r in stored if r["digest"] == told[r["event_id"]]]
            lost += len(told) - len(rows)
            records += len(bulk.insert_new(tx, push_queue, rows, ("event_id",)))
    return Requeued(records, forged, lost)


_STORED = sa.select(outbox.c.topic, outbox.c.event_id, outbox.c.digest, outbox.c.value).where(
    outbox.c.topic.in_([t.name for t in format.PUSHED]), bulk.any_of(outbox.c.event_id, "ids")
)


def _stored_row(stored: Any) -> dict[str, Any]:
    topic = BY_NAME[stored.topic]
    return _queued(topic, stored.event_id, stored.digest, codec.decode(stored.value, topic))


def waiting(tx: sa.Connection) -> int:
    """How many records are queued and neither acknowledged nor refused."""
    return int(tx.execute(sa.select(sa.func.count()).select_from(push_queue).where(_UNDONE)).scalar_one())
