"""A rolling upgrade: a release with a new version of one contract runs beside the old one while events flow.

The newer release is a copy of this one with one more optional field in the ratings' contract, raised and frozen by the
product's own command. First a worker is newer than the publishers, then the publishers newer than a worker, then all.
Nothing may be refused for it: an old worker that meets a new record waits for its own upgrade.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import sqlalchemy as sa

import schemas
from govbus.chaos.ground import environment
from govbus.chaos.stage import Stage
from schemas.topics import RATING

PACKAGES = ("schemas", "streams", "connectors", "consumers", "govbus")
FIELD = {
    "name": "window_no", "type": "string", "default": "",
    "doc": "Number of the service window. 窗口编号. Source: a newer release, made by the fault rig.",
}  # fmt: skip
SHARE = 0.2
"""Of the year, what is published in each step."""
HOLDS = "newer contract than this release knows"
WRITTEN_SQL = """SELECT get_byte(value, 3) * 256 + get_byte(value, 4) AS id, count(*) AS n FROM outbox
                 WHERE topic = :t GROUP BY 1"""


def newer_release(directory: Path) -> Path:
    """A release in ``directory`` whose ratings' contract has one more optional field; raises if it may not stand."""
    root = Path(schemas.__file__).parent.parent
    for package in PACKAGES:
        shutil.copytree(root / package, directory / package, ignore=shutil.ignore_patterns("__pycache__"))
    path = directory / RATING.contract.relative_to(root)
    contract = json.loads(path.read_text())
    contract["fields"].append(FIELD)
    path.write_text(json.dumps(contract, ensure_ascii=False, indent=2))
    topics = directory / "schemas" / "topics.py"
    line = f'Topic(\n    "{RATING.name}", {RATING.schema_id},'
    text = topics.read_text()
    assert line in text, "the ratings' topic is declared otherwise"
    topics.write_text(text.replace(line, line.replace(f"{RATING.schema_id},", f"{RATING.schema_id + 1000},")))
    for words in (("freeze",), ("check",)):
        command = [sys.executable, "-m", "govbus.cli", "schemas", *words]
        subprocess.run(command, cwd=directory, env=environment({}), check=True, capture_output=True, timeout=120)
    return directory


def upgraded(stage: Stage) -> dict[str, Any]:
    """Upgrade step by step while events flow; the figures of it."""
    newer = newer_release(stage.ground.home / "newer")
    stage.publish_up_to(SHARE)
    stage.wait(3.0)
    _replace(stage, newer, "worker-2")
    stage.publish_up_to(2 * SHARE)
    stage.wait(3.0)
    _answer_lost_between_releases(stage, newer)
    _replace(stage, newer, "push", "consume")
    stage.publish_up_to(3 * SHARE)
    stage.look_until(lambda: HOLDS in stage.fleet.log("worker-1").read_text(errors="replace"), "an old worker's wait")
    _replace(stage, newer, "worker-1", "relay")
    with stage.watch.engine.connect() as tx:
        written = {str(row.id): row.n for row in tx.execute(sa.text(WRITTEN_SQL), {"t": RATING.name})}
    return {"upgrades": 1, "ratings_by_schema_id": written}


def _answer_lost_between_releases(stage: Stage, newer: Path) -> None:
    """The old publisher dies with a stored slice unanswered; the newer one publishes the same again."""
    stage.plan = lambda name: "publish.after_commit:3" if name == "feed" else ""
    stage.fleet.kill("feed")
    stage.look_until(lambda: _place(stage) != "", "an armed publisher")
    stage.plan, stage.fleet.releases["feed"] = (lambda _: ""), newer
    stage.publish_up_to(2.5 * SHARE)
    stage.look_until(lambda: _place(stage) == "", "a newer publisher")


def _place(stage: Stage) -> str | None:
    life = stage.fleet.lives.get("feed")
    return life.place if life else None


def _replace(stage: Stage, release: Path, *names: str) -> None:
    for name in names:
        stage.fleet.releases[name] = release
        stage.fleet.kill(name)
    stage.wait(1.0)
