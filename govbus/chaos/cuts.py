"""A single broker loses what it acknowledged while events flow: power cuts that tear the ends off its logs, topics
deleted and made again; and batches that rot on its disk.

After each the loss must be noticed before anything is sent below a cursor, ``govbus resend`` must find exactly what was
lost, and all must be applied once. Rot must be waited for by living workers, and nothing skipped. The workers' own
directory is wiped each time: nothing in it may matter.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from connectors.local.broker import serves
from govbus.chaos import logfile
from govbus.chaos.cycles import last_words
from govbus.chaos.ground import command, environment
from govbus.chaos.stage import Stage
from govbus.chaos.watch import BROKER
from schemas.topics import ALERT, BY_NAME, CASE, INBOUND, RATING, TOPICS, UPLOAD

WAYS = ("tear", "tear", "rot", "tear", "recreate")
"""What befalls the log, cycle by cycle."""
FLOW_S, ROT_S = 1.0, 3.0
RATE = 40.0
"""Rows a second that flow: the year must last, for a relay with nothing to send notices nothing."""
ROTTEN = 4
"""Partitions in which a batch rots at a time."""
BUSY = (CASE.name, RATING.name, ALERT.name, UPLOAD.name)
"""Topics into which something is always sent."""
WORKERS = ("worker-1", "worker-2")
LOST_SQL = "SELECT count(*) FROM outbox WHERE topic = :topic AND sent_partition = :partition AND sent_offset >= :offset"
SENT_SQL = """
    SELECT topic, sent_partition, max(sent_offset) FROM outbox WHERE topic = ANY(:topics) AND sent_offset >= 0
    GROUP BY topic, sent_partition
