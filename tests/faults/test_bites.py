"""The rig bites: a planted bug is caught. All of them are `make chaos` (`--planted`); here, one that the oracle once
did not see.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from govbus.chaos.bites import bite
from govbus.chaos.planted import BUGS


@pytest.fixture
def home() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="govbus-bite-"))
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


SEEDS = (1, 2, 3)
"""A worker may die at a moment at which it had nothing to say: then another seed is tried."""


@pytest.mark.stack
def test_decisions_that_are_lost_after_the_commit_are_caught(home: Path) -> None:
    bites = (bite(home / str(seed), "decisions-after-commit", seed) for seed in SEEDS)
    found = next((b for b in bites if b.caught), None)
    assert found is not None, f"not caught with any of the seeds {SEEDS}"


def test_the_bugs_that_the_issue_names_are_planted() -> None:
    named = {
        "cursor-before-effects", "cursor-not-locked", "no-dedupe", "xor-ledger", "failure-swallowed",
        "flush-not-awaited", "random-alert-ids", "dead-letters-after-commit",
    }  # fmt: skip
    assert named <= BUGS.keys()
    assert len(BUGS) >= 12
