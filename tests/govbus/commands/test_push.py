"""``govbus push --again``: what the province refused goes back in the queue."""

from __future__ import annotations

import json
import uuid

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from govbus.cli import build
from schemas.errors import Misconfigured
from schemas.topics import UPLOAD
from streams.store.tables import push_queue


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
