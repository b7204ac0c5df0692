"""The processes from the command line: province, push and consume run, reconcile says equal or not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas import examples
from schemas.topics import ALERT, RATING

pytestmark = pytest.mark.stack
Govbus = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def govbus(line: Any, postgres: Any, tmp_path: Path) -> Iterator[Govbus]:
    """Starts ``govbus …`` on the line; what still runs is ended after the test."""
    name = f"province_{uuid.uuid4().hex[:8]}"
    env = {
        **os.environ,
        "GOVBUS_KAFKA": line.kafka,
        "GOVBUS_DATABASE_URL": line.engine.url.render_as_string(hide_password=False),
        "GOVBUS_PROVINCE_DATABASE_URL": postgres.create(name),
        "GOVBUS_HOME": str(tmp_path),
    }
    started: list[subprocess.Popen[str]] = []

    def start(*args: str) -> subprocess.Popen[str]:
        log = (tmp_path / f"{args[0]}.log").open("w")
        command = [sys.executable, "-m", "govbus.cli", *args]
        started.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=log, text=True))
        return started[-1]

    yield start
    for process in started:
        process.send_signal(signal.SIGTERM)
    for process in started:
        process.wait(20)
    postgres.drop(name)


def test_what_is_published_reaches_the_province_and_reconcile_says_so_until_something_is_lost(
    line: Any, govbus: Govbus, make_rating: Any, wait_until: Any, tmp_path: Path
) -> None:
    for command in (("province", "--port", "0"), ("push",), ("consume",)):
        govbus(*command)
    line.publish(RATING, [make_rating(f"case-{i}") for i in range(20)])
    line.relay()
    line.apply()
    wait_until((tmp_path / "province" / "address.json").exists, 180)
    report = govbus("reconcile", "--json", "--wait", "60")
    told = json.loads(report.communicate(timeout=180)[0])
    assert (report.returncode, told["equal"]) == (0, True), told["differences"][:3]
    assert told["topics"]["rating.upload.v1"]["acknowledged"] == 20
    line.run("DELETE FROM rating_event WHERE case_no = 'case-7'")
    again = govbus("reconcile", "--json")
    (lost,) = {d["event_id"] for d in json.loads(again.communicate(timeout=180)[0])["differences"]}
    assert again.returncode == 1
    assert uuid.UUID(lost)


def test_alerts_are_on_the_screen_soon_after_they_are_published(line: Any, govbus: Govbus) -> None:
    one = next(iter(examples.load(ALERT).values()))
    watch = govbus("alerts", "watch", "--json", "--since", "beginning", "--count", "60", "--timeout", "60")
    seen: dict[str, float] = {}

    def look() -> None:
        assert watch.stdout
        for text in watch.stdout:
            seen[json.loads(text)["alert_id"]] = time.monotonic()

    looking = threading.Thread(target=look)
    looking.start()
    first = {**one, "alert_id": str(uuid.uuid4())}
    line.publish(ALERT, [first])
    line.relay()
    while not seen:
        time.sleep(0.05)
        assert watch.poll() is None
    assert set(seen) == {first["alert_id"]}
    sent: dict[str, float] = {}
    for _ in range(59):
        alert = {**one, "alert_id": str(uuid.uuid4())}
        sent[alert["alert_id"]] = time.monotonic()
        _send(line, alert)
    looking.join(60)
    late = sorted(seen[i] - at for i, at in sent.items())
    assert watch.wait(20) == 0
    assert late[len(late) // 2] < 0.15, f"median {late[len(late) // 2]:.3f} s, worst {late[-1]:.3f} s"


def _send(line: Any, alert: dict[str, Any]) -> None:
    """One alert straight to Kafka, as the relay would."""
    from streams.store import outbox

    row = outbox.row(ALERT, alert)
    line.send_raw(ALERT, alert["alert_id"].encode(), row.value)
