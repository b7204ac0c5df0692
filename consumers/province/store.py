"""The province's own database: what districts pushed, once each, and the receipts given for it.

Decides what is accepted. Knows nothing of a district's tables. ``record`` keeps everything ever accepted
(history); ``rating``, ``standing`` and ``rollup`` hold the newest revision. Times are epoch milliseconds UTC, days are
Asia/Shanghai.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, insert

from consumers.province.keys import Signer
from schemas import bounds, receipts
from schemas.clock import wall_clock
from streams.store import failpoints
from streams.store.bulk import any_of

PROTOCOL = "govbus-province/1"
LOCK = 430_000_001
MOST_RECORDS = 500
SCOPE_MOST = 500
"""Characters of a scope, which names region, department, item, channel and day."""
metadata = sa.MetaData()

batch = sa.Table(
    "province_batch",
    metadata,
    sa.Column("batch_id", sa.Uuid, primary_key=True),
    sa.Column("sender", sa.Text, nullable=False),
    sa.Column("request_sha256", sa.Text, nullable=False),
    sa.Column("received_at", sa.BigInteger, nullable=False),
    sa.Column("receipt", JSONB, nullable=False),
    sa.Column("signature", sa.Text, nullable=False),
)
record = sa.Table(
    "province_record",
    metadata,
    sa.Column("event_id", sa.Uuid, primary_key=True),
    sa.Column("digest", sa.Uuid, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("region", sa.Text, nullable=False),
    sa.Column("department", sa.Text, nullable=False),
    sa.Column("body", JSONB, nullable=False),
    sa.Column("batch_id", sa.Uuid, nullable=False),
)
rating = sa.Table(
    "province_rating",
    metadata,
    sa.Column("region", sa.Text, primary_key=True),
    sa.Column("project_no", sa.Text, primary_key=True),
    sa.Column("service_number", sa.Integer, primary_key=True),
    sa.Column("assess_number", sa.Integer, primary_key=True),
    sa.Column("active", sa.Boolean, nullable=False),  # given by a person, not filled in
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("assess_time", sa.Text, nullable=False),  # as sent, Asia/Shanghai; sorts as text
    sa.Column("event_id", sa.Uuid, nullable=False),
    sa.Column("department", sa.Text, nullable=False),
    sa.Column("operation", sa.Text, nullable=False),
    sa.Column("score", sa.SmallInteger, nullable=False),
    sa.Column("effective", sa.Boolean, nullable=False),
    sa.Column("rated_on", sa.Date, nullable=False),
    sa.Index("ix_province_rating_day", "rated_on"),
)
standing = sa.Table(  # whether the district still counts a rating (DOMAIN §5.8); it may come before the rating
    "province_standing",
    metadata,
    sa.Column("region", sa.Text, primary_key=True),
    sa.Column("project_no", sa.Text, primary_key=True),
    sa.Column("service_number", sa.Integer, primary_key=True),
    sa.Column("assess_number", sa.Integer, primary_key=True),
    sa.Column("department", sa.Text, primary_key=True),  # two may number alike, and each is told of by itself
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("event_id", sa.Uuid, nullable=False),
    sa.Column("effective", sa.Boolean, nullable=False),
)
COUNTS = ("n1", "n2", "n3", "n4", "n5", "total", "good", "bad", "defaults")
rollup = sa.Table(
    "province_rollup",
    metadata,
    sa.Column("region", sa.Text, primary_key=True),
    sa.Column("scope", sa.Text, primary_key=True),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("event_id", sa.Uuid, nullable=False),
    sa.Column("scope_kind", sa.Text, nullable=False),
    sa.Column("rated_on", sa.Date, nullable=False),
    *(sa.Column(name, sa.BigInteger, nullable=False) for name in COUNTS),
    sa.Index("ix_province_rollup_day", "rated_on", "scope_kind"),
)


class BadBatch(Exception):
    """The request is no batch; the text names the fault without repeating values."""


class OtherContent(Exception):
    """The batch id was used before with another content."""


@dataclass(frozen=True, slots=True)
class Store:
    """The province's desk: takes batches, gives receipts. ``clock``: epoch ms UTC."""

    engine: sa.Engine
    signer: Signer
    receiver: str = "430000"
    clock: Callable[[], int] = wall_clock

    def create(self) -> None:
        """Make the tables that are not there yet."""
        with self.engine.begin() as tx:
            tx.execute(_LOCK_ALL)
            metadata.create_all(tx)

    def accept(self, request: Any, key: str) -> dict[str, Any]:
        """Judge and keep the records of ``request``; the signed answer, the same for the same batch.

        Raises ``BadBatch`` for a malformed request and ``OtherContent`` for a batch id with other content.
        """
        batch_id, records = _shape(request, key)
        try:
            content = hashlib.sha256(receipts.canonical(request)).hexdigest()
        except ValueError:
            raise BadBatch("it holds NaN, Infinity or half a character, which JSON in UTF-8 does not have") from None
        with self.engine.begin() as tx:
            tx.execute(_LOCK_ALL)
            known = tx.execute(_BATCH, {"batch_id": batch_id}).one_or_none()
            if known is None:
                answer = self._judge(tx, batch_id, str(request["sender"]), records, content)
                failpoints.reach("province.before_commit")
            elif known.request_sha256 != content:
                raise OtherContent(f"batch {batch_id} was received before with another content")
            else:
                answer = self._signed(known.receipt)
        failpoints.reach("province.after_commit")
        return answer

    def _judge(
        self, tx: sa.Connection, batch_id: uuid.UUID, sender: str, records: Sequence[Any], content: str
    ) -> dict[str, Any]:
        """Store what is good, and the receipt for all of it, in one transaction."""
        verdicts = _verdicts(tx, records)
        good = [r for r, v in zip(records, verdicts, strict=True) if v["outcome"] == "STORED"]
        _keep(tx, batch_id, good)
        now = self.clock()
        body = {
            "protocol": PROTOCOL,
            "batch_id": str(batch_id),
            "receiver": self.receiver,
            "received_at": now,
            "records": verdicts,
        }
        answer = self._signed(body)
        row = {"batch_id": batch_id, "sender": sender, "request_sha256": content, "received_at": now}
        tx.execute(sa.insert(batch), {**row, **answer})
        return answer

    def receipt(self, batch_id: uuid.UUID) -> dict[str, Any] | None:
        """The answer given for a batch, or None."""
        with self.engine.connect() as tx:
            row = tx.execute(_BATCH, {"batch_id": batch_id}).one_or_none()
        return None if row is None else self._signed(row.receipt)

    def _signed(self, receipt: Mapping[str, Any]) -> dict[str, Any]:
        """``receipt`` with its signature, made anew each time: the key may have been replaced since."""
        return {"receipt": receipt, "signature": self.signer.sign(receipts.canonical(receipt))}


