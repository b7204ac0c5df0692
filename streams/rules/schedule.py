"""Which cases a published calendar concerns. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def concern(records: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Regions whose cases must be judged again, ``000000`` for all: every clock of a region runs on its
    calendar, and a revision also changes what was known when a finished case ended (DOMAIN §3.7).
    """
    return tuple(sorted({record["region"] for record in records}))