"""
RESEND, DAMAGED = '"mend": "govbus resend"', "damaged batch on the broker"
ENOUGH_S = 300.0


@dataclass(slots=True)
class Cuts:
    """``wrong``: what was not as it must be; ``lost``: events the broker had acknowledged and lost, in all."""

    stage: Stage
    wrong: list[str] = field(default_factory=list)
    lost: int = 0
    noticed: int = 0
    before: int = 0
    """How often the relay had said what to do before this cycle's blow."""
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def cycle(self, way: str) -> None:
        """One loss, from the blow until all is sent and applied again. Raises ``Stalled``."""
        began = time.monotonic()
        self._flow(FLOW_S)
        self.before = self._said(("relay",), RESEND)
        {"tear": self._tear, "recreate": self._recreate, "rot": self._rot}[way]()
        self.stage.look_until(self._recovered, f"recovery after {way}")
        self.seconds.setdefault(way, []).append(time.monotonic() - began)

    # --- ways ---

    def _tear(self) -> None:
        node = self.stage.ground.cluster.nodes[0]
        node.kill()
        lost = dict(self._each(self._cut))
        shutil.rmtree(self.stage.ground.home / "worker", ignore_errors=True)
        self.stage.ground.cluster.start_node(node)
        self.stage.look_until(lambda: serves(self.stage.ground.kafka), "the broker's start")
        if count := self._rows(lost):
            self._mended(lost, count)

    def _recreate(self) -> None:
        topic = self.stage.rng.choice(BUSY)
        self._flow_until(lambda: self._rows(_all_of(topic)) > 0, f"anything on {topic}")
        everything = _all_of(topic)
        sent = self._rows(everything)
        admin = AdminClient({"bootstrap.servers": self.stage.ground.kafka, "log_level": 0})
        admin.delete_topics([topic])[topic].result(30)
        self.stage.look_until(lambda: topic not in _topics(admin), f"the end of {topic}")
        self._run("topics", "apply")
        self._mended(everything, sent)  # what came before the end was noticed may lie in partitions unused so far

    def _rot(self) -> None:
        for name in WORKERS:
            self.stage.fleet.signal(name, signal.SIGSTOP)
        self._flow(FLOW_S)  # a stopped worker may have asked for records before: let them be answered
        before = self._sent()
        self._flow_until(lambda: len(self._unread(before)) >= ROTTEN, "anything the workers have not read")
        unread = self.stage.rng.sample(sorted(self._unread(before)), ROTTEN)
        rotten = {p: at for p in unread if (at := logfile.damage(logfile.segment(self._data(), p), 1)) is not None}
        ended, said = len(self.stage.ends), self._said(WORKERS, DAMAGED)
        for name in WORKERS:
            self.stage.fleet.signal(name, signal.SIGCONT)
        self._flow_until(lambda: self._said(WORKERS, DAMAGED) > said, "the workers' notice of a damaged batch")
        self.noticed += 1
        self._flow(ROT_S)
        self.wrong += [
            f"{d.name} ended at a damaged batch, code {d.code}{last_words(self.stage, d.name)}"
            for d in self.stage.ends[ended:]
        ]
        for place, at in rotten.items():
            logfile.flip_at(logfile.segment(self._data(), place), at)

    def _cut(self, path: Path) -> int | None:
        """The end of a log torn off, or rotten so that the broker cuts it off itself."""
        act = self.stage.rng.choice((logfile.tear, logfile.damage))
        return act(path, self.stage.rng.randint(1, 3))

    # --- after a loss ---

    def _mended(self, lost: dict[logfile.Place, int], at_least: int) -> None:
        """When the relay says what to do: do it; it must find what was lost, at most all that lies at ``lost``."""
        self._flow_until(lambda: self._said(("relay",), RESEND) > self.before, "the relay's notice of a loss")
        self.noticed += 1
        self.stage.watch.died(BROKER)
        at_most = self._rows(lost)
        found = sum(json.loads(self._run("resend", "--yes", "--json"))["lost"].values())
        self.lost += found
        if not at_least <= found <= at_most:
            self.wrong.append(f"govbus resend found {found} lost events, not {at_least} to {at_most}")

    def _said(self, names: Iterable[str], words: str) -> int:
        """How often processes have written ``words``."""
        return sum(self.stage.fleet.log(name).read_text(errors="replace").count(words) for name in names)

    def _rows(self, lost: dict[logfile.Place, int]) -> int:
        with self.stage.watch.engine.connect() as tx:
            asked = [{"topic": t, "partition": p, "offset": o} for (t, p), o in lost.items()]
            return sum(int(tx.execute(sa.text(LOST_SQL), one).scalar_one()) for one in asked)

    def _sent(self) -> dict[logfile.Place, int]:
        """The last offset of each partition that departments' events were sent to."""
        names = [topic.name for topic in INBOUND]
        with self.stage.watch.engine.connect() as tx:
            return {(t, p): last for t, p, last in tx.execute(sa.text(SENT_SQL), {"topics": names})}

    def _unread(self, before: dict[logfile.Place, int]) -> set[logfile.Place]:
        """Where more was sent than ``before``."""
        return {place for place, last in self._sent().items() if last > before.get(place, -1)}

    def _recovered(self) -> bool:
        return not self.stage.fleet.missing() and all(r.seconds is not None for r in self.stage.watch.recoveries)

    # --- means ---

    def _data(self) -> Path:
        return self.stage.ground.cluster.nodes[0].directory / "data"

    def _each(self, act: Any) -> list[tuple[logfile.Place, int]]:
        """``act`` on the segments of about half of the partitions that hold anything, and what each answered."""
        places = [(t.name, p) for t in TOPICS for p in range(t.partitions) if self.stage.rng.random() < 0.5]
        answers = [(place, act(logfile.segment(self._data(), place))) for place in places]
        return [(place, at) for place, at in answers if at is not None]

    def _flow(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.stage.flow()
            self.stage.look()

    def _flow_until(self, done: Callable[[], bool], what: str) -> None:
        """Until ``done()`` while events flow: a relay with nothing to send looks at nothing."""

        def flowing() -> bool:
            self.stage.flow()
            return done()

        self.stage.look_until(flowing, what)

    def _run(self, *words: str) -> str:
        """A command of ours, as an operator gives it; events flow meanwhile."""
        env = environment(self.stage.ground.env())
        pipe, asked = subprocess.PIPE, command("govbus.cli", *words)
        with subprocess.Popen(asked, env=env, stdout=pipe, stderr=pipe, text=True) as process:
            end = time.monotonic() + ENOUGH_S
            while process.poll() is None and time.monotonic() < end:
                self.stage.flow()
                self.stage.look()
            process.kill()
            said, complaint = process.communicate()
        if process.returncode:
            raise RuntimeError(f"govbus {' '.join(words)}: exit code {process.returncode}: {complaint[-2000:]}")
        return said


def cuts(stage: Stage, ways: Sequence[str]) -> dict[str, Any]:
    """Lose something in each of ``ways`` while events flow; the figures of it."""
    made = Cuts(stage)
    stage.rate = RATE
    stage.judged_with = ("--places-moved", *(["--order-not-kept"] if "recreate" in ways else []))
    for way in ways:
        made.cycle(way)
    return {"cycles": len(ways), "events_lost_by_the_broker": made.lost, "noticed": made.noticed, "wrong": made.wrong,
            "seconds": made.seconds}  # fmt: skip


def _all_of(topic: str) -> dict[logfile.Place, int]:
    return {(topic, partition): 0 for partition in range(BY_NAME[topic].partitions)}


def _topics(admin: AdminClient) -> set[str]:
    try:
        return set(admin.list_topics(timeout=5.0).topics)
    except KafkaException:
        return set(BUSY)
