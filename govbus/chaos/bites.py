"""Whether the rig bites: every planted bug is put into the processes it belongs to, provoked, and must be caught.

Caught means that the oracle's verdict is not clean, or that something stalls for good that otherwise never does.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from govbus.chaos import frailties
from govbus.chaos.ground import ground
from govbus.chaos.kills import kills
from govbus.chaos.planted import BUGS, Bug
from govbus.chaos.stage import Stage, stage
from govbus.chaos.watch import Stalled

CASES = 60
STALL_S = 30.0
SHARE = 0.4
AWAY_S = 6.0
CUTS = 20
DISCONNECT_SQL = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                    WHERE pid <> pg_backend_pid() AND datname = :name"""


@dataclass(frozen=True, slots=True)
class Bite:
    """What came of one planted bug; ``how`` is the oracle's first sentence."""

    name: str
    caught: bool
    how: str


def bite(home: Path, name: str, seed: int) -> Bite:
    """Plant ``name``, provoke it, judge."""
    bug = BUGS[name]
    planted = dict.fromkeys(bug.kinds, (name,)) | ({"province": ("liar",)} if "liar" in bug.provoke else {})
    part = next((word.removeprefix("part:") for word in bug.provoke if word.startswith("part:")), "")
    if part:
        faults = frailties.found(part, seed, planted)
        return Bite(name, bool(faults), (faults or ["nothing was found"])[0][:200])
    with ground(home) as bus, stage(bus, seed, CASES, planted) as made:
        made.watch.patience = STALL_S
        try:
            _provoke(made, bug)
            verdict = made.finish()
        except Stalled as error:
            return Bite(name, True, f"stalled: {error}"[:200])
    shown = [text for found in verdict["shown"].values() for text in found]
    return Bite(name, not verdict["clean"], (shown or [verdict.get("failed", "nothing was found")])[0][:200])


def _provoke(made: Stage, bug: Bug) -> None:
    places = [p for p in bug.provoke if "." in p]
    if places:
        kills(made, 2 * len(places), 2, places)
    if "kill" in bug.provoke:
        _kill_while_events_flow(made, bug)
    if "disconnect" in bug.provoke:
        _disconnect(made)


def _kill_while_events_flow(made: Stage, bug: Bug) -> None:
    made.publish_up_to(SHARE)
    made.wait(AWAY_S)
    from govbus.chaos.fleet import KINDS

    for name in [n for n in made.fleet.names if KINDS[n] in bug.kinds]:
        made.fleet.kill(name)
    made.publish_up_to(2 * SHARE)
    made.wait(AWAY_S)


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
