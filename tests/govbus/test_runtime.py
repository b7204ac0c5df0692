"""Which addresses are filled in, and from where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from govbus import runtime
from govbus.settings import Settings
from schemas.errors import Retryable

CONFIGURED = {"kafka": "k:9092", "database_url": "postgresql+psycopg://u@h/d"}


def test_configured_addresses_are_left_alone_and_nothing_is_started(tmp_path: Path) -> None:
    given = Settings(home=tmp_path, **CONFIGURED)  # type: ignore[arg-type]
    assert runtime.resolve(given) == given
    assert list(tmp_path.iterdir()) == []


def _publish(home: Path, text: str) -> None:
    (home / "province").mkdir()
    (home / "province" / "address.json").write_text(text)


def test_a_province_on_this_machine_is_found_by_what_it_published(tmp_path: Path) -> None:
    _publish(tmp_path, json.dumps({"url": "http://127.0.0.1:8430", "public_key": "ab"}))
    found = runtime.resolve(Settings(home=tmp_path, **CONFIGURED))  # type: ignore[arg-type]
    assert (found.province_url, found.province_public_key) == ("http://127.0.0.1:8430", "ab")


def test_a_configured_province_wins_over_a_published_one(tmp_path: Path) -> None:
    _publish(tmp_path, json.dumps({"url": "http://127.0.0.1:8430", "public_key": "ab"}))
    given = Settings(home=tmp_path, province_url="https://province", province_public_key="cd", **CONFIGURED)  # type: ignore[arg-type]
    assert runtime.resolve(given) == given


def test_a_configured_key_is_never_replaced_by_a_published_one(tmp_path: Path) -> None:
    _publish(tmp_path, json.dumps({"url": "http://127.0.0.1:8430", "public_key": "ab"}))
    given = Settings(home=tmp_path, province_public_key="cd", **CONFIGURED)  # type: ignore[arg-type]
    assert runtime.resolve(given).province_public_key == "cd"


def test_a_half_written_province_address_is_a_wait(tmp_path: Path) -> None:
    _publish(tmp_path, '{"url": ')
    with pytest.raises(Retryable, match="not readable yet"):
        runtime.resolve(Settings(home=tmp_path, **CONFIGURED))  # type: ignore[arg-type]
