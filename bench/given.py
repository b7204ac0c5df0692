"""What every benchmark is given, and how it tells how far it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

Tell = Callable[[str, int, int], None]
"""Called as ``tell(step, done, of)`` while a benchmark goes on."""


def silent(step: str, done: int, of: int) -> None:
    """Tells nobody."""


@dataclass(frozen=True, slots=True)
class Given:
    """``events``: the size; ``rounds``: how often all is measured; ``tools``: where the peers' own environments are
    made and kept; ``peers``: names of those that shall run (None: all).
    """

    tools: Path
    events: int = 1_000_000
    rounds: int = 5
    peers: frozenset[str] | None = None
    tell: Tell = field(default=silent)

    def scaled(self, share: float, most_rounds: int) -> Given:
        """The same with a share of the events and so many rounds at most."""
        return replace(self, events=max(1_000, int(self.events * share)), rounds=min(self.rounds, most_rounds))


Report = Mapping[str, Any]
"""The JSON of DESIGN §5."""
