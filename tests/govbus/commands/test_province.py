"""``govbus province`` begins when its database answers, not when it was started."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from govbus.cli import build
from govbus.commands import province

AWAY = psycopg.OperationalError("connection refused")


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> threading.Event:
    """The command with nothing to listen on; set once it would serve."""
    event = threading.Event()
    monkeypatch.setenv("GOVBUS_HOME", str(tmp_path))
    monkeypatch.setenv("GOVBUS_PROVINCE_DATABASE_URL", "postgresql://province@127.0.0.1:1/province")
    monkeypatch.setattr(province, "FIRST_WAIT_S", 0.01, raising=False)
    monkeypatch.setattr("uvicorn.Server.run", lambda *_, **__: event.set())
    return event


def test_it_waits_for_a_database_that_is_away_and_says_so(
    served: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([AWAY, AWAY, None])

    def create(_: object) -> None:
        if (error := next(answers)) is not None:
            raise error

    monkeypatch.setattr("consumers.province.store.Store.create", create)
    done = CliRunner().invoke(build(), ["province", "--port", "0"], catch_exceptions=False)
    assert (done.exit_code, served.is_set(), next(answers, "none left")) == (0, True, "none left")
    assert done.stderr.count("waiting: PostgreSQL does not answer: connection refused") == 2


def test_it_does_not_wait_for_what_waiting_does_not_mend(
    served: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    def create(_: object) -> None:
        raise psycopg.OperationalError('connection failed: FATAL:  password authentication failed for user "govbus"')

    monkeypatch.setattr("consumers.province.store.Store.create", create)
    with pytest.raises(psycopg.OperationalError):
        CliRunner().invoke(build(), ["province", "--port", "0"], catch_exceptions=False)
    assert not served.is_set()
