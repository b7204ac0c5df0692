"""Guilt is proven by a child that dies of it alone; a child that is killed proves nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PROBE = """
import json, os, signal, sys
from schemas.topics import TICKET
from streams.store import quarantine, steps
from streams.store.projection import Carried

def decode(one):
    if one.value == b"segfault":
        import ctypes
        ctypes.string_at(0)
    if one.value == b"abort":
        os.abort()
    if one.value == b"killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if one.value == b"raises":
        raise RuntimeError
    if one.value == b"endless memory":
        hog = [bytes(1 << 30) for _ in range(64)]
    if one.value == b"only after another" and seen:
        os.abort()
    seen.append(one)

seen = []
steps.decode_row = decode
records = [Carried(TICKET, 0, n, None, v.encode(), ()) for n, v in enumerate(sys.argv[1:])]
print(json.dumps(quarantine.culprits(records)))
"""


def culprits(*values: str) -> list[int]:
    done = subprocess.run([sys.executable, "-c", PROBE, *values], capture_output=True, text=True, check=True)
    found: list[int] = json.loads(done.stdout)
    return found


def test_every_record_that_kills_is_found_and_no_other() -> None:
    assert culprits("good", "segfault", "good", "abort", "raises", "good") == [1, 3]


def test_a_child_killed_from_outside_proves_nothing() -> None:
    assert culprits("good", "killed", "good") == []


def test_what_kills_only_after_another_is_not_condemned() -> None:
    assert culprits("good", "only after another", "segfault") == [2]


def test_a_record_that_asks_for_memory_without_end_cannot_take_the_machine() -> None:
    assert culprits("good", "endless memory", "segfault") == [2]


ENDED = """
import threading, time
from streams.store import quarantine

def slow(carried):
    time.sleep(1)
    return [7]

quarantine.culprits = slow
prober, found = quarantine.Prober(), []
asking = threading.Thread(target=lambda: found.append(prober.guilty([])))
asking.start()
time.sleep(0.3)
prober.close()
asking.join()
print(found, prober.guilty([]))
"""


def test_a_prober_is_ended_after_the_answer_that_somebody_waits_for() -> None:
    done = subprocess.run([sys.executable, "-c", ENDED], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[[7]] []"


def test_who_stands_by_leaves_no_core_file_when_it_dies(tmp_path: Path) -> None:
    """Citizens' cases would lie in it."""
    asks = "import resource, sys\nfrom pathlib import Path\nfrom streams.store import quarantine\n"
    asks += "resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)\n"
    asks += "quarantine.stand_by(Path(sys.argv[1]), 'worker')\nprint(resource.getrlimit(resource.RLIMIT_CORE))"
    done = subprocess.run([sys.executable, "-c", asks, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == "(0, 0)\n"
