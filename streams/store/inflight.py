"""Marks what this process is decoding, in a file that outlives it: who dies while decoding leaves a mark.

A decoder in native code can end the process where an exception would have been caught. The marks lie in a
memory-mapped file: setting one costs some microseconds, and the kernel keeps it however the process ends. (A power
cut may lose it; then the next death leaves another.) What the life before left is *suspected*, no more: it may have
been killed by anybody. Guilt is found by ``quarantine``. Decides nothing about records.

Without ``open_marks`` (tests, tools) nothing is marked and nothing suspected.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import mmap
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog

from streams.store.lot import Lot
from streams.store.projection import Carried

SLOTS, SLOT_BYTES = 128, 2_048
FEW = 64  # records below which numpy is slower
SET = 1  # a slot's first byte while its mark stands
log = structlog.get_logger(__name__)
Ranges = Mapping[int, tuple[int, int]]
"""First and last offset by partition."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Records of one topic that were being decoded together."""

    topic: str
    ranges: Ranges

    def plain(self) -> bytes:
        """As it lies in the file."""
        return json.dumps([self.topic, list(self.ranges.items())]).encode()

    @classmethod
    def of(cls, plain: bytes) -> Mark | None:
        """The mark in a slot; None if its writer died while writing, before it decoded anything."""
        try:
            topic, ranges = json.loads(plain)
            return cls(str(topic), {int(p): (int(a), int(b)) for p, (a, b) in ranges})
        except (ValueError, TypeError):
            return None


class _File:
    """The marks of one life. The lock tells the living from the dead; the kernel frees it."""

    def __init__(self, handle: int) -> None:
        os.ftruncate(handle, SLOTS * SLOT_BYTES)
        self._handle = handle
        self._map = mmap.mmap(handle, SLOTS * SLOT_BYTES)
        self.left = {n: mark for n in range(SLOTS) if (mark := self._read(n)) is not None}
        self._free = iter([n for n in range(SLOTS) if n not in self.left])
        self._lock = threading.Lock()
        self._mine = threading.local()

    def slot(self) -> int | None:
        """The calling thread's slot; None when there are none left."""
        if not hasattr(self._mine, "slot"):
            with self._lock:
                self._mine.slot = next(self._free, None)
                self._mine.stack = []
        found: int | None = self._mine.slot
        return found

    def push(self, slot: int, plain: bytes) -> None:
        """Set the thread's mark; the one that stood there comes back with ``pop``."""
        self._mine.stack.append(plain)
        self._write(slot, plain)

    def pop(self, slot: int) -> None:
        """Take the thread's mark away."""
        stack: list[bytes] = self._mine.stack
        stack.pop()
        if stack:
            self._write(slot, stack[-1])
        else:
            self.clear(slot)

    def clear(self, slot: int) -> None:
        """Take the mark in ``slot`` away."""
        self._map[slot * SLOT_BYTES] = 0

    def close(self) -> None:
        """Leave file and lock to whoever else has them: a forked child."""
        os.close(self._handle)

    def _write(self, slot: int, plain: bytes) -> None:
        start = slot * SLOT_BYTES
        self._map[start] = 0
        self._map[start + 1 : start + SLOT_BYTES] = plain.ljust(SLOT_BYTES - 1)[: SLOT_BYTES - 1]
        self._map[start] = SET

    def _read(self, slot: int) -> Mark | None:
        start = slot * SLOT_BYTES
        return Mark.of(self._map[start + 1 : start + SLOT_BYTES]) if self._map[start] == SET else None


_file: _File | None = None
_suspects: Mapping[int, Mark] = {}
condemned: set[tuple[str, int, int]] = set()
"""Topic, partition and offset of records that are proven to kill whoever decodes them."""


