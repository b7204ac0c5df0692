"""The errors of the bus, named by what the operator does about them; they carry ids, never personal data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with one record: where, which rule, and how to mend it.

    ``reason`` is a value of the code set ``govbus.reason``; ``text`` never repeats the offending value,
    because it may be personal.
    """

    reason: str
    field: str
    text: str
    mend: str = ""


class GovbusError(Exception):
    """Base of all errors that govbus raises on purpose."""


class Rejected(GovbusError):
    """Look at the record: it will never be accepted as it is."""

    def __init__(self, *faults: Fault) -> None:
        self.faults = faults
        super().__init__("; ".join(f"{f.field or '-'}: {f.reason}: {f.text}" for f in faults))

    @property
    def reason(self) -> str:
        """Reason code of the first fault."""
        return self.faults[0].reason


class Retryable(GovbusError):
    """Wait: the same thing may succeed later (database or broker away, province slow)."""


class Misconfigured(GovbusError):
    """Fix the configuration and restart; lists every fault at once."""

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("\n".join(f"- {p}" for p in problems))
