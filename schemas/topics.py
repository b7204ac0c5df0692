"""The fourteen topics as values: name, key, contract, partitions, retention. A topic's name as a string
elsewhere is a mistake.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

AVRO = Path(__file__).parent / "avro"
DAY_MS = 86_400_000
FOREVER = -1


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic and its contract.

    ``key`` names the field whose text is the Kafka key. ``identity`` names the fields which, with topic,
    region and department, make an event unique: its id is the UUIDv5 of them. ``schema_id`` stands in the
    Confluent header. ``retention_ms`` is in milliseconds, -1 for ever.
    """

    name: str
    schema_id: int
    domain: str
    key: str
    identity: tuple[str, ...]
    direction: Literal["in", "out"]
    partitions: int = 12
    retention_ms: int = FOREVER
    cleanup: Literal["delete", "compact"] = "delete"

    @property
    def compacted(self) -> bool:
        """Whether the log keeps of each key the newest record alone."""
        return self.cleanup == "compact"

    @property
    def forgets(self) -> bool:
        """Whether the log may lose what it took: by compaction, or after a time."""
        return self.compacted or self.retention_ms > 0

    @property
    def subject(self) -> str:
        """Subject under which the contract is registered, after Confluent's TopicNameStrategy."""
        return f"{self.name}-value"

    @property
    def contract(self) -> Path:
        """The Avro contract, ``schemas/avro/<domain>/<subject>.avsc``."""
        return AVRO / self.domain / f"{self.name}.avsc"


ITEM = Topic("service.item.v1", 2001, "service", "item_code", ("item_code", "item_version", "event_type"), "in")
CASE = Topic("service.case.v1", 1002, "service", "case_no", ("case_no", "event_type", "event_no"), "in")
RATING = Topic(
    "service.rating.v1", 3, "service", "case_no", ("case_no", "service_no", "assess_no", "revision"), "in"
)
LICENCE = Topic(
    "licence.record.v1",
    4,
    "licence",
    "family",
    ("family", "licence_version", "event_type", "occurred_at"),
    "in",
)
RESOURCE = Topic(
    "directory.resource.v1",
    5,
    "directory",
    "resource_code",
    ("resource_code", "event_type", "occurred_at"),
    "in",
)
HANDLING = Topic(
    "oversight.handling.v1",
    1006,
    "oversight",
    "case_no",
    ("case_no", "alert_id", "event_type", "event_no"),
    "in",
)
BEHAVIOUR = Topic(
    "supervision.behaviour.v1", 7, "supervision", "behaviour_no", ("behaviour_no", "event_type"), "in"
)
TICKET = Topic("hotline.ticket.v1", 8, "hotline", "ticket_no", ("ticket_no", "event_type", "event_no"), "in")
CALENDAR = Topic(
    "reference.calendar.v1", 9, "reference", "region", ("region", "year", "revision"), "in", partitions=1
)
ALERT = Topic("oversight.alert.v1", 1010, "oversight", "alert_id", ("alert_id", "alert_seq"), "out")
ROLLUP = Topic("rating.rollup.v1", 11, "rating", "scope", ("scope", "revision"), "out", cleanup="compact")
UPLOAD = Topic("rating.upload.v1", 1012, "rating", "rating_id", ("rating_id", "source_event_id"), "out")
ENTRY = Topic(
    "directory.entry.v1", 13, "directory", "resource_code", ("resource_code", "entry_version"), "out"
)
DEADLETTER = Topic(
    "bus.deadletter.v1", 14, "bus", "original_topic", ("dead_id",), "out", retention_ms=400 * DAY_MS
)

TOPICS: tuple[Topic, ...] = (
    ITEM, CASE, RATING, LICENCE, RESOURCE, HANDLING, BEHAVIOUR, TICKET, CALENDAR,
    ALERT, ROLLUP, UPLOAD, ENTRY, DEADLETTER,
)  # fmt: skip
INBOUND: tuple[Topic, ...] = tuple(t for t in TOPICS if t.direction == "in")
BY_NAME: Mapping[str, Topic] = {t.name: t for t in TOPICS}
