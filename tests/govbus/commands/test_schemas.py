"""``govbus schemas``: what it says, and with which exit code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from govbus.cli import build
from schemas import contracts, evolution, examples
from schemas.errors import Retryable
from schemas.topics import TOPICS


def govbus(*words: str) -> Result:
    return CliRunner().invoke(build(), ["schemas", *words])


def test_check_finds_nothing_and_says_so() -> None:
    result = govbus("check")

    assert result.exit_code == 0
    assert "sound and compatible" in result.stdout


def test_check_tells_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(contracts, "GOLDEN", tmp_path)

    result = govbus("check", "--json")

    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert told["ok"] is False
    assert {f["rule"] for f in told["findings"]} == {"not_frozen"}
    assert len(told["findings"]) == 20  # fourteen topics, four of them in their second version, one in its third


def test_freeze_stores_every_version_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shutil.copytree(contracts.GOLDEN, tmp_path, dirs_exist_ok=True)
    for topic in TOPICS:  # what was frozen before cannot be made again
        for present in tmp_path.glob(f"{topic.name}/{contracts.version(topic)}.*"):
            present.unlink()
    monkeypatch.setattr(contracts, "GOLDEN", tmp_path)

    first, second = govbus("freeze"), govbus("freeze")

    assert (first.exit_code, second.exit_code) == (0, 0)
    assert first.stdout.count("frozen:") == 14
    assert second.stdout == ""
    assert evolution.check() == []


def test_freeze_refuses_while_an_example_is_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wrong = tmp_path / "examples" / "service.rating.v1"
    wrong.mkdir(parents=True)
    (wrong / "a-rating-without-case.json").write_text("{}", encoding="utf-8")
    monkeypatch.setattr(contracts, "GOLDEN", tmp_path / "golden")
    monkeypatch.setattr(examples, "HERE", tmp_path / "examples")

    result = govbus("freeze")

    assert result.exit_code == 1
    assert not (tmp_path / "golden").exists()


def test_register_needs_a_registry_that_answers() -> None:
    result = govbus("register", "--url", "http://127.0.0.1:9")

    assert result.exit_code == 1
    assert isinstance(result.exception, Retryable)
