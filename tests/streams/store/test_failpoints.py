"""A place dies when it is armed, at the n-th time and not before; unarmed it does nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.errors import Misconfigured
from streams.store import failpoints

ROOT = Path(__file__).parents[3]
REACHED = re.compile(r'failpoints\.reach\("([^"]+)"\)')
LIVES = """
from streams.store import failpoints
failpoints.arm({place!r})
for n in range(1, 6):
    failpoints.reach("apply.after_state")
    failpoints.reach("relay.after_send")
    print(n, flush=True)
"""


def life(place: str) -> tuple[int, str]:
    """Exit code of a process armed so, and how often it came past both places."""
    done = subprocess.run(
        [sys.executable, "-c", LIVES.format(place=place)], capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout.replace("\n", "")


def test_a_process_dies_at_its_place_at_the_time_named_and_at_no_other() -> None:
    assert life("apply.after_state:3") == (-9, "12")
    assert life("relay.after_send") == (-9, "")
    assert life("push.after_post") == (0, "12345")
    assert life("") == (0, "12345")


def test_it_can_be_armed_by_a_signal_while_the_process_runs() -> None:
    signalled = "    if n == 3:\n        import os\n        os.kill(os.getpid(), failpoints.SIGNAL)\n    print(n"
    code = LIVES.format(place="apply.after_state:2@later").replace("    print(n", signalled)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.replace("\n", "")) == (-9, "1234")


def test_a_place_that_does_not_exist_is_a_mistake_in_the_settings() -> None:
    for place in ("apply.nowhere", "apply.after_state:x", "apply.after_state@TERM"):
        with pytest.raises(Misconfigured, match="GOVBUS_FAILPOINT"):
            failpoints.arm(place)


def test_the_places_in_the_product_are_the_places_named_each_once() -> None:
    packages = ("streams", "connectors", "consumers", "govbus")
    paths = (p for package in packages for p in (ROOT / package).rglob("*.py") if "chaos" not in p.parts)
    texts = (p.read_text("utf-8") for p in paths)
    assert sorted(name for text in texts for name in REACHED.findall(text)) == sorted(failpoints.NAMES)