def _shape(request: Any, key: str) -> tuple[uuid.UUID, Sequence[Any]]:
    """Batch id and records of a request that is a batch."""
    if not isinstance(request, dict) or request.get("protocol") != PROTOCOL:
        raise BadBatch(f"not an object with protocol {PROTOCOL}")
    if bounds.too_deep(request):
        raise BadBatch(f"nested over {bounds.DEEPEST} levels")
    records = request.get("records")
    if not isinstance(records, list) or not 1 <= len(records) <= MOST_RECORDS:
        raise BadBatch(f"records must be a list of 1 to {MOST_RECORDS}")
    if not all(isinstance(r, dict) and _uuid(r.get("event_id")) and _uuid(r.get("digest")) for r in records):
        raise BadBatch("every record needs an event_id and a digest, both UUIDs")
    if len({r["event_id"] for r in records}) != len(records):
        raise BadBatch("an event_id occurs twice")
    if not _name(request.get("sender")) or not _uuid(request.get("batch_id")):
        raise BadBatch("sender and batch_id are needed")
    if key != request["batch_id"]:
        raise BadBatch("the Idempotency-Key header is not the batch_id")
    return uuid.UUID(request["batch_id"]), records


def _uuid(text: object) -> bool:
    try:
        return isinstance(text, str) and str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _verdicts(tx: sa.Connection, records: Sequence[Any]) -> list[dict[str, str]]:
    """One outcome a record, in order: STORED, KNOWN or REFUSED with a reason."""
    ids = [uuid.UUID(r["event_id"]) for r in records]
    known: dict[uuid.UUID, uuid.UUID] = {row.event_id: row.digest for row in tx.execute(_DIGESTS, {"ids": ids})}
    return [_verdict(r, known.get(uuid.UUID(r["event_id"]))) for r in records]


def _verdict(one: Mapping[str, Any], known: uuid.UUID | None) -> dict[str, str]:
    said = {"event_id": one["event_id"], "digest": one["digest"], "reason": ""}
    if known is not None:
        same = str(known) == one["digest"]
        return {**said, "outcome": "KNOWN" if same else "REFUSED", "reason": "" if same else "conflict"}
    reason = _fault(one)
    return {**said, "outcome": "REFUSED" if reason else "STORED", "reason": reason}


def _fault(one: Mapping[str, Any]) -> str:
    """Why a record cannot be taken, or an empty text."""
    if receipts.seal(one) != one.get("seal"):
        return "seal_mismatch"
    if not all(_name(one.get(name)) for name in ("region", "department")):
        return "no_sender"
    if one.get("kind") not in KINDS:
        return "unknown_kind"
    try:
        _ROWS[one["kind"]](one)
    except (KeyError, TypeError, ValueError, AttributeError):
        return "bad_body"
    return "bad_body" if receipts.NUL.search(receipts.canonical(one)) else ""


