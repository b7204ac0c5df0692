"""The rig bites: a planted bug is caught. All of them are `make chaos` (`--planted`); here, one that a kill at its
failpoint always brings to light.
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


@pytest.mark.stack
def test_a_position_that_is_committed_before_its_effects_is_caught(home: Path) -> None:
    found = bite(home, "cursor-before-effects", 1)
    assert found.caught, found.how


def test_the_bugs_that_the_issue_names_are_planted() -> None:
    named = {
        "cursor-before-effects", "cursor-not-locked", "no-dedupe", "xor-ledger", "failure-swallowed",
        "flush-not-awaited", "random-alert-ids", "dead-letters-after-commit",
    }  # fmt: skip
    assert named <= BUGS.keys()
    assert len(BUGS) >= 12
