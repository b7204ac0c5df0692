"""Record batches of Kafka (message format 2) read by column: a fetch of thousands at once, instead of one by one.

The fields of a record are zigzag varints, byte strings and fixed bytes, as Avro has them; so where all records of a
batch carry the same header names, the batch is an Avro block of flat records and polars reads it. It decides nothing
and is never looser than aiokafka's own parser: what is few, mixed, absent or not canonical is left to that
(``None``). The proof is the same as in ``schemas.columns``: every record has exactly its canonical length.

Format: Apache Kafka, "Message Format" (v2 record batch); Avro 1.11 specification, "Binary Encoding".
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import polars as pl
from aiokafka import codec
from aiokafka.errors import CorruptRecordException
from crc32c import crc32c
from polars.exceptions import PanicException

from schemas.columns import SYNC, container_header, lengths, varint, varint_sizes
from streams.store import records
from streams.store.lot import HEADER, Columns, Record

FEW = 32
"""Records below which reading them one by one is quicker."""
HEAD = struct.Struct(">qiibIhiqqqhii")  # base offset … record count
LENGTH, BASE_OFFSET_BYTES, LENGTH_ENDS = struct.Struct(">i"), 8, 12
MAGIC_AT, CRC, CRC_AT, CRC_FROM = 16, struct.Struct(">I"), 17, 21
APPENDED = 0x08  # bit of the attributes: the time is that of the log's append
UNUSUAL = APPENDED | 0x20  # or a control batch
CODEC = 0x07
DECODERS: Mapping[int, Callable[[bytes], bytes]] = {
    1: codec.gzip_decode, 2: codec.snappy_decode, 3: codec.lz4_decode, 4: codec.zstd_decode
}  # fmt: skip


def size(fetched: bytes, at: int) -> int:
    """Bytes of the batch that begins at ``at``."""
    (rest,) = LENGTH.unpack_from(fetched, at + BASE_OFFSET_BYTES)
    return LENGTH_ENDS + int(rest)


def intact(batch: bytes) -> bool | None:
    """Whether the batch is what was written, by its checksum, which the processor reckons here; None in another format
    than this module's.
    """
    if batch[MAGIC_AT] != 2:
        return None
    return bool(crc32c(memoryview(batch)[CRC_FROM:]) == CRC.unpack_from(batch, CRC_AT)[0])


@dataclass(frozen=True, slots=True)
class Plan:
    """How to read records that carry these header names: the container's header, the fixed bytes before each value."""

    names: tuple[str, ...]
    header: bytes
    fixed: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Head:
    """What the head of a batch says; ``last`` is the highest offset in it, less ``base``."""

    base: int
    attributes: int
    last: int
    first_ms: int
    last_ms: int
    count: int

    @classmethod
    def of(cls, batch: bytes) -> Head:
        base, *_, attributes, last, first_ms, last_ms, _, _, _, count = HEAD.unpack_from(batch)
        return cls(base, attributes, last, first_ms, last_ms, count)

    def body(self, batch: bytes) -> bytes | memoryview:
        """The records behind the head, uncompressed."""
        plain, how = memoryview(batch)[HEAD.size :], self.attributes & CODEC
        return DECODERS[how](bytes(plain)) if how else plain


def read(batches: Sequence[bytes], names: Sequence[str]) -> Columns | None:
    """The records of whole batches of one partition whose headers have ``names``; None if they must be read one by
    one.
    """
    heads = [Head.of(b) for b in batches]
    count = sum(h.count for h in heads)
    unusual = any(h.attributes & UNUSUAL or not h.count for h in heads)
    if count < FEW or unusual or not names or len(set(names)) < len(names):
        return None
    plan = _plan(tuple(names))
    try:
        bodies = [h.body(b) for h, b in zip(heads, batches, strict=True)]
        total = sum(map(len, bodies))
        frame = pl.read_avro(io.BytesIO(b"".join((plan.header, varint(count), varint(total), *bodies, SYNC))))
    except (Exception, PanicException):
        return None
    counts = [h.count for h in heads]
    if not _canonical(plan, frame, count, counts, list(map(len, bodies))):
        return None
    base, last, first_ms = (
        pl.Series(np.repeat(np.array(numbers, dtype=np.int64), counts))
        for numbers in zip(*((h.base, h.last, h.first_ms) for h in heads), strict=True)
    )
    if not ((frame["offset"] >= 0) & (frame["offset"] <= last)).all():
        return None
    values = (pl.col(f"h{i}").alias(HEADER + name) for i, name in enumerate(plan.names))
    return Columns(
        frame.select(pl.col("offset") + pl.lit(base), pl.col("timestamp") + pl.lit(first_ms), "key", "value", *values)
    )


def one_by_one(batch: bytes) -> list[Record]:
    """The records of a batch in which a header's name is not UTF-8: aiokafka's own parser ends there (see
    ``streams.store.records``). Raises ``CorruptRecordException`` where there is no record.
    """
    head, found, at = Head.of(batch), [], 0
    try:
        body = head.body(batch)
        for _ in range(head.count):
            one = records.parse(body, at)
            at = one.end
            appended = head.attributes & APPENDED
            time = head.last_ms if appended else head.first_ms + one.timestamp
            found.append(Record(head.base + one.offset, time, one.key, one.value, one.headers, int(bool(appended))))
    except (ValueError, IndexError) as error:
        raise CorruptRecordException(f"no record at byte {at}") from error
    return found


def _canonical(plan: Plan, frame: pl.DataFrame, count: int, counts: Sequence[int], sizes: Sequence[int]) -> bool:
    """Whether these are the only records that the bytes can be read as, with the plan's header names."""
    if frame.height != count:
        return False
    constants = {"attributes": b"\x00", **{f"f{i}": fixed for i, fixed in enumerate(plan.fixed)}}
    if not frame.select(pl.all_horizontal((pl.col(c) == pl.lit(fixed)).all() for c, fixed in constants.items())).item():
        return False
    texts = frame.select(pl.col("key", "value", *(f"h{i}" for i in range(len(plan.fixed)))).bin.size())
    total = np.full(count, 1 + sum(map(len, plan.fixed)), dtype=np.int64)
    for numbers in (frame["timestamp"], frame["offset"]):
        total += varint_sizes(numbers.to_numpy().astype(np.int64))
    for text in texts:
        long = lengths(text)
        total += long + varint_sizes(long)
    length = frame["length"].to_numpy().astype(np.int64)
    ends = np.add.reduceat(length + varint_sizes(length), np.cumsum([0, *counts[:-1]]))
    return bool((length == total).all()) and bool((ends == sizes).all())


@cache
def _plan(names: tuple[str, ...]) -> Plan:
    written = [varint(len(name.encode())) + name.encode() for name in names]
    fixed = (varint(len(names)) + written[0], *written[1:])
    fields = [
        {"name": "length", "type": "int"},
        {"name": "attributes", "type": {"type": "fixed", "name": "attributes", "size": 1}},
        {"name": "timestamp", "type": "long"},
        {"name": "offset", "type": "long"},
        {"name": "key", "type": "bytes"},
        {"name": "value", "type": "bytes"},
    ]
    for i, text in enumerate(fixed):
        fields.append({"name": f"f{i}", "type": {"type": "fixed", "name": f"fixed{i}", "size": len(text)}})
        fields.append({"name": f"h{i}", "type": "bytes"})
    return Plan(names, container_header(fields), fixed)
