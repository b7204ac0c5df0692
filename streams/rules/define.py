"""Which cases a version of a service item concerns: all of that item, for items are timeless. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def concern(records: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Item codes whose cases must be judged again; a case is judged by the version in force at acceptance,
    whenever that version arrived (docs/architecture.md).
    """
    return tuple(sorted({record["item_code"] for record in records}))
