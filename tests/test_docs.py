"""Every command line that a page shows names a command and options that there are, and every path a file."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from govbus.cli import build
from schemas import codesets

ROOT = Path(__file__).parents[1]
PAGES = sorted(p for p in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "bench").glob("*.md")))
INLINE = re.compile(r"`(?:\.venv/bin/)?govbus ([a-z][^`]*)`")
LINE = re.compile(r"^\s*(?:\.venv/bin/)?govbus ([a-z][^#\n]*)", re.M)
WRITTEN = ("performance.md", "reliability.md")
"""Pages that commands write."""
NOT_BUILT = ["gateway: no command gateway", "console: no command console"]
"""What the page of what is not done says is not there."""
OPTION = re.compile(r"--[a-z][a-z-]*")
CODE = re.compile(r"^```\w*\n(.*?)^```|^((?: {4}.*\n)+)", re.S | re.M)


def shown(page: str) -> Iterator[str]:
    """The command lines of a page, without ``govbus``."""
    yield from (" ".join(said.split()) for said in INLINE.findall(page))
    for block in CODE.findall(page):
        yield from (said.strip() for said in LINE.findall("".join(block)))


def wrong(said: str) -> str:
    """What of a command line is not there; empty if all is."""
    command: Any = typer.main.get_command(build())
    words = said.split()
    while (below := getattr(command, "commands", None)) and words:
        name = words.pop(0).strip(",，。.;)")
        if name not in below:
            return "" if name.isupper() or name.startswith(("<", "[", "…")) else f"{said}: no command {name}"
        command = below[name]
    there = {option for p in command.params for option in (*p.opts, *p.secondary_opts)} | {"--help"}
    return "".join(f"{said}: no option {o}" for o in OPTION.findall(" ".join(words)) if o not in there)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_command_that_a_page_shows_is_there_with_its_options(page: Path) -> None:
    faults = [fault for said in shown(page.read_text("utf-8")) if (fault := wrong(said))]
    assert faults == (NOT_BUILT if page.name == "not-done.md" else [])


@pytest.mark.parametrize(
    ("page", "fault"),
    [
        ("see `govbus alarms list`", "alarms list: no command alarms"),
        ("```console\n.venv/bin/govbus dlq list --every  # all\n```\n", "dlq list --every: no option --every"),
        ("    govbus clock --cases X\n", "clock --cases X: no option --cases"),
    ],
)  # fmt: skip
def test_a_command_that_is_not_there_is_named(page: str, fault: str) -> None:
    assert [wrong(said) for said in shown(page)] == [fault]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_table_of_a_manual_has_a_row_twice(page: Path) -> None:
    tables = re.findall(r"(?:^\|.*\n)+", page.read_text("utf-8"), re.M)
    rows = [[line.split("|")[1] for line in table.splitlines() if line.split("|")[1].strip()] for table in tables]
    if page.name not in WRITTEN:
        assert [row for found in rows for row in set(found) if found.count(row) > 1] == []


def named(value: Any) -> Iterator[str]:
    """Every text of a rule file that looks like a department's code and is no rule's id."""
    if isinstance(value, dict):
        yield from (code for key, part in value.items() if key != "rule_id" for code in named(part))
    elif isinstance(value, list):
        yield from (code for part in value for code in named(part))
    elif isinstance(value, str) and re.fullmatch(r"HS-[A-Z]+", value):
        yield value


def test_whoever_takes_another_district_is_told_of_every_rule_file_that_names_a_department() -> None:
    paragraph = re.search(r"\*\*Another district\*\*.*?\n\n", (ROOT / "docs/operate.md").read_text("utf-8"), re.S)
    assert paragraph
    for path in sorted((ROOT / "streams" / "rules").glob("*.toml")):
        codes = set(named(tomllib.loads(path.read_text("utf-8"))))
        assert not codes or f"`{path.name}`" in paragraph[0], path.name
        assert all(codesets.known(codesets.DEPARTMENTS, code) for code in codes), path.name
