"""Imports point one way: schemas ← streams.rules ← streams; schemas ← connectors, consumers; all ← govbus."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("schemas", "streams", "connectors", "consumers", "govbus", "bench", "tests")
# What each part may import of ours. streams.store holds the words (Carried, Said) and the way into the
# outbox that connectors and consumers share; the calendar's defaults are pure and have one home. The gate
# refuses what the processors of calendars, items and ratings would refuse, by the same rules, and names licences and
# resources as their processors do.
ALLOWED = {
    "schemas": ("schemas",),
    "streams.rules": ("schemas", "streams.rules"),
    "streams.store": ("schemas", "streams.rules", "streams.store"),
    "streams": ("schemas", "streams"),
    "connectors": (
        "schemas", "connectors", "streams.store",
        *(f"streams.rules.{shared}" for shared in ("calendar", "catalogue", "define", "index", "tally")),
    ),
    "consumers": ("schemas", "consumers", "streams.store"),
    "govbus.district": ("schemas", "connectors", "consumers", "govbus.district", "govbus.behind"),  # judges by itself
    "govbus": ("schemas", "streams", "connectors", "consumers", "govbus", "bench"),
}
FORBIDDEN = {
    "streams.rules": ("faust", "mode", "kafka", "aiokafka", "confluent_kafka", "sqlalchemy", "psycopg")
}


def imported(source: str) -> Iterator[str]:
    """Modules that a source text imports, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, parents: tuple[str, ...]) -> bool:
    """Whether a dotted name is one of ``parents`` or below one."""
    return any(name == p or name.startswith(f"{p}.") for p in parents)


def wrong(module: str, source: str) -> list[str]:
    """Imports of ``module`` that point the wrong way."""
    part = next((p for p in sorted(ALLOWED, key=len, reverse=True) if within(module, (p,))), None)
    if part is None:
        return []
    ours = [name for name in imported(source) if within(name, OURS) and not within(name, ALLOWED[part])]
    foreign = [name for name in imported(source) if within(name, FORBIDDEN.get(part, ()))]
    return ours + foreign


def modules() -> list[tuple[str, Path]]:
    """Every module of the product by its dotted name."""
    packages = ("schemas", "streams", "connectors", "consumers", "govbus")
    paths = [path for package in packages for path in (ROOT / package).rglob("*.py")]
    return [(".".join(path.relative_to(ROOT).with_suffix("").parts), path) for path in sorted(paths)]


def test_every_import_points_towards_the_contracts() -> None:
    found = {name: wrong(name, path.read_text("utf-8")) for name, path in modules()}
    assert {name: bad for name, bad in found.items() if bad} == {}


def test_the_rule_looks_at_every_part_of_the_product() -> None:
    names = [name for name, _ in modules()]
    assert all(any(within(name, (part,)) for name in names) for part in ALLOWED)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("schemas.codec", "from streams.store import engine"),
        ("streams.rules.judge", "import sqlalchemy as sa"),
        ("streams.rules.judge", "def f():\n    from faust import App"),
        ("streams.rules.judge", "from streams.store import tables"),
        ("streams.app", "import connectors.relay"),
        ("streams.store.steps", "from streams.agents import projections"),
        ("govbus.district.cases", "from streams.rules.clock import deadline"),
        ("connectors.relay", "from streams.rules.judge import fold"),
        ("consumers.loop", "from govbus.settings import load"),
    ],
)
def test_an_import_against_the_direction_is_named(module: str, source: str) -> None:
    assert wrong(module, source)
