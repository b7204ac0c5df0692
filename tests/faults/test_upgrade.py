"""Two releases side by side, the newer with one more optional field in a contract: neither refuses what the other did.

The whole upgrade under real processes is a part of `make chaos` (`--upgrades`).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from govbus.chaos.ground import environment
from govbus.chaos.upgrade import newer_release
from schemas import codec
from schemas.errors import Retryable
from schemas.topics import RATING
from streams.store import outbox
from streams.store.projection import Carried
from streams.store.steps import bury, decode_rows
from streams.store.tables import dead_letter

pytestmark = pytest.mark.stack
RECORD = {
    "event_type": "rating.given", "region": "430903", "department": "HS-ZRZYJ", "occurred_at": 1_602_228_000_000,
    "received_at": 1_602_228_000_350, "case_no": "c1", "item_code": "11430903MBDEM0138T4000715002000",
    "satisfaction_set": "platform.satisfaction", "satisfaction_code": "1", "channel_set": "platform.channel",
    "channel_code": "4", "service_no": 1, "assess_no": 1, "revision": 0, "operation": "I",
}  # fmt: skip
NEWER_PUBLISHES = f"""
import sys, sqlalchemy as sa
from schemas.topics import RATING
from streams.store import outbox
record = {RECORD!r}
record["case_no"] = sys.argv[2]
with sa.create_engine(sys.argv[1]).begin() as tx:
    print(RATING.schema_id, outbox.enqueue(tx, [outbox.row(RATING, record)])[0].outcome)
"""


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release whose ratings may name the number of the window."""
    return newer_release(tmp_path_factory.mktemp("newer"))


def published_by_newer(release: Path, database: str, case_no: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", NEWER_PUBLISHES, database, case_no],
        cwd=release, env=environment({}), capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return done.stdout.strip()


def published(engine: sa.Engine, case_no: str) -> str:
    with engine.begin() as tx:
        return outbox.enqueue(tx, [outbox.row(RATING, {**RECORD, "case_no": case_no})])[0].outcome


def dead(engine: sa.Engine) -> list[str]:
    with engine.connect() as tx:
        return list(tx.execute(sa.select(dead_letter.c.reason)).scalars())


def test_an_event_sent_again_by_a_newer_release_is_the_same_event(
    newer: Path, engine: sa.Engine, database: str
) -> None:
    assert published(engine, "a") == "new"
    assert published_by_newer(newer, database, "a") == "1003 same"
    assert published_by_newer(newer, database, "b") == "1003 new"
    with pytest.raises(Retryable, match="newer contract"):
        published(engine, "b")


def test_an_old_worker_waits_with_a_record_of_a_newer_release_and_refuses_what_nobody_published(
    newer: Path, engine: sa.Engine, database: str
) -> None:
    assert published_by_newer(newer, database, "a") == "1003 new"
    with engine.connect() as tx:
        value, event_id = tx.execute(sa.text("SELECT value, event_id::text FROM outbox")).one()
    genuine = Carried(RATING, 3, 7, b"a", bytes(value), (("ce_id", event_id.encode()),))
    forged = Carried(RATING, 3, 8, b"a", bytes(value) + b"\x00", (("ce_id", event_id.encode()),))
    events, refused = decode_rows([genuine, forged])
    assert (events, [r.fault.reason for r in refused]) == ([], ["unknown_schema", "unknown_schema"])
    with pytest.raises(Retryable, match=r"service\.rating\.v1/3 at 7 is under a newer contract"), engine.begin() as tx:
        bury(tx, refused)
    assert dead(engine) == []
    with engine.begin() as tx:
        bury(tx, refused[1:])
    assert dead(engine) == ["unknown_schema"]


def test_a_newer_release_reads_what_an_old_one_published(newer: Path, engine: sa.Engine) -> None:
    assert published(engine, "a") == "new"
    with engine.connect() as tx:
        value = bytes(tx.execute(sa.text("SELECT value FROM outbox")).scalar_one())
    code = "import sys; from schemas import codec; print(repr(codec.decode(bytes.fromhex(sys.argv[1]))['window_no']))"
    done = subprocess.run(
        [sys.executable, "-c", code, value.hex()], cwd=newer, env=environment({}), capture_output=True, text=True,
        check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.strip() == "''"
    assert codec.schema_id_of(value) == 3
