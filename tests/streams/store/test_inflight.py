"""Marks of what is being decoded: they outlive the process, are narrow, and go when what they name is applied."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from schemas.topics import TICKET
from streams.store import inflight
from streams.store.lot import Lot
from streams.store.projection import Carried

DIES = """
import os, signal, sys
from pathlib import Path
from schemas.topics import TICKET
from streams.store import inflight
inflight.open_marks(Path(sys.argv[1]), "w")
with inflight.decoding(TICKET.name, {3: (10, 99)}), inflight.decoding(TICKET.name, {3: (40, 40)}):
    os.kill(os.getpid(), int(sys.argv[2]))
"""
LIVES = """
import sys
from pathlib import Path
from schemas.topics import TICKET
from streams.store import inflight
inflight.open_marks(Path(sys.argv[1]), "w")
with inflight.decoding(TICKET.name, {3: (10, 99)}):
    pass
"""


@pytest.fixture
def marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for marks; what this process has is put back afterwards."""
    for name, value in (("_file", None), ("_suspects", {}), ("condemned", set())):
        monkeypatch.setattr(inflight, name, value)
    return tmp_path


def life(code: str, marks: Path, *words: object) -> int:
    return subprocess.run([sys.executable, "-c", code, str(marks), *map(str, words)], check=False).returncode


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_who_dies_while_it_decodes_leaves_the_narrowest_mark(marks: Path, number: signal.Signals) -> None:
    assert life(DIES, marks, int(number)) == -number
    inflight.open_marks(marks, "w")
    assert inflight.suspected(TICKET.name, {3: (40, 40)})
    assert not inflight.suspected(TICKET.name, {3: (41, 99)})
    assert not inflight.suspected(TICKET.name, {2: (40, 40)})


def test_who_dies_elsewhere_leaves_none(marks: Path) -> None:
    assert life(LIVES, marks) == 0
    inflight.open_marks(marks, "w")
    assert not inflight.careful()


def test_a_suspicion_stands_over_further_lives_until_the_cursor_is_past_it(marks: Path) -> None:
    life(DIES, marks, int(signal.SIGKILL))
    life(LIVES, marks)
    inflight.open_marks(marks, "w")
    inflight.settle({(TICKET.name, 3): 40})
    assert inflight.suspects()
    inflight.settle({(TICKET.name, 3): 41})
    assert not inflight.suspects()
    inflight.forget()
    inflight.open_marks(marks, "w")
    assert not inflight.suspects()


def test_two_lives_under_one_name_do_not_read_each_others_marks(marks: Path) -> None:
    inflight.open_marks(marks, "w")
    with inflight.decoding(TICKET.name, {0: (1, 2)}):
        assert life(LIVES, marks) == 0
        assert sorted(p.name for p in marks.iterdir()) == ["w.0.inflight", "w.1.inflight"]


def test_a_mark_that_was_being_written_is_no_mark(marks: Path) -> None:
    life(DIES, marks, int(signal.SIGKILL))
    with (marks / "w.0.inflight").open("r+b") as file:
        file.seek(5)
        file.write(b"\x00\xff")
    inflight.open_marks(marks, "w")
    assert not inflight.suspects()


@pytest.mark.parametrize("size", [3, 300])
def test_a_mark_names_first_and_last_of_every_partition(size: int) -> None:
    partitions = np.repeat(np.array([4, 1, 4], dtype=np.int64), size)
    offsets = np.concatenate([np.arange(size) + start for start in (100, 7, 1_000)]).astype(np.int64)
    lot = Lot(TICKET, [object()] * (3 * size), partitions, offsets)
    assert inflight.ranges_of(lot) == {4: (100, 999 + size), 1: (7, 6 + size)}
    few = [Carried(TICKET, 2, offset, None, b"", ()) for offset in (5, 6, 9)]
    assert inflight.ranges_of(few) == {2: (5, 9)}


def test_without_a_file_nothing_is_marked() -> None:
    assert not inflight.careful()
    with inflight.decoding(TICKET.name, {0: (1, 2)}):
        assert not inflight.suspects()
