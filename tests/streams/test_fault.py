"""How a worker ends: what a restart may mend, and what only the operator can."""

from __future__ import annotations

import subprocess
import sys

import pytest

ENDING = """
from schemas.errors import Misconfigured
from streams.fault import die

try:
    try:
        raise {}
    except Exception:
        raise SystemExit(1)  # as Faust's worker does
except SystemExit as error:
    die("worker", error)
"""


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [("ValueError('geheim')", 70, "ValueError"), ("Misconfigured('govbus db upgrade')", 78, "govbus db upgrade")],
)
def test_a_worker_says_why_it_ends_in_our_words_only(error: str, code: int, said: str) -> None:
    done = subprocess.run([sys.executable, "-c", ENDING.format(error)], timeout=60, check=False, capture_output=True)
    assert (done.returncode, said in done.stdout.decode(), b"geheim" in done.stdout) == (code, True, False)
