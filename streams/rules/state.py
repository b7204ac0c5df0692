"""The state of a case as it is kept: what its events came to, and what was said about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import NODEFAULT, Struct, convert, json, structs

from streams.rules.cards import Alert
from streams.rules.lifecycle import NONE, CaseEvent


class Spoken(Struct, frozen=True):
    """What was last said of an alert: statement number, action, and the statement's content."""

    seq: int
    action: str
    content: str
    alert: Alert


class CaseState(Struct, frozen=True):
    """A case as derived up to its horizon. Times epoch ms UTC. ``events`` in log order, each once.

    ``spoken`` (by alert id) is what was said before: it depends on when one looked, so it is no part of
    :meth:`dump`.
    ``next_check_at``: when silence changes something next; None: never; 0: references have changed; below 0: calendars
    have, and nothing before that moment (negated) can be otherwise now. ``counted_from``, ``counted_to``: between them
    lie all days of the calendar that it depends on; None: no end is known.
    """

    case_no: str
    events: tuple[CaseEvent, ...]
    region: str = ""
    department: str = ""
    item_code: str = ""
    status: str = NONE
    accepted_at: int | None = None
    deemed: bool = False
    due_at: int | None = None
    yellow_at: int | None = None
    statutory_due_at: int | None = None
    stopped_at: int | None = None
    on_time: bool | None = None
    provisional: bool = False
    used_minutes: int | None = None
    calendar_version: str = ""
    parked: tuple[str, ...] = ()
    alerts: tuple[Alert, ...] = ()
    next_check_at: int | None = None
    counted_from: int = 0
    counted_to: int | None = None
    spoken: Mapping[str, Spoken] = {}

    @property
    def known_at(self) -> int:
        """Its newest knowledge, epoch ms."""
        return self.events[-1].known_at if self.events else 0

    def dump(self) -> dict[str, Any]:
        """What :meth:`load` reads back, for ``msgspec.json``."""
        return {"events": [_event_row(e) for e in self.events], "alerts": self.alerts}

    def dump_derived(self) -> dict[str, Any]:
        """What no column has and :meth:`load` does not need, for ``msgspec.json``."""
        return {
            "deemed": self.deemed,
            "used_minutes": self.used_minutes,
            "calendar_version": self.calendar_version,
            "parked": self.parked,
        }

    @classmethod
    def load(
        cls, case_no: str, text: str, next_check_at: int | None, spoken: Mapping[str, Spoken]
    ) -> CaseState:
        """What :func:`fold` needs of a state, from the JSON of :meth:`dump`. The rest is derived anew."""
        stored = _STORED.decode(text)
        return cls(case_no, stored.events, alerts=stored.alerts, next_check_at=next_check_at, spoken=spoken)


class _Stored(Struct):
    events: tuple[CaseEvent, ...]
    alerts: tuple[Alert, ...]


_STORED = json.Decoder(_Stored)
_GIVEN = len(CaseEvent.__struct_fields__) - len(CaseEvent.__struct_defaults__)
_EVENT_DEFAULTS = (NODEFAULT,) * _GIVEN + CaseEvent.__struct_defaults__


def _event_row(event: CaseEvent) -> Sequence[Any]:
    """The fields in order, without the trailing ones that have their default."""
    row = list(structs.astuple(event))
    while row[-1] == _EVENT_DEFAULTS[len(row) - 1]:
        row.pop()
    return row


def alert_of(row: Sequence[Any]) -> Alert:
    """An alert from its JSON, which is its fields in order."""
    return convert(row, Alert)
