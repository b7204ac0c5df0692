"""``govbus clock`` as people and scripts call it."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from govbus.cli import build

SPECIAL = "2025-03-10T10:00/2025-03-20T15:00"


def run(*args: str) -> tuple[int, str]:
    result = CliRunner().invoke(build(), ["clock", *args])
    return result.exit_code, result.output


def test_clock_prints_the_promised_keys_as_json() -> None:
    code, out = run("--accepted", "2020-09-25T16:50", "--limit", "0.5", "--json")
    report = json.loads(out)
    assert code == 0
    assert report["due"] == "2020-09-27T13:20:00+08:00"
    assert report["yellow_at"] == "2020-09-27T11:38:00+08:00"
    assert (report["provisional"], report["counted_minutes"]) == (False, 210)
    assert report["days"] == [{"day": "2020-09-25", "minutes": 10}, {"day": "2020-09-27", "minutes": 200}]


def test_clock_takes_pauses_extensions_and_zones() -> None:
    accepted = ("--accepted", "2025-03-03T01:30+00:00", "--limit", "20", "--json")
    assert json.loads(run(*accepted, "--pause", SPECIAL)[1])["due"] == "2025-04-14T14:00:00+08:00"
    assert json.loads(run(*accepted, "--extend", "10")[1])["due"] == "2025-04-15T17:00:00+08:00"
    assert json.loads(run(*accepted, "--pause", "2025-03-10T10:00")[1])["due"] is None


def test_clock_tells_people_in_chinese() -> None:
    code, out = run("--accepted", "2026-12-14 10:00", "--limit", "20")
    assert code == 0
    assert "2027-01-12 17:00" in out
    assert "暂定" in out


def test_clock_refuses_what_it_cannot_read() -> None:
    assert run("--accepted", "yesterday", "--limit", "5")[0] == 2
    assert run("--accepted", "2020-09-25T16:50", "--limit", "5", "--unit", "fortnight")[0] == 2
    assert run("--accepted", "2020-09-25T16:50", "--limit", "5", "--pause", "2020-09-26/2020-09-25")[0] == 2
