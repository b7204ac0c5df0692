"""Records of any contract, and ways to spoil their bytes, for the property tests of the codecs."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import strategies as st

from schemas.contracts import contract
from schemas.topics import Topic

Strategy = st.SearchStrategy[Any]
TEXT = st.text(st.characters(exclude_characters="\x00", codec="utf-8"), max_size=70)
KINDS: dict[str, Strategy] = {
    "null": st.none(),
    "string": TEXT,
    "bytes": st.binary(max_size=80),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "timestamp-millis": st.integers(-(2**63), 2**63 - 1),
    "double": st.floats(allow_nan=False, allow_infinity=False),
    "boolean": st.booleans(),
    "date": st.dates(datetime.date(1900, 1, 1), datetime.date(2200, 1, 1)),
}


def _values(schema: Any) -> Strategy:
    if isinstance(schema, list):
        return st.one_of(*(_values(s) for s in schema))
    if isinstance(schema, str):
        return KINDS[schema]
    if schema["type"] == "array":
        return st.lists(_values(schema["items"]), max_size=3)
    if schema["type"] == "record":
        return st.fixed_dictionaries({f["name"]: _values(f["type"]) for f in schema["fields"]})
    return KINDS[schema["logicalType"]]


@pytest.fixture(scope="session")
def records() -> Callable[[Topic], Strategy]:
    """Strategy of full records of a topic, every field drawn from its type."""
    return lambda topic: _values(contract(topic))


def _spoil(draw: Callable[[Strategy], Any], value: bytes) -> bytes:
    at = draw(st.integers(0, len(value) - 1))
    until = draw(st.integers(at, min(len(value), at + 12)))
    filling: bytes = draw(
        st.one_of(st.binary(max_size=12), st.sampled_from([b"\x80\x00", b"\x01", b"\xff" * 9 + b"\x01"]))
    )
    how = draw(st.sampled_from(["flip", "replace", "cut", "append", "repeat"]))
    if how == "flip":
        return value[:at] + bytes([value[at] ^ (1 << draw(st.integers(0, 7)))]) + value[at + 1 :]
    if how == "cut":
        return value[:at]
    if how == "append":
        return value + filling
    if how == "repeat":
        return value[:until] + value[at:]
    return value[:at] + filling + value[until:]


@pytest.fixture(scope="session")
def spoiled() -> Callable[[bytes], Strategy]:
    """Strategy of a framed value with one place changed: flipped, replaced, cut, lengthened or repeated."""
    return lambda value: st.composite(lambda draw: _spoil(draw, value))()
