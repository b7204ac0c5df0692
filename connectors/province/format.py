"""A record of ours in the province's shape (DOMAIN §5.5) and its batch. Decides names, sends nothing.

Times are ``YYYY-MM-DD HH:MM:SS`` in Asia/Shanghai, as the province's interface has them; days are ISO 8601.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from schemas import codesets, envelope, receipts
from schemas.clock import SHANGHAI
from schemas.topics import ROLLUP, UPLOAD, Topic

PROTOCOL = "govbus-province/1"
PUSHED: tuple[Topic, ...] = (UPLOAD, ROLLUP)
RATING: Mapping[str, str] = {
    "project_no": "projectNo",
    "service_number": "serviceNumber",
    "assess_number": "assessNumber",
    "revision": "revision",
    "operation": "operation",
    "satisfaction_code": "satisfaction",
    "pf_code": "pf",
    "eval_detail": "evalDetail",
    "writing_evaluation": "writingEvaluation",
    "assess_time": "assessTime",
    "area_code": "areaCode",
    "dept_code": "deptCode",
    "task_code": "taskCode",
    "is_default": "isDefault",
    "effective": "effectivEvalua",
    "user_name": "userName",
}
"""Our field → the province's (spelling as published, DOMAIN §5.5)."""
STANDS: Mapping[str, str] = {
    ours: RATING[ours] for ours in ("project_no", "service_number", "assess_number", "revision", "effective")
}
"""Of a word that a rating counts no more, or again: its revision is a number of its own."""
ROLLED: Mapping[str, str] = {
    "scope": "scope",
    "scope_kind_code": "scopeKind",
    "item_code": "taskCode",
    "channel_code": "pf",
    "rated_on": "ratedOn",
    "revision": "revision",
    **{name: name for name in ("n1", "n2", "n3", "n4", "n5", "total", "good", "bad", "defaults")},
}


def body(topic: Topic, record: Mapping[str, Any]) -> dict[str, Any]:
    """``record`` of ``rating.upload.v1`` or ``rating.rollup.v1`` in the province's names, JSON types only."""
    return {theirs: _plain(ours, record[ours]) for ours, theirs in _names(topic, record).items()}


def _names(topic: Topic, record: Mapping[str, Any]) -> Mapping[str, str]:
    if topic == ROLLUP:
        return ROLLED
    return RATING if record["event_type"] == "rating.uploaded" else STANDS


def _plain(name: str, value: Any) -> Any:
    if name == "assess_time":
        return datetime.fromtimestamp(value / 1000, UTC).astimezone(SHANGHAI).strftime("%Y-%m-%d %H:%M:%S")
    if name == "rated_on":
        return value.isoformat()
    if name == "channel_code":  # of a rollup, in govbus.channel; a rating's pf_code is the province's already
        return codesets.nearest("platform.channel", value)
    return value


def record(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of ``push_queue`` as it is sent: identity, digest, body, and the seal over all of them."""
    sent = {
        "kind": _kind(row),
        "event_id": str(row["event_id"]),
        "digest": str(row["digest"]),
        "region": row["region"],
        "department": row["department"],
        "body": row["body"],
    }
    return {**sent, "seal": receipts.seal(sent)}


def _kind(row: Mapping[str, Any]) -> str:
    if row["topic"] == ROLLUP.name:
        return "rollup"
    return "standing" if row["body"].keys() == set(STANDS.values()) else "rating"


def batch(batch_id: uuid.UUID, region: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The request of one batch, the same bytes at every attempt."""
    records = [record(row) for row in rows]
    return {"protocol": PROTOCOL, "batch_id": str(batch_id), "sender": region, "records": records}


def batch_id(region: str, event_ids: Sequence[uuid.UUID], tried: int = 0) -> uuid.UUID:
    """The id of the batch of these events, in this order, from the sender ``region``; also its idempotency key.
    ``tried``: how often they were sent in other batches; whoever knows an id answers as before.
    """
    return envelope.derived_id("province-batch", region, *([tried] if tried else []), *event_ids)