def _rating_row(one: Mapping[str, Any]) -> dict[str, Any]:
    body = one["body"]
    score = int(body["satisfaction"])
    if not 1 <= score <= 5 or body["operation"] not in ("I", "U", "D") or body["assessNumber"] not in (1, 2):
        raise ValueError("out of range")
    return {
        "region": one["region"],
        "project_no": _text(body["projectNo"]),
        "service_number": _whole(body["serviceNumber"]),
        "assess_number": _whole(body["assessNumber"]),
        "active": not _flag(body["isDefault"]),
        "revision": _whole(body["revision"]),
        "assess_time": _text(body["assessTime"]),
        "event_id": uuid.UUID(one["event_id"]),
        "department": one["department"],
        "operation": body["operation"],
        "score": score,
        "effective": _flag(body["effectivEvalua"]),
        "rated_on": datetime.strptime(body["assessTime"], "%Y-%m-%d %H:%M:%S").date(),  # noqa: DTZ007
    }


def _standing_row(one: Mapping[str, Any]) -> dict[str, Any]:
    body = one["body"]
    return {
        "region": one["region"],
        "project_no": _text(body["projectNo"]),
        "service_number": _whole(body["serviceNumber"]),
        "assess_number": _whole(body["assessNumber"]),
        "department": one["department"],
        "revision": _whole(body["revision"]),
        "event_id": uuid.UUID(one["event_id"]),
        "effective": _flag(body["effectivEvalua"]),
    }


def _rollup_row(one: Mapping[str, Any]) -> dict[str, Any]:
    body = one["body"]
    counts = {name: _whole(body[name]) for name in COUNTS}
    levels = [counts[f"n{score}"] for score in range(1, 6)]
    if (sum(levels), sum(levels[:2]), sum(levels[2:])) != (counts["total"], counts["bad"], counts["good"]):
        raise ValueError("the sums do not agree")
    return {
        "region": one["region"],
        "scope": _text(body["scope"], SCOPE_MOST),
        "revision": _whole(body["revision"]),
        "event_id": uuid.UUID(one["event_id"]),
        "scope_kind": _text(body["scopeKind"]),
        "rated_on": date.fromisoformat(body["ratedOn"]),
        **counts,
    }


_ROWS: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "rating": _rating_row,
    "standing": _standing_row,
    "rollup": _rollup_row,
}
KINDS = tuple(_ROWS)


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
        raise ValueError("not a whole number")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("not a boolean")
    return value


def _text(value: Any, most: int = bounds.MOST) -> str:
    if not _name(value, most):
        raise ValueError("not a text that names something")
    return str(value)


def _name(value: object, most: int = bounds.MOST) -> bool:
    """Whether ``value`` can stand in an index."""
    return isinstance(value, str) and 0 < len(value) <= most and "\x00" not in value


def _keep(tx: sa.Connection, batch_id: uuid.UUID, good: Sequence[Mapping[str, Any]]) -> None:
    """Store new records and let the newest revision of each rating and scope stand."""
    if not good:
        return
    columns = ("event_id", "digest", "kind", "region", "department", "body")
    tx.execute(
        sa.insert(record), [{**{c: _column(c, r) for c in columns}, "batch_id": batch_id} for r in good]
    )
    for kind, table in _TABLES.items():
        newest: dict[tuple[Any, ...], dict[str, Any]] = {}
        rows = [_ROWS[kind](r) for r in good if r["kind"] == kind]
        for row in sorted(rows, key=lambda r: tuple(r[c] for c in AGE[table.name])):
            newest[tuple(row[c.name] for c in table.primary_key)] = row
        if newest:
            tx.execute(_NEWEST_WINS[kind], list(newest.values()))


def _column(name: str, one: Mapping[str, Any]) -> Any:
    return uuid.UUID(one[name]) if name in ("event_id", "digest") else one[name]


AGE: Mapping[str, tuple[str, ...]] = {
    rating.name: ("active", "revision", "assess_time", "event_id"),
    standing.name: ("revision", "event_id"),
    rollup.name: ("revision", "event_id"),
}
"""What makes one row of a key newer than another, wherever and whenever it arrives (DOMAIN §5.6)."""


def _newest_wins(table: sa.Table) -> sa.Insert:
    new = insert(table)
    keys = [c.name for c in table.primary_key]
    age = AGE[table.name]
    newer = sa.tuple_(*(new.excluded[c] for c in age)) > sa.tuple_(*(table.c[c] for c in age))
    changed = {c.name: new.excluded[c.name] for c in table.c if c.name not in keys}
    return new.on_conflict_do_update(index_elements=keys, set_=changed, where=newer)


_LOCK_ALL = sa.select(sa.func.pg_advisory_xact_lock(LOCK))
_BATCH = sa.select(batch).where(batch.c.batch_id == sa.bindparam("batch_id"))
_DIGESTS = sa.select(record.c.event_id, record.c.digest).where(any_of(record.c.event_id, "ids"))
_TABLES = {"rating": rating, "standing": standing, "rollup": rollup}
_NEWEST_WINS = {kind: _newest_wins(table) for kind, table in _TABLES.items()}
