"""One record of a batch (message format 2), read by plain Python where the name of a header is not UTF-8.

Kafka's brokers take any bytes as a name; the parsers of both clients end with ``UnicodeDecodeError`` there, though
nothing is damaged. Decides only how such a name is written; all else is as the clients read it.

Format: Apache Kafka, "Message Format" (v2 record).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LONGEST = 63  # bits by which the last byte of a varint is shifted at most


@dataclass(frozen=True, slots=True)
class Parsed:
    """A record; ``timestamp`` and ``offset`` as differences to the batch's, ``end`` is where the next one begins."""

    timestamp: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    size: int
    end: int


def parse(buffer: bytes | bytearray | memoryview, at: int) -> Parsed:
    """The record that begins at ``at`` of a batch's uncompressed records; bytes of a header's name that are not UTF-8
    are written as ``\\xb2``. Raises ``ValueError`` or ``IndexError`` if there is no record.
    """
    size, start = _varint(buffer, at)
    numbers, at = [], start + 1  # after the attributes, of which none is in use
    for _ in range(2):
        number, at = _varint(buffer, at)
        numbers.append(number)
    key, at = _text(buffer, at)
    value, at = _text(buffer, at)
    count, at = _varint(buffer, at)
    headers = []
    for _ in range(count):
        name, at = _text(buffer, at)
        told, at = _text(buffer, at)
        headers.append(((name or b"").decode("utf-8", "backslashreplace"), told))
    if at - start != size or count < 0:
        raise ValueError("a record has another length than it says")
    return Parsed(numbers[0], numbers[1], key, value, tuple(headers), size, at)


def _text(buffer: bytes | bytearray | memoryview, at: int) -> tuple[bytes | None, int]:
    """Bytes behind their length (-1: none), and where they end."""
    length, at = _varint(buffer, at)
    if length < 0:
        return None, at
    if at + length > len(buffer):
        raise IndexError
    return bytes(buffer[at : at + length]), at + length


def _varint(buffer: Sequence[int], at: int) -> tuple[int, int]:
    """A zigzag number, and where it ends."""
    number = shift = 0
    while shift <= LONGEST:
        byte = buffer[at]
        number, shift, at = number | (byte & 0x7F) << shift, shift + 7, at + 1
        if byte < 0x80:
            return number >> 1 ^ -(number & 1), at
    raise ValueError("a number is too long")
