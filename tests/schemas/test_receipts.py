"""What a genuinely signed answer must hold to be a receipt: it is stored as JSON and read again by every reconcile."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from consumers.province.keys import Signer
from schemas import receipts

SIGNER = Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
BATCH, EVENT, DIGEST = (uuid.UUID(int=n) for n in (1, 2, 3))


def check(record: dict[str, Any], **more: Any) -> Any:
    """A receipt for one record, signed as it stands."""
    told = {"event_id": str(EVENT), "digest": str(DIGEST), "outcome": "REFUSED", **record}
    body = {"batch_id": str(BATCH), "records": [told], **more}
    answer = {"receipt": body, "signature": SIGNER.sign(receipts.canonical(body))}
    return receipts.check(answer, BATCH, {EVENT: DIGEST}, SIGNER.public_key)


@pytest.mark.parametrize("reason", [{}, {"reason": None}, {"reason": ""}, {"reason": "写作 \\u0000 的文字"}])
def test_a_refusal_gives_a_reason_in_words_or_none(reason: dict[str, Any]) -> None:
    assert check(reason)["records"][0].get("reason") == reason.get("reason")


@pytest.mark.parametrize(
    ("record", "more", "why"),
    [
        ({"outcome": ["STORED"]}, {}, "no known outcome"),
        ({"outcome": None}, {}, "no known outcome"),
        ({"reason": {"code": 3}}, {}, "no text"),
        ({"reason": 3}, {}, "no text"),
        ({"reason": "bad\0"}, {}, "U[+]0000"),
        ({"reason": "\\\0"}, {}, "U[+]0000"),
        ({}, {"receiver": {"\0": "省平台"}}, "U[+]0000"),
        ({"more": 1e16}, {}, "not whole"),
        ({}, {"more": [{"x": -0.0}]}, "not whole"),
        ({}, {"more": json.loads("[" * 32 + "1" + "]" * 32)}, "nested over 32 levels"),
    ],
)
def test_what_cannot_be_stored_or_read_again_is_no_receipt(
    record: dict[str, Any], more: dict[str, Any], why: str
) -> None:
    with pytest.raises(receipts.NotAReceipt, match=why):
        check(record, **more)
