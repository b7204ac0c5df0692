"""The words between log, rules and store: what was carried, what was decoded, what is said, what is refused."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from sqlalchemy import Connection

from schemas.errors import Fault
from schemas.topics import Topic


@dataclass(frozen=True, slots=True)
class Carried:
    """One record as Kafka carried it; nothing about it is trusted yet."""

    topic: Topic
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Event:
    """A carried record that decoded strictly and whose id, key and envelope agree."""

    carried: Carried
    event_id: uuid.UUID
    digest: uuid.UUID
    record: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Said:
    """A decision on its way out: a record of an outbound topic without ``event_id`` (the store derives it)."""

    topic: Topic
    record: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Refused:
    """A carried record that cannot be accepted, and why; ``event`` is None where it did not even decode."""

    carried: Carried
    fault: Fault
    event: Event | None = None


class Projection(Protocol):
    """One processor's fold over one topic. ``apply`` runs inside the applier's transaction and never commits."""

    name: str
    topic: Topic

    def apply(self, tx: Connection, carried: Sequence[Carried]) -> None:
        """Fold ``carried`` (log order within each partition, cursors already checked) into the tables."""


@runtime_checkable
class Preparing(Protocol):
    """A projection that does part of its work outside the transaction, beside the one that is running.

    ``apply_prepared(tx, prepare(carried))`` is ``apply(tx, carried)``.
    """

    def prepare(self, carried: Sequence[Carried]) -> Any:
        """All that is a function of ``carried`` alone; runs in another thread, and may be thrown away."""

    def apply_prepared(self, tx: Connection, prepared: Any) -> None:
        """The rest, inside the applier's transaction."""


class Ticking(Protocol):
    """A projection that must also speak when nothing arrives."""

    name: str
    topic: Topic

    def tick(self, tx: Connection, partition: int, horizon: int) -> bool:
        """Act on what became due up to ``horizon`` (epoch ms) in ``partition``; True if more is left to do."""


@runtime_checkable
class Aside(Protocol):
    """A projection that also speaks beside the applying: its words follow events, no clock, and need no cursor."""

    aside_s: float
    """Seconds between two looks while nothing comes."""

    def speak(self, tx: Connection) -> bool:
        """Say some of what is to be said; True if more is left."""

    def tidy(self, tx: Connection) -> bool:
        """While records come: do a small piece of the same; True if it did any."""
