"""Dead letters that are given another chance."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from connectors import redrive
from schemas import codec, envelope
from schemas.errors import Fault
from schemas.topics import CASE
from streams.store import outbox, steps
from streams.store.projection import Carried, Refused
from streams.store.tables import outbox as outbox_table

pytestmark = pytest.mark.stack
EVENT = {
    "event_type": "case.accepted", "region": "430903", "department": "HS-SLJ", "occurred_at": 1_600_000_000_000,
    "received_at": 1_600_000_000_500, "case_no": "C1", "item_code": "I", "event_no": 1,
}  # fmt: skip


@pytest.fixture
def letter(engine: sa.Engine) -> Any:
    """The dead letter of an event that was published and sent, and that a stream refused."""
    row = outbox.row(CASE, EVENT)
    carried = Carried(CASE, 0, 7, b"C1", row.value, tuple(envelope.headers(CASE, codec.decode(row.value, CASE))))
    with engine.begin() as tx:
        outbox.enqueue(tx, [row])
        steps.bury(tx, [Refused(carried, Fault("rule_failed", "", "judge: KeyError"))])
        tx.execute(sa.update(outbox_table).values(sent_at=1, sent_partition=0, sent_offset=7))
    [found] = redrive.find(engine, redrive.Wanted(topic=CASE.name))
    return found


def unsent(engine: sa.Engine) -> int:
    with engine.connect() as tx:
        return int(tx.execute(sa.text("SELECT count(*) FROM outbox WHERE sent_at IS NULL")).scalar_one())


def test_what_a_stream_refused_is_sent_again_and_its_letter_closed(engine: sa.Engine, letter: Any) -> None:
    assert redrive.redrive(engine, letter, lambda: 9).outcome == "sent again"
    assert unsent(engine) == 1
    assert redrive.find(engine, redrive.Wanted()) == []


def test_a_letter_is_sent_again_and_closed_in_one_transaction(
    engine: sa.Engine, letter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closed later, it would close over a second refusal that came between."""

    def fails(*_: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(redrive, "_mark", fails)
    with pytest.raises(RuntimeError):
        redrive.redrive(engine, letter, lambda: 9)
    assert unsent(engine) == 0
