"""No log line holds personal data, whoever writes it."""

from __future__ import annotations

import subprocess
import sys

import pytest

SECRET = "430903199001010015"
SAYS = """
import logging, structlog
from govbus.logs import configure
configure("INFO", "test")
{line}
"""
FAILS = "\ntry:\n    raise ValueError('{secret}')\nexcept ValueError as error:\n    {said}"


def told(line: str) -> str:
    """What a process of its own that logs ``line`` writes to standard error."""
    done = subprocess.run([sys.executable, "-c", SAYS.format(line=line)], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return done.stderr


@pytest.mark.parametrize("field", ["comment", "rater_name", "applicant_name", "holder_id"])
def test_a_field_that_a_contract_calls_personal_is_replaced(field: str) -> None:
    said = told(f"structlog.get_logger('x').info('row', {field}='{SECRET}', case_no='C1')")
    assert SECRET not in said
    assert f'"{field}": "[personal]"' in said
    assert '"case_no": "C1"' in said


@pytest.mark.parametrize(
    "said",
    [
        "structlog.get_logger('x').warning('failed', exc_info=True)",
        "structlog.get_logger('x').warning('failed', exc_info=error)",
        "logging.getLogger('some.library').exception('failed')",
    ],
)
def test_an_exception_is_told_by_type_and_place_and_never_by_its_words(said: str) -> None:
    line = told(FAILS.format(secret=SECRET, said=said))
    assert SECRET not in line
    assert '"error": "ValueError"' in line
    assert '"frames": ["<string>:' in line


@pytest.mark.parametrize(
    "said",
    [
        "logging.getLogger('asyncio').error('never retrieved\\nfuture: <Future exception=KeyError(%r)>', 'S')",
        "logging.getLogger('mode.services').error('[%s] Crashed reason=%r', 'x', KeyError('S'))",
    ],
)
def test_what_a_library_quotes_of_an_exception_is_cut_off(said: str) -> None:
    line = told(said.replace("'S'", f"'{SECRET}'"))
    assert SECRET not in line
    assert "never retrieved" in line or "[x] Crashed" in line
