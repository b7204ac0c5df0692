"""The province's signed word as it crosses the border: canonical bytes, signature, what it acknowledges.

Decides whether a receipt is one. Knows neither HTTP nor a database. The signature is Ed25519 (RFC 8032) over
the canonical bytes of the body; key and signature are hexadecimal text.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from schemas import bounds

ACKNOWLEDGED = frozenset({"STORED", "KNOWN"})
REFUSED = "REFUSED"
OUTCOMES = ACKNOWLEDGED | {REFUSED}
NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""U+0000 in canonical JSON, which PostgreSQL cannot store; after an escaped backslash the six characters are text."""
Places = Mapping[uuid.UUID, uuid.UUID]


class NotAReceipt(Exception):
    """The province's answer does not acknowledge what was sent; the text says why."""


def canonical(body: Mapping[str, Any]) -> bytes:
    """The bytes that are signed or sealed: JSON, keys sorted, no spaces, UTF-8, finite numbers."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def seal(record: Mapping[str, Any]) -> str:
    """SHA-256 (hex) over a sent record's canonical bytes without ``seal``: binds id, digest, body."""
    return hashlib.sha256(canonical({k: v for k, v in record.items() if k != "seal"})).hexdigest()


def signed_by(body: Mapping[str, Any], signature: str, public_keys: str) -> bool:
    """Whether ``signature`` (hex) over ``body`` was made with the key pair of one of ``public_keys`` (hex, by comma): a
    key may be replaced, and what was signed with the former one stays proof.
    """
    return any(_signed_by(body, signature, key.strip()) for key in public_keys.split(","))


def _signed_by(body: Mapping[str, Any], signature: str, public_key: str) -> bool:
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        key.verify(bytes.fromhex(signature), canonical(body))
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def acknowledged(body: Mapping[str, Any]) -> Iterable[tuple[uuid.UUID, uuid.UUID]]:
    """The (event id, digest) pairs that a receipt acknowledges; refused records are left out."""
    for record in body["records"]:
        if record["outcome"] in ACKNOWLEDGED:
            yield uuid.UUID(record["event_id"]), uuid.UUID(record["digest"])


def check(answer: object, batch_id: uuid.UUID, sent: Places, public_key: str) -> Mapping[str, Any]:
    """The body of ``answer`` (``{"receipt", "signature"}``) if it is a receipt for exactly ``sent``.

    ``sent`` maps event ids to digests. Raises ``NotAReceipt`` for a bad signature, a foreign batch, any record
    that is missing, repeated, foreign, acknowledged with another digest or without a known outcome, and for what could
    not be stored and read again: a reason that is no text, the character U+0000, a number that is not whole.
    """
    if not isinstance(answer, dict) or not isinstance(answer.get("receipt"), dict):
        raise NotAReceipt("the answer has no receipt")
    body: Mapping[str, Any] = answer["receipt"]
    if bounds.too_deep(body):
        raise NotAReceipt(f"the receipt is nested over {bounds.DEEPEST} levels")
    if not signed_by(body, str(answer.get("signature", "")), public_key):
        raise NotAReceipt("the signature is not the province's")
    if body.get("batch_id") != str(batch_id):
        raise NotAReceipt("the receipt is for another batch")
    if NUL.search(canonical(body)):
        raise NotAReceipt("a text of the receipt holds U+0000")
    if _has_float(body):
        raise NotAReceipt("a number of the receipt is not whole")
    _check_records(body.get("records"), sent)
    return body


def genuine(batch_id: uuid.UUID, body: Mapping[str, Any], signature: str, public_keys: str) -> bool:
    """Whether a kept receipt is the province's word on the batch that it is kept for."""
    return body.get("batch_id") == str(batch_id) and signed_by(body, signature, public_keys)


def _has_float(value: object) -> bool:
    """PostgreSQL gives 1e16 back as a whole number and -0.0 without its sign: the signature would fit no more."""
    if isinstance(value, float):
        return True
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(map(_has_float, items))


def _check_records(records: object, sent: Places) -> None:
    """Every sent record exactly once, with its digest, a known outcome and no reason but in words; nothing else."""
    if not isinstance(records, list) or not all(isinstance(r, dict) for r in records):
        raise NotAReceipt("the receipt has no list of records")
    seen = [str(r.get("event_id")) for r in records]
    missing, foreign = {str(i) for i in sent} - set(seen), set(seen) - {str(i) for i in sent}
    if missing or foreign or len(seen) != len(set(seen)):
        raise NotAReceipt(
            f"{len(missing)} records not acknowledged, {len(foreign)} foreign, "
            f"{len(seen) - len(set(seen))} repeated"
        )
    altered = [r for r in records if r.get("digest") != str(sent[uuid.UUID(r["event_id"])])]
    if altered:
        raise NotAReceipt(
            f"{len(altered)} records acknowledged with another digest, first {altered[0]['event_id']}"
        )
    if not all(isinstance(r.get("outcome"), str) and r["outcome"] in OUTCOMES for r in records):
        raise NotAReceipt("a record has no known outcome")
    if not all(isinstance(r.get("reason"), str | None) for r in records):
        raise NotAReceipt("the reason of a record is no text")
