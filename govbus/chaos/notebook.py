"""The departments' notebook: what they asked of the bus and what they were answered; and the year they publish.

Before a slice is published the file says so (``ask``); after it, what each row was answered (``got``). ``ALLOW``
holds the share of the year that may have been published by now. Imports nothing of the product.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from govbus.district.generator import Made
from govbus.district.model import Row
from schemas.topics import BY_NAME, Topic

MADE, ROWS, ANSWERS, ALLOW, POISON = "made.pickle", "rows.pickle", "answers.jsonl", "allow", "poison.jsonl"
SLICE = 10
"""Rows that are published in one transaction."""


def entries(home: Path) -> Iterator[dict[str, Any]]:
    """What the file of answers says; a line cut off by a kill is not there."""
    path = home / ANSWERS
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


def answered(home: Path) -> set[str]:
    """Ids of the events that the bus has taken, as the departments were told so far."""
    rows = (row for entry in entries(home) for row in entry.get("rows", ()))
    return {event_id for _, _, event_id, outcome in rows if outcome in ("new", "same")}


class _Pickler(pickle.Pickler):
    """Writes a topic as its name: a topic is one object, and code compares it as such."""

    def reducer_override(self, value: Any) -> Any:
        """How to make a topic again; everything else as usual."""
        return (topic_named, (value.name,)) if isinstance(value, Topic) else NotImplemented


def topic_named(name: str) -> Topic:
    """The topic of that name."""
    return BY_NAME[name]


def store(home: Path, made: Made) -> int:
    """Put the simulated district where departments and oracle find it; how many rows its year has."""
    with (home / MADE).open("wb") as out:
        _Pickler(out).dump(made)
    rows = made.district.rows
    with (home / ROWS).open("wb") as out:
        pickle.dump(len(rows), out)
        for start in range(0, len(rows), SLICE):
            _Pickler(out).dump(rows[start : start + SLICE])
    return len(rows)


def slices(home: Path) -> Iterator[tuple[int, float, Sequence[Row]]]:
    """The year slice by slice: the number of the first row, the share of the year before it, the rows. They are read
    one by one: whoever publishes for hours holds no year.
    """
    with (home / ROWS).open("rb") as file:
        count = pickle.load(file)
        for start in range(0, count, SLICE):
            yield start, start / count, pickle.load(file)


def load(home: Path) -> Made:
    """The simulated district that the rig put there."""
    made: Made = pickle.loads((home / MADE).read_bytes())
    return made


def allow(home: Path, share: float) -> None:
    """Let the departments publish up to ``share`` of the year."""
    draft = home / f"{ALLOW}.new"
    draft.write_text(str(share))
    draft.replace(home / ALLOW)


@dataclass(frozen=True, slots=True)
class Poisoned:
    """Where a record lies that must be refused, and the reasons for which it may be."""

    topic: str
    partition: int
    offset: int
    reasons: Sequence[str]


def poison(home: Path, placed: Sequence[Poisoned]) -> None:
    """Note records that must be refused."""
    with (home / POISON).open("a") as out:
        out.writelines(json.dumps(asdict(one)) + "\n" for one in placed)


def poisoned(home: Path) -> list[Poisoned]:
    """All records that must be refused, as they were noted."""
    path = home / POISON
    return [Poisoned(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


@dataclass(slots=True)
class Notebook:
    """The file of answers, written line by line with single calls: what is written survives a kill."""

    home: Path
    handle: int = -1

    def note(self, entry: dict[str, Any]) -> None:
        """Write one line."""
        if self.handle < 0:
            self.handle = os.open(self.home / ANSWERS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(self.handle, b"\n" + json.dumps(entry).encode() + b"\n")