def open_marks(directory: Path, name: str) -> None:
    """Mark from now on, in a file of ``directory`` that no living process has; what it holds is suspected.

    ``name`` should be the same in the next life of this process.
    """
    global _file, _suspects
    directory.mkdir(parents=True, exist_ok=True)
    _file = _File(_locked(directory, name))
    _suspects = dict(_file.left)
    for mark in _suspects.values():
        log.warning("the life before ended while it decoded", topic=mark.topic, ranges=dict(mark.ranges))


def _locked(directory: Path, name: str) -> int:
    for number in itertools.count():
        handle = os.open(directory / f"{name}.{number}.inflight", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
        else:
            return handle
    raise AssertionError("numbers do not end")


def forget() -> None:
    """In a forked child: mark nothing, and let the file go."""
    global _file
    if _file is not None:
        _file.close()
        _file = None


@contextlib.contextmanager
def decoding(topic: str, ranges: Ranges) -> Iterator[None]:
    """While inside, a mark says that these records are being decoded."""
    slot = _file.slot() if _file is not None and ranges else None
    if _file is None or slot is None:
        yield
        return
    _file.push(slot, Mark(topic, ranges).plain())
    try:
        yield
    finally:
        _file.pop(slot)


def marked(carried: Sequence[Carried]) -> contextlib.AbstractContextManager[None]:
    """``decoding`` of records of one topic."""
    if _file is None or not len(carried):
        return contextlib.nullcontext()
    topic = carried.topic if isinstance(carried, Lot) else carried[0].topic
    return decoding(topic.name, ranges_of(carried))


def ranges_of(carried: Sequence[Carried]) -> Ranges:
    """Where the records lie."""
    found: dict[int, tuple[int, int]] = {}
    for partition, first, last in _runs(carried):
        low, high = found.get(partition, (first, last))
        found[partition] = (min(low, first), max(high, last))
    return found


def _runs(carried: Sequence[Carried]) -> Iterator[tuple[int, int, int]]:
    if not isinstance(carried, Lot):
        yield from ((c.partition, c.offset, c.offset) for c in carried)
        return
    if len(carried) <= FEW:
        yield from zip(*(a.tolist() for a in (carried.partitions, carried.offsets, carried.offsets)), strict=True)
        return
    edges = np.flatnonzero(np.diff(carried.partitions))
    starts, ends = np.concatenate(([0], edges + 1)), np.concatenate((edges, [len(carried) - 1]))
    offsets = carried.offsets
    yield from zip(
        carried.partitions[starts].tolist(), offsets[starts].tolist(), offsets[ends].tolist(), strict=True
    )


def suspects() -> bool:
    """Whether anything is under suspicion."""
    return bool(_suspects)


def careful() -> bool:
    """Whether anything at all must be handled with care; costs nothing."""
    return bool(_suspects or condemned)


def suspected(topic: str, ranges: Ranges) -> bool:
    """Whether any of these records must be handled with care: suspected, or proven to kill."""
    marks = [mark for mark in _suspects.values() if mark.topic == topic]
    return any(_overlap(ranges, mark.ranges) for mark in marks) or any(
        t == topic and p in ranges and ranges[p][0] <= offset <= ranges[p][1] for t, p, offset in condemned
    )


def _overlap(one: Ranges, other: Ranges) -> bool:
    return any(one[p][0] <= other[p][1] and other[p][0] <= one[p][1] for p in one.keys() & other.keys())


def settle(next_offsets: Mapping[tuple[str, int], int]) -> None:
    """Drop the suspicion of what is applied; ``next_offsets`` are cursors by (topic, partition)."""
    global _suspects
    if not _suspects:
        return
    settled = {n for n, mark in _suspects.items() if _all_below(mark, next_offsets)}
    _suspects = {n: mark for n, mark in _suspects.items() if n not in settled}
    for slot in settled:
        if _file is not None:
            _file.clear(slot)


def _all_below(mark: Mark, next_offsets: Mapping[tuple[str, int], int]) -> bool:
    return all(last < next_offsets.get((mark.topic, p), 0) for p, (_, last) in mark.ranges.items())
