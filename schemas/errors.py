"""The errors of the bus, named by what the operator does about them; they carry ids, never personal data."""

from __future__ import annotations

from dataclasses import dataclass

MENDS = {
    "missing_field": "send the field; its contract in schemas/avro explains it",
    "unknown_field": "leave it out, or correct its name",
    "wrong_type": "send the type that the contract names",
    "unknown_code": "send a value of the code set (schemas/codesets)",
    "bad_code_set": "name the code set that the value is of",
    "bad_format": "send it as the contract explains",
    "too_large": "shorten its texts",
    "bad_row": "correct the line",
}
"""What mends a fault whose finder knows nothing better, by reason."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with one record: where, which rule, and how to mend it.

    ``reason`` is a value of the code set ``govbus.reason``; ``text`` never repeats the offending value,
    because it may be personal. ``mend`` left empty: what ``MENDS`` says of the reason.
    """

    reason: str
    field: str
    text: str
    mend: str = ""

    def __post_init__(self) -> None:
        if not self.mend:
            object.__setattr__(self, "mend", MENDS.get(self.reason, ""))


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
