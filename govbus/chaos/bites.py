"""Whether the rig bites: every planted bug is put into the processes it belongs to, provoked, and must be caught.

Caught means that the oracle's verdict is not clean, or, where the bug is said to, that something stalls for good that
otherwise never does. What is done only here must show nothing without a bug (``SOUND``).
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from govbus.chaos import frailties
from govbus.chaos.cuts import cuts
from govbus.chaos.fleet import KINDS
from govbus.chaos.ground import command, environment, ground
from govbus.chaos.kills import GRACE_S, kills
from govbus.chaos.planted import BUGS, HALTING, HALTS, SOUND, Bug
from govbus.chaos.rounds import STALLED, UNJUDGED, told
from govbus.chaos.stage import Stage, stage
from govbus.chaos.watch import Stalled
from govbus.chaos.zombies import STOPPED_S, flow

STALL_S = 30.0
SHARE = 0.4
AWAY_S = 6.0
CUTS = 20
TIMES_HALTED = 10
KILLED_FLOW, TIMES_KILLED = 60.0, 3
HALTED_FLOW = 40.0
"""Rows a second while a worker halts again and again: the year must last, or nothing is due and it halts no more."""
WORKERS = ("worker-1", "worker-2")
TRIPLE_SQL = (
    "ALTER TABLE ticket_event DROP CONSTRAINT ticket_event_pkey",
    "INSERT INTO ticket_event SELECT t.* FROM (SELECT * FROM ticket_event LIMIT 1) AS t, generate_series(1, 2)",
)
DISCONNECT_SQL = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                    WHERE pid <> pg_backend_pid() AND datname = :name"""


@dataclass(frozen=True, slots=True)
class Bite:
    """What came of one planted bug; ``how`` is the oracle's first sentence."""

    name: str
    caught: bool
    how: str


def bite(home: Path, name: str, seed: int) -> Bite:
    """Plant ``name`` (of ``BUGS``, or of ``SOUND``: no bug), provoke it, judge."""
    bug = BUGS.get(name) or SOUND[name]
    planted = dict.fromkeys(bug.kinds, (name,)) | ({"province": ("liar",)} if "liar" in bug.provoke else {})
    if "halt" in bug.provoke:
        planted["worker"] = (*planted.get("worker", ()), HALTS)
    part = next((word.removeprefix("part:") for word in bug.provoke if word.startswith("part:")), "")
    if part:
        found = judged(frailties.found(part, seed, planted))
        faults = [text for text in found if bug.by in text and (bug.stalls or STALLED not in text)]
        return Bite(name, bool(faults), (faults or ["nothing was found"])[0][:200])
    with ground(home) as bus, stage(bus, seed, bug.cases, planted) as made:
        made.watch.patience = STALL_S
        try:
            _provoke(made, bug)
            verdict = made.finish()
            if "ledger" in bug.provoke:
                return _ledger(made, name)
        except Stalled as error:
            return Bite(name, bug.stalls, f"{STALLED}{error}"[:200])
    faults = [text for text in judged(told(verdict, seed)["faults"]) if bug.by in text]
    return Bite(name, bool(faults), (faults or ["nothing was found"])[0][:200])


def judged(faults: Sequence[str]) -> list[str]:
    """Of ``faults`` those that were judged: an oracle that failed has caught nothing."""
    return [text for text in faults if UNJUDGED not in text]


def _provoke(made: Stage, bug: Bug) -> None:
    places = [p for p in bug.provoke if "." in p]
    if places:
        kills(made, 2 * len(places), 2, places)
    if "kill" in bug.provoke:
        _kill_while_events_flow(made, bug)
    if "disconnect" in bug.provoke:
        _disconnect(made)
    if "halt" in bug.provoke:
        _wake_late(made)
    if "rebuild" in bug.provoke:
        _rebuild(made)
    if "tear" in bug.provoke:
        made.publish_up_to(SHARE)
        made.wait(AWAY_S)
        cuts(made, ("tear",))
    if "poison" in bug.provoke:
        _poison_kills(made)


def _kill_while_events_flow(made: Stage, bug: Bug) -> None:
    """Events come on all the time: what comes as the next life begins makes a gap that its watchdog cannot heal."""
    made.rate = KILLED_FLOW
    for _ in range(TIMES_KILLED):
        flow(made, 2 * AWAY_S)
        for name in [n for n in made.fleet.lives if KINDS[n] in (bug.kinds or ("worker",))]:
            made.fleet.kill(name)
    flow(made, 2 * AWAY_S)


def _wake_late(made: Stage) -> None:
    """Let the worker that halts by itself lie for longer than its session lasts, while another has its partitions."""
    made.rate = HALTED_FLOW
    for _ in range(TIMES_HALTED):
        made.look_until(lambda: _halted(made), "a worker's way to its halt")
        flow(made, STOPPED_S)
        made.fleet.signal(HALTING, signal.SIGCONT)
    made.wait(GRACE_S)
    made.fleet.planted = {}  # a worker that halts for good would look like a bug that was caught
    made.fleet.kill(HALTING)


def _halted(made: Stage) -> bool:
    made.flow()
    life = made.fleet.lives.get(HALTING)
    try:
        return life is not None and "State:\tT" in Path(f"/proc/{life.process.pid}/status").read_text()
    except FileNotFoundError:  # it has just ended
        return False


def _rebuild(made: Stage) -> None:
    """Let the workers derive everything anew once some of the year has been said."""
    made.publish_up_to(2 * SHARE)
    made.wait(AWAY_S)
    asked, env = command("govbus.cli", "rebuild", "--yes", "--timeout", "0"), environment(made.ground.env())
    subprocess.run(asked, env=env, capture_output=True, check=True, timeout=120)


def _poison_kills(made: Stage) -> None:
    """Let a worker die with a refused record in hand."""
    made.publish_up_to(SHARE)
    made.plan = lambda name: "apply.after_commit" if name in WORKERS else ""
    for name in WORKERS:
        made.fleet.kill(name)
    made.wait(AWAY_S)
    made.plan = lambda _: ""
    made.poison()
    made.look_until(lambda: any(d.by == "apply.after_commit" for d in made.fleet.deaths), "poison")


def _ledger(made: Stage, name: str) -> Bite:
    """A row that stands three times must not escape ``govbus reconcile``; the ledger without ``name`` sees it."""
    with made.watch.engine.begin() as tx:
        for statement in TRIPLE_SQL:
            tx.execute(sa.text(statement))
    blind, seeing = _equal(made, name), _equal(made)
    return Bite(name, blind and not seeing, f"with it reconcile says equal: {blind}, without it: {seeing}")


def _equal(made: Stage, *planted: str) -> bool:
    words = ("govbus.cli", "reconcile", "--no-province", "--json")
    asked = command("govbus.chaos.planted", *planted, "--", *words) if planted else command(*words)
    env = environment(made.ground.env())
    said = subprocess.run(asked, env=env, capture_output=True, text=True, check=False, timeout=300)
    return bool(json.loads(said.stdout)["equal"])


def _disconnect(made: Stage) -> None:
    """End every connection of the database again and again while events flow."""
    url = sa.engine.make_url(made.ground.database_url)
    engine = sa.create_engine(url.set(database="postgres"))
    for number in range(CUTS):
        made.publish_up_to((number + 1) / CUTS)
        with engine.connect() as tx:
            tx.execute(sa.text(DISCONNECT_SQL), {"name": url.database})
        time.sleep(0.2)
        made.watch.engine.dispose()
    engine.dispose()
