"""A lie that a receipt can show is refused by it; the one that none can show is only seen at the province."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from litestar import Response

from connectors.province import format
from consumers.province import keys
from consumers.province.store import Store, record
from govbus.chaos import moods
from schemas import examples, receipts
from schemas.topics import UPLOAD

IDS = tuple(uuid.UUID(int=n, version=5) for n in (1, 2, 3))
BATCH = format.batch_id("430903", IDS)
SENT = {event_id: uuid.UUID(int=event_id.int + 7) for event_id in IDS}


@pytest.fixture
def store(engine: sa.Engine, tmp_path: Path) -> Store:
    made = Store(engine, keys.load(tmp_path))
    made.create()
    return made


def request() -> bytes:
    rated = examples.load(UPLOAD)["first-rating-to-the-province"]
    rows = [
        {"topic": UPLOAD.name, "event_id": i, "digest": SENT[i], "region": "430903", "department": "HS-SCJGJ",
         "body": {**format.body(UPLOAD, defaults(rated)), "serviceNumber": n}}
        for n, i in enumerate(IDS, 1)
    ]  # fmt: skip
    return receipts.canonical(format.batch(BATCH, "430903", rows))


def defaults(rated: dict[str, Any]) -> dict[str, Any]:
    from schemas.contracts import contract

    return {**{f["name"]: f["default"] for f in contract(UPLOAD)["fields"] if "default" in f}, **rated}


def answered(store: Store, mood: str) -> Any:
    """What a province of that mood answers to the batch."""
    from consumers.province import app

    return asyncio.run(moods._answer(app._take, store, request(), str(BATCH), mood)).content


def kept(store: Store) -> int:
    with store.engine.connect() as tx:
        return int(tx.execute(sa.select(sa.func.count()).select_from(record)).scalar_one())


def test_a_good_province_keeps_and_its_receipt_is_one(store: Store) -> None:
    for mood in ("good", "answers twice"):
        body = receipts.check(answered(store, mood), BATCH, SENT, store.signer.public_key)
        assert [r["outcome"] for r in body["records"]] == ["STORED"] * 3
    assert kept(store) == 3


@pytest.mark.parametrize("mood", moods.LIES)
def test_a_lie_in_a_receipt_is_no_receipt(store: Store, mood: str) -> None:
    with pytest.raises(receipts.NotAReceipt):
        receipts.check(answered(store, mood), BATCH, SENT, store.signer.public_key)


def test_a_genuine_receipt_for_what_was_not_kept_shows_nothing(store: Store) -> None:
    assert receipts.check(answered(store, moods.UNSEEN), BATCH, SENT, store.signer.public_key)
    assert kept(store) == 0


@pytest.mark.parametrize(("mood", "status"), [("refuses 500", 500), ("refuses 503", 503), ("refuses 429", 429)])
def test_a_province_that_refuses_keeps_nothing(store: Store, mood: str, status: int) -> None:
    from consumers.province import app

    answer = asyncio.run(moods._answer(app._take, store, request(), str(BATCH), mood))
    assert isinstance(answer, Response)
    assert answer.status_code == status
    assert kept(store) == 0
