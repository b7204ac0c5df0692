"""Peers are pinned with hashes and made anew when a pin changes; what is not there is said, not raised."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from bench.peers import tools
from bench.peers.protocol import NotRun

ROOT = Path(__file__).parents[2]
PINNED = sorted((ROOT / "bench" / "peers").glob("*/requirements.txt"))


def test_there_are_pinned_peers() -> None:
    assert [p.parent.name for p in PINNED] == ["pathway", "quixstreams"]


@pytest.mark.parametrize("file", PINNED, ids=lambda p: p.parent.name)
def test_every_requirement_is_pinned_and_hashed(file: Path) -> None:
    text = file.read_text().replace("\\\n", " ")
    rows = [row for row in text.splitlines() if row and not row.lstrip().startswith("#")]
    assert rows
    assert [row for row in rows if not re.match(r"\S+==\S+ .*--hash=sha256:[0-9a-f]{64}", row)] == []


def test_every_version_of_the_maven_project_is_a_fixed_one() -> None:
    text = (ROOT / "bench" / "peers" / "kafka-streams" / "pom.xml").read_text()
    parts = re.findall(r"<(dependency|plugin)>(.*?)</\1>", text, re.S)
    assert len(parts) == 8
    assert [part for _, part in parts if not re.search(r"<version>\d[\w.]*</version>", part)] == []


def test_a_program_that_is_not_there_is_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(NotRun, match="there is no mvn on PATH"):
        tools.jars(tmp_path, "kafka-streams")


def test_requirements_that_cannot_be_installed_are_a_reason_and_are_tried_again_next_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wrong = tmp_path / "peers" / "wrong"
    wrong.mkdir(parents=True)
    (wrong / "requirements.txt").write_text("nothing-of-that-name\n")  # no hash, so pip refuses before any download
    monkeypatch.setattr(tools, "HERE", tmp_path / "peers")
    with pytest.raises(NotRun, match="python failed"):
        tools.environment(tmp_path / "tools", "wrong")
    assert list((tmp_path / "tools").rglob(tools.WHOLE)) == []
