"""``govbus push --again``: what the province refused, or has lost, goes back in the queue."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from consumers.province.keys import Signer
from govbus.cli import build
from schemas import envelope, examples, receipts
from schemas.errors import Misconfigured
from schemas.topics import UPLOAD
from streams.store import outbox
from streams.store.tables import push_queue, receipt


@pytest.fixture
def govbus(engine: sa.Engine, database: str, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    """The command line on a database whose queue has two records of one refusal, one of another, and one that waits."""
    monkeypatch.setenv("GOVBUS_KAFKA", "127.0.0.1:1")
    monkeypatch.setenv("GOVBUS_DATABASE_URL", database)
    row = {"topic": UPLOAD.name, "region": "430903", "department": "HS-ZRZYJ", "body": {}}
    with engine.begin() as tx:
        for reason in ("bad_body", "bad_body", "conflict", None):
            made = {"event_id": uuid.uuid4(), "digest": uuid.uuid4(), "batch_id": uuid.uuid4()}
            tx.execute(sa.insert(push_queue), {**row, **made, "refused_reason": reason})
    return CliRunner()


def left(engine: sa.Engine) -> list[tuple[str | None, bool]]:
    query = "SELECT refused_reason, batch_id IS NULL FROM push_queue ORDER BY seq"
    with engine.connect() as tx:
        return [(reason, free) for reason, free in tx.execute(sa.text(query))]


@pytest.mark.stack
def test_what_was_refused_for_one_reason_goes_again_and_nothing_else(govbus: CliRunner, engine: sa.Engine) -> None:
    before = left(engine)
    told = govbus.invoke(build(), ["push", "--again", "--reason", "bad_body", "--json"], input="n\n")
    assert (told.exit_code, left(engine)) == (1, before)
    assert "(2 bad_body)" in told.stderr

    told = govbus.invoke(build(), ["push", "--again", "--reason", "bad_body", "--json"], input="y\n")
    assert (told.exit_code, json.loads(told.stdout.splitlines()[-1])) == (0, {"again": 2})
    assert left(engine) == [(None, True), (None, True), ("conflict", False), (None, False)]

    assert govbus.invoke(build(), ["push", "--again", "--yes"]).stdout == "1 records go to the province again\n"
    assert left(engine) == [(None, True)] * 3 + [(None, False)]
    assert govbus.invoke(build(), ["push", "--again"]).stdout == "0 records go to the province again\n"


@pytest.mark.stack
def test_a_reason_that_the_province_did_not_give_is_no_success(govbus: CliRunner) -> None:
    refused = govbus.invoke(build(), ["push", "--again", "--yes", "--reason", "bad_bodies"]).exception
    assert isinstance(refused, Misconfigured)
    assert "bad_body, conflict" in str(refused)
    assert govbus.invoke(build(), ["push", "--reason", "bad_body"]).exit_code == 2


MORNING_MS = 1_795_975_200_000  # 2026-11-30 02:00 Asia/Shanghai


@pytest.fixture
def signed(govbus: CliRunner, engine: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    """Also an upload in the outbox that a genuine receipt of that morning acknowledges."""
    signer = Signer(Ed25519PrivateKey.from_private_bytes(bytes(32)))
    monkeypatch.setenv("GOVBUS_PROVINCE_PUBLIC_KEY", signer.public_key)
    monkeypatch.setenv("GOVBUS_HOME", str(tmp_path))
    said = outbox.row(UPLOAD, examples.load(UPLOAD)["first-rating-to-the-province"])
    batch_id = uuid.uuid4()
    ids = {"event_id": str(said.event_id), "digest": str(envelope.digest(said.value))}
    body = {"batch_id": str(batch_id), "records": [{**ids, "outcome": "STORED", "reason": ""}]}
    kept = {"batch_id": batch_id, "received_at": MORNING_MS, "body": body}
    with engine.begin() as tx:
        outbox.enqueue(tx, [said])
        tx.execute(sa.insert(receipt), {**kept, "signature": signer.sign(receipts.canonical(body))})
    return govbus


@pytest.mark.stack
def test_what_a_province_acknowledged_since_a_time_goes_to_it_again(signed: CliRunner, engine: sa.Engine) -> None:
    before = left(engine)
    later = signed.invoke(build(), ["push", "--again", "--since", "2026-11-30T02:00:01", "--json"])
    assert (later.exit_code, json.loads(later.stdout)["again"], left(engine)) == (0, 0, before)
    declined = signed.invoke(build(), ["push", "--again", "--since", "2026-11-29T18:00Z"], input="n\n")
    assert (declined.exit_code, left(engine)) == (1, before)
    assert "since 2026-11-29T18:00Z (up to 1 records)" in declined.stderr

    told = signed.invoke(build(), ["push", "--again", "--since", "2026-11-30T02:00", "--yes", "--json"])
    assert (told.exit_code, json.loads(told.stdout)) == (0, {"again": 1, "forged_receipts": 0, "not_in_outbox": 0})
    assert left(engine) == [*before, (None, True)]


@pytest.mark.stack
def test_a_receipt_that_the_province_has_not_signed_sends_nothing_again_and_is_told(
    signed: CliRunner, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = left(engine)
    monkeypatch.setenv("GOVBUS_PROVINCE_PUBLIC_KEY", Signer(Ed25519PrivateKey.generate()).public_key)
    told = signed.invoke(build(), ["push", "--again", "--since", "2026-11-30", "--yes"])
    assert (told.exit_code, told.stdout) == (1, "0 records go to the province again\n")
    assert "1 receipts that it has not signed" in told.stderr
    monkeypatch.delenv("GOVBUS_PROVINCE_PUBLIC_KEY")
    assert isinstance(signed.invoke(build(), ["push", "--again", "--since", "2026-11-30"]).exception, Misconfigured)
    assert left(engine) == before


@pytest.mark.parametrize(
    "options", [["--since", "2026-11-30"], ["--again", "--since", "lately"],
                ["--again", "--since", "2026-11-30", "--reason", "conflict"]],
)  # fmt: skip
def test_a_time_belongs_to_again_without_a_reason_and_is_one(options: list[str]) -> None:
    assert CliRunner().invoke(build(), ["push", *options]).exit_code == 2
