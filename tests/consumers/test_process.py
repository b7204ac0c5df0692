"""Threads that end together: at a signal, whenever it comes, and when one fails."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from consumers.process import together
from streams.store import heap

ENDING = """
import sys
from consumers.process import together
from schemas.errors import Misconfigured

def waits(stop):
    assert stop.wait(60)
    print("told", flush=True)

def ends(stop):
    {}

sys.exit(together([waits, ends]))
"""


def ended(program: str) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False, capture_output=True, text=True)
    return done.returncode, done.stdout.splitlines()[-1]


def test_a_signal_that_comes_while_a_lock_is_held_ends_them_too(untimely: str) -> None:
    assert ended(untimely + ENDING.format("stop.wait()")) == (0, "told")


@pytest.mark.parametrize(
    ("last", "code"), [("raise ValueError", os.EX_SOFTWARE), ("raise Misconfigured('x')", os.EX_CONFIG), ("return", 0)]
)
def test_when_one_ends_all_do_and_the_code_says_whether_it_failed(last: str, code: int) -> None:
    assert ended(ENDING.format(last)) == (code, "told")


def test_what_a_burst_took_goes_back_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    given = threading.Semaphore(0)
    monkeypatch.setattr(heap, "EVERY_S", 0.01)
    monkeypatch.setattr(heap, "give_back", given.release)

    def waits_for_three(_: threading.Event) -> None:
        assert all(given.acquire(timeout=30) for _ in range(3))

    assert together([waits_for_three]) == 0
