"""How a peer is run and what it says: JSON lines on its standard output.

``{"began": 0.5}`` it begins to read; ``{"n": 1200, "at": 1.5}`` counted so far and when (epoch seconds);
``{"durable": 9.1}`` since when all of it is durable; ``{"dumped": true, "offsets": {"0": 17}}`` once its counts are in
the dump (offsets only if it did not count the whole topic). Other lines are ignored. Then it is stopped.
"""

from __future__ import annotations

import json
import shutil
import threading
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from bench import counts
from bench.process import must_live, running
from bench.stand import Stand
from schemas.codec import contract, without_instants
from schemas.errors import GovbusError
from schemas.topics import Topic

LONGEST_S = 1_800.0


class NotRun(GovbusError):
    """The peer gave no figure; the message says why."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a peer said: ``rate`` in events a second, how many it counted, and up to where if not to the end."""

    rate: float
    events: int
    offsets: Mapping[int, int] | None


@dataclass(frozen=True, slots=True)
class Task:
    """What is counted: the first ``count`` records of ``topic`` by ``fields`` and day."""

    topic: Topic
    fields: Sequence[str]
    count: int


def measure(stand: Stand, name: str, command: Sequence[str], task: Task, dump: Path) -> Told:
    """Run a peer over ``task``; its counts are in ``dump`` then. Raises ``NotRun`` if it ended, hung or said nothing.

    Its topics and its state are removed.
    """
    group = f"peer-{name.replace('_', '-')}-{uuid.uuid4().hex[:8]}"
    with stand.directory(group) as home:
        log = stand.home / f"{group}.log"
        try:
            with running([*command, *_arguments(stand, task, group, home, dump)], log, piped=True) as child:
                timer = threading.Timer(LONGEST_S, child.kill)
                timer.start()
                try:
                    assert child.stdout is not None
                    told = understand(child.stdout)
                    if told is None:
                        must_live(child, log, patience=10)
                finally:
                    timer.cancel()
        except GovbusError as error:
            raise NotRun(str(error)) from None
        finally:
            stand.forget(group)
    if told is None:
        raise NotRun("it closed its output and said nothing of an end")
    return told


def understand(lines: Iterable[str]) -> Told | None:
    """What the lines say, up to ``dumped``; None if they end before.

    The rate is taken from the first moment at which something was counted to the moment at which all was durable; if
    the first word already holds all (a peer that tells nothing on the way), from where it began.
    """
    began, first, n, durable = 0.0, (0, 0.0), 0, 0.0
    for line in lines:
        word = _word(line)
        if "n" in word:
            n = word["n"]
            first = first if first[0] else (n, word["at"])
        began = word.get("began", began)
        durable = word.get("durable", durable)
        if word.get("dumped"):
            start = first if first[0] < n else (0, began)
            offsets = word.get("offsets")
            ends = {int(p): o for p, o in offsets.items()} if offsets else None
            return Told((n - start[0]) / max(durable - start[1], 1e-3), n, ends)
    return None


def verdict(stand: Stand, task: Task, whole: pl.DataFrame, told: Told, dump: Path) -> str:
    """What is wrong with a peer's counts, compared with ``whole`` (or with the log, up to where the peer counted);
    empty if nothing is.
    """
    expected = whole
    if told.offsets is not None:
        expected = counts.of_log(stand.kafka, task.topic, task.fields, told.offsets)
    wrong = counts.differences(expected, counts.of_dump(dump, task.fields))
    return f"it counted wrong: {wrong:,} of {expected.height:,} cells differ" if wrong else ""


def _word(line: str) -> dict[str, Any]:
    """The JSON object in a line; Faust's spinner may stand before it."""
    try:
        found = json.loads(line[line.index("{") :])
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _arguments(stand: Stand, task: Task, group: str, home: Path, dump: Path) -> list[str]:
    schema = stand.home / f"{task.topic.name}.avsc"
    schema.write_text(json.dumps(without_instants(contract(task.topic))))
    shutil.rmtree(dump, ignore_errors=True)
    given = {
        "kafka": stand.kafka,
        "topic": task.topic.name,
        "name": group,
        "home": str(home),
        "schema": str(schema),
        "fields": ",".join(task.fields),
        "count": str(task.count),
        "dump": str(dump),
    }
    return [word for name, value in given.items() for word in (f"--{name}", value)]
