"""Fixtures for the store's tests: how to make carried records, how to dump a table."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

Dump = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture(scope="session")
def carrying() -> Any:
    """The helpers of ``carrying.py`` beside this file."""
    spec = importlib.util.spec_from_file_location("carrying", Path(__file__).parent / "carrying.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def dump() -> Dump:
    """Reads whole tables but for where in the log their rows came from, sorted."""

    def read(engine: sa.Engine, tables: Sequence[sa.Table]) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = []
        with engine.connect() as tx:
            for table in tables:
                columns = [c for c in table.c if c.name not in ("partition", "offset")]
                found = tx.execute(sa.select(*columns)).all()
                rows += sorted((table.name, *map(repr, row)) for row in found)
        return rows

    return read
