"""Which addresses are filled in, and from where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from connectors.local.stack import Addresses
from govbus import runtime
from govbus.settings import Settings
from schemas.errors import Retryable

CONFIGURED = {"kafka": "k:9092", "database_url": "postgresql+psycopg://u@h/d"}


def test_configured_addresses_are_left_alone_and_nothing_is_started(tmp_path: Path) -> None:
    given = Settings(home=tmp_path, **CONFIGURED)  # type: ignore[arg-type]
    assert runtime.resolve(given) == given
    assert list(tmp_path.iterdir()) == []


def test_a_command_that_needs_no_kafka_starts_nothing_where_the_database_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "start", lambda *_, **__: pytest.fail("started"))
    assert runtime.database_url(Settings(home=tmp_path, database_url="postgresql+psycopg://u@h/d")).endswith("u@h/d")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("named", "prepared"),
    [("database_url", ["topics of here"]), ("kafka", ["tables of here"]), ("", ["tables of here", "topics of here"])],
)
def test_only_what_was_started_here_is_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str, prepared: list[str]
) -> None:
    """What a setting names may be at work under an older release."""
    done: list[str] = []
    monkeypatch.setattr(runtime, "start", lambda *_, **__: Addresses("here", "here", "here"))
    monkeypatch.setattr("streams.store.migrate.upgrade", lambda url: done.append(f"tables of {url}"))
    monkeypatch.setattr("connectors.topics_admin.apply", lambda kafka, _: done.append(f"topics of {kafka}"))
    given = {name: value for name, value in CONFIGURED.items() if name == named}
    runtime.resolve(Settings(home=tmp_path, **given))  # type: ignore[arg-type]
    assert done == prepared


def test_whoever_named_no_bus_is_told_that_it_is_one_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runtime, "start", lambda *_, **__: Addresses("here", "here", "here"))
    monkeypatch.setattr("streams.store.migrate.upgrade", lambda _: None)
    monkeypatch.setattr("connectors.topics_admin.apply", lambda *_: None)
    home = tmp_path / ".govbus"
    runtime.database_url(Settings(home=home, kafka="k:9092"))
    out, err = capsys.readouterr()
    assert (out, err.count("GOVBUS_DATABASE_URL not set: a bus of its own in ")) == ("", 1)
    assert f"{home}/" in err
    runtime.resolve(Settings(home=home), prepare=False)  # govbus status and govbus up name the parts themselves
    assert capsys.readouterr().err == ""


def _publish(home: Path, text: str) -> None:
    (home / "province").mkdir()
    (home / "province" / "address.json").write_text(text)


def test_a_province_on_this_machine_is_found_by_what_it_published(tmp_path: Path) -> None:
    _publish(tmp_path, json.dumps({"url": "http://127.0.0.1:8430", "public_key": "ab"}))
    found = runtime.resolve(Settings(home=tmp_path, **CONFIGURED))  # type: ignore[arg-type]
    assert (found.province_url, found.province_public_key) == ("http://127.0.0.1:8430", "ab")


def test_a_configured_province_wins_over_a_published_one(tmp_path: Path) -> None:
    _publish(tmp_path, json.dumps({"url": "http://127.0.0.1:8430", "public_key": "ab"}))
    given = Settings(home=tmp_path, province_url="https://province", province_public_key="cd" * 32, **CONFIGURED)  # type: ignore[arg-type]
    assert runtime.resolve(given) == given


def test_a_configured_key_is_never_replaced_by_a_published_one(tmp_path: Path) -> None:
    _publish(tmp_path, json.dumps({"url": "http://127.0.0.1:8430", "public_key": "ab"}))
    given = Settings(home=tmp_path, province_public_key="cd" * 32, **CONFIGURED)  # type: ignore[arg-type]
    assert runtime.resolve(given).province_public_key == "cd" * 32


def test_a_half_written_province_address_is_a_wait(tmp_path: Path) -> None:
    _publish(tmp_path, '{"url": ')
    with pytest.raises(Retryable, match="not readable yet"):
        runtime.resolve(Settings(home=tmp_path, **CONFIGURED))  # type: ignore[arg-type]
