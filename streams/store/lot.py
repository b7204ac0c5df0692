"""Many carried records at once, as the client handed them over; each becomes ``Carried`` only when looked at.

Decides nothing. Building an object for every record costs more than reading them all by column, so whoever
reads by column takes the raw records and the two arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, Protocol, overload

import numpy as np
import numpy.typing as npt
import polars as pl

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


@dataclass(frozen=True, slots=True)
class Record:
    """One record that was read by column, or one by one where the client's own parser ended."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp_type: int = 0


HEADER = "header "
"""Before a header's name in the name of its column."""


class Columns(Sequence[Record]):
    """Records as columns: offset, timestamp (epoch ms), key, value, and one for each header, all of them bytes.

    All records have these headers, each once; no key and no value is absent.
    """

    __slots__ = ("frame",)

    def __init__(self, frame: pl.DataFrame) -> None:
        self.frame = frame

    def __len__(self) -> int:
        return self.frame.height

    @overload
    def __getitem__(self, at: int) -> Record: ...
    @overload
    def __getitem__(self, at: slice) -> Columns: ...
    def __getitem__(self, at: int | slice) -> Record | Columns:
        if isinstance(at, slice):
            return Columns(self.frame[at])
        return self._named()(self.frame.row(at))

    def __iter__(self) -> Iterator[Record]:
        return map(self._named(), self.frame.iter_rows())

    def offsets(self) -> Ints:
        """The offset of every record."""
        return self.frame["offset"].to_numpy().astype(np.int64)

    def header(self, name: str) -> pl.Series | None:
        """Values of one header; None if the records have none of this name."""
        return self.frame[HEADER + name] if HEADER + name in self.frame.columns else None

    def _named(self) -> Callable[[tuple[Any, ...]], Record]:
        """Makes a record of a row."""
        names = [c.removeprefix(HEADER) for c in self.frame.columns[4:]]

        def record(row: tuple[Any, ...]) -> Record:
            offset, timestamp, key, value, *heads = row
            return Record(offset, timestamp, key, value, tuple(zip(names, heads, strict=True)))

        return record


def gathered(parts: Sequence[Sequence[Any]]) -> Sequence[Any]:
    """The records of all ``parts``."""
    if len(parts) == 1:
        return parts[0]
    return [record for part in parts for record in part]


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
        runs = [(p, records) for p, records in runs if len(records)]
        raws = gathered([records for _, records in runs])
        sizes = np.array([len(records) for _, records in runs], dtype=np.int64)
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
        raws = self.raws
        left = Columns(raws.frame.filter(mask)) if isinstance(raws, Columns) else list(compress(raws, mask.tolist()))
        return Lot(self.topic, left, self.partitions[mask], self.offsets[mask])

    def values(self) -> pl.Series:
        """Values of all records; an absent one is empty."""
        if isinstance(self.raws, Columns):
            return self.raws.frame["value"]
        return pl.Series([raw.value or b"" for raw in self.raws], dtype=pl.Binary)

    def keys(self) -> pl.Series:
        """Keys of all records; an absent one is what no text can be."""
        if isinstance(self.raws, Columns):
            return self.raws.frame["key"]
        return pl.Series([r.key if r.key is not None else b"\xff" for r in self.raws], dtype=pl.Binary)

    def _carried(self, raw: Any, partition: int) -> Carried:
        if isinstance(raw, Carried):
            return raw
        headers = tuple((name, value or b"") for name, value in raw.headers)  # Kafka lets a header have no value
        return Carried(self.topic, partition, raw.offset, raw.key, raw.value or b"", headers)


def _offsets(raws: Sequence[Raw]) -> Ints:
    if isinstance(raws, Columns):
        return raws.offsets()
    return np.fromiter((r.offset for r in raws), dtype=np.int64, count=len(raws))
