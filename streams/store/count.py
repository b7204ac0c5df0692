"""Stores supervision records and hotline tickets, each once; nothing is derived from them yet."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from schemas.topics import BEHAVIOUR, TICKET
from streams.rules import count
from streams.store import frames, sets
from streams.store.projection import Carried, Event, Refused
from streams.store.steps import bury, keep_new
from streams.store.tables import behaviour_event, ticket_event


class BehaviourProjection:
    """``supervision.behaviour.v1`` to ``behaviour_event``."""

    name = "behaviour"
    topic = BEHAVIOUR

    def apply(self, tx: sa.Connection, carried: Sequence[Carried]) -> None:
        """Keep new records; bury the impossible ones."""
        events, refused = frames.events(self.topic, carried)
        possible: list[Event] = []
        for event in events:
            fault = count.refusal(event.record)
            if fault:
                refused.append(Refused(event.carried, fault, event))
            else:
                possible.append(event)
        bury(tx, refused)
        keep_new(tx, behaviour_event, possible, sets.keyed("behaviour_no"))


class TicketProjection:
    """``hotline.ticket.v1`` to ``ticket_event``."""

    name = "ticket"
    topic = TICKET

    def apply(self, tx: sa.Connection, carried: Sequence[Carried]) -> None:
        """Keep new tickets."""
        events, refused = frames.events(self.topic, carried)
        bury(tx, refused)
        keep_new(tx, ticket_event, events, sets.keyed("ticket_no"))
