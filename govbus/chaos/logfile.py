"""A partition's log on a broker's disk, cut, torn or damaged while the broker is dead.

Knows Kafka's batches (message format 2: base offset 8 bytes, length 4, epoch 4, magic 1, CRC 4, attributes 2, delta of
the last offset 4, …) as far as needed to tell where each begins and which offsets it holds. Decides nothing.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

HEAD = struct.Struct(">qi")
DELTA_AT, COUNT_END = 23, 61
Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Batch:
    """``at`` bytes into the segment, ``size`` bytes long, with the offsets ``first`` to ``last``."""

    at: int
    size: int
    first: int
    last: int


def segment(data: Path, place: Place) -> Path:
    """The segment that is written to; ``data`` is the broker's log directory."""
    topic, partition = place
    return max((data / f"{topic}-{partition}").glob("*.log"))


def batches(path: Path) -> list[Batch]:
    """Every whole batch of a segment."""
    raw, found, at = path.read_bytes(), [], 0
    while at + COUNT_END <= len(raw):
        first, length = HEAD.unpack_from(raw, at)
        size = HEAD.size + length
        if length <= 0 or at + size > len(raw):
            break
        (delta,) = struct.unpack_from(">i", raw, at + DELTA_AT)
        found.append(Batch(at, size, first, first + delta))
        at += size
    return found


def tear(path: Path, count: int) -> int | None:
    """Cut within the ``count``-th batch from the end, as a power cut would; the offset of the first record lost."""
    found = batches(path)
    if not found:
        return None
    victim = found[-min(count, len(found))]
    os.truncate(path, victim.at + victim.size // 2)
    return victim.first


def damage(path: Path, count: int) -> int | None:
    """Flip a bit in the ``count``-th batch from the end; the offset of its first record."""
    found = batches(path)
    if not found:
        return None
    first = found[-min(count, len(found))].first
    flip_at(path, first)
    return first


def flip_at(path: Path, first: int) -> None:
    """Flip the last bit of the batch whose first offset is ``first``; twice, and it is what it was."""
    batch = next(b for b in batches(path) if b.first == first)
    with path.open("r+b") as file:
        file.seek(batch.at + batch.size - 1)
        (byte,) = file.read(1)
        file.seek(batch.at + batch.size - 1)
        file.write(bytes([byte ^ 1]))
