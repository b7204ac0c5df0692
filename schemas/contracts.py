"""The Avro contracts as data: loads them, knows their versions and fixed ids. Decides no value, encodes
nothing.

Version ``n`` of a topic's contract has the schema id ``base + 1000 * (n - 1)``, where ``base`` (1 to 14)
belongs to the topic for ever; so an id alone names topic and version, with no registry to ask.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from schemas.topics import TOPICS, Topic

VERSION_STEP = 1000
GOLDEN = Path(__file__).parent / "golden"


@cache
def contract(topic: Topic) -> dict[str, Any]:
    """The topic's present contract as parsed JSON. Shared: do not change it."""
    parsed: dict[str, Any] = json.loads(topic.contract.read_text(encoding="utf-8"))
    return parsed


def version(topic: Topic) -> int:
    """Number of the topic's present contract version, from 1."""
    return topic.schema_id // VERSION_STEP + 1


def schema_id(topic: Topic, number: int) -> int:
    """Fixed schema id of version ``number`` of the topic's contract."""
    return topic.schema_id % VERSION_STEP + VERSION_STEP * (number - 1)


def golden_path(topic: Topic, number: int) -> Path:
    """Where the frozen copy of version ``number`` lies."""
    return GOLDEN / topic.name / f"{number}.avsc"


@cache
def written_by(identifier: int) -> tuple[Topic, dict[str, Any]] | None:
    """Topic and writer's contract behind a schema id; None if no such version was ever published."""
    for topic in TOPICS:
        if topic.schema_id == identifier:
            return topic, contract(topic)
        if topic.schema_id % VERSION_STEP == identifier % VERSION_STEP and identifier < topic.schema_id:
            frozen = golden_path(topic, identifier // VERSION_STEP + 1)
            return topic, json.loads(frozen.read_text(encoding="utf-8"))
    return None


def field_specs(topic: Topic) -> dict[str, dict[str, Any]]:
    """The present contract's top-level fields by name, with every attribute (codeset, personal, identifier,
    …).
    """
    return {f["name"]: f for f in contract(topic)["fields"]}


def event_types(topic: Topic) -> tuple[str, ...]:
    """The event types that may travel on the topic."""
    return tuple(field_specs(topic)["event_type"]["event_types"])


def personal_fields(topic: Topic) -> frozenset[str]:
    """Names of the top-level fields that hold personal data: never in logs, errors, metrics or URLs."""
    return frozenset(name for name, spec in field_specs(topic).items() if spec.get("personal"))
