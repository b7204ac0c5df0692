"""Many carried records at once, as the client handed them over; each becomes ``Carried`` only when looked at.

Decides nothing. Building an object for every record costs more than reading them all by column, so whoever
reads by column takes the raw records and the two arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import compress
from typing import Any, Protocol, overload

import numpy as np
import numpy.typing as npt

from schemas.topics import Topic
from streams.store.projection import Carried

Ints = npt.NDArray[np.int64]


class Raw(Protocol):
    """What a record of any Kafka client, or a ``Carried``, offers."""

    @property
    def offset(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


class Lot(Sequence[Carried]):
    """Records of one topic; ``partitions`` and ``offsets`` say where each lies in the log."""

    __slots__ = ("offsets", "partitions", "raws", "topic")

    def __init__(self, topic: Topic, raws: Sequence[Any], partitions: Ints, offsets: Ints) -> None:
        self.topic = topic
        self.raws = raws
        self.partitions = partitions
        self.offsets = offsets

    @classmethod
    def joined(cls, topic: Topic, runs: Iterable[tuple[int, Sequence[Raw]]]) -> Lot:
        """``runs`` are consecutive records of one partition each, as ``(partition, records)``."""
        runs = list(runs)
        raws = [raw for _, records in runs for raw in records]
        sizes = [len(records) for _, records in runs]
        partitions = np.repeat(np.array([p for p, _ in runs], dtype=np.int64), sizes)
        return cls(topic, raws, partitions, _offsets(raws))

    @classmethod
    def of(cls, topic: Topic, carried: Sequence[Carried]) -> Lot:
        """``carried`` as a lot; itself if it is one."""
        if isinstance(carried, Lot):
            return carried
        partitions = np.fromiter((c.partition for c in carried), dtype=np.int64, count=len(carried))
        return cls(topic, carried, partitions, _offsets(carried))

    def __len__(self) -> int:
        return len(self.raws)

    @overload
    def __getitem__(self, at: int) -> Carried: ...
    @overload
    def __getitem__(self, at: slice) -> Lot: ...
    def __getitem__(self, at: int | slice) -> Carried | Lot:
        if isinstance(at, slice):
            return Lot(self.topic, self.raws[at], self.partitions[at], self.offsets[at])
        return self._carried(self.raws[at], int(self.partitions[at]))

    def __iter__(self) -> Iterator[Carried]:
        return map(self._carried, self.raws, self.partitions.tolist())

    def chosen(self, mask: npt.NDArray[np.bool_]) -> Lot:
        """The records where ``mask`` is true, in their order; itself if it is true everywhere."""
        if mask.all():
            return self
        raws = list(compress(self.raws, mask.tolist()))
        return Lot(self.topic, raws, self.partitions[mask], self.offsets[mask])

    def _carried(self, raw: Any, partition: int) -> Carried:
        if isinstance(raw, Carried):
            return raw
        return Carried(self.topic, partition, raw.offset, raw.key, raw.value or b"", tuple(raw.headers))


def _offsets(raws: Sequence[Raw]) -> Ints:
    return np.fromiter((r.offset for r in raws), dtype=np.int64, count=len(raws))
