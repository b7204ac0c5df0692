"""Record batches of Kafka (message format 2) read by column: a fetch of thousands at once, instead of one by one.

The fields of a record are zigzag varints, byte strings and fixed bytes, as Avro has them; so where all records of a
batch carry the same header names, the batch is an Avro block of flat records and polars reads it. It decides nothing
and is never looser than aiokafka's own parser: what is few, mixed, absent or not canonical is left to that
(``None``). The proof is the same as in ``schemas.columns``: every record has exactly its canonical length.

Format: Apache Kafka, "Message Format" (v2 record batch); Avro 1.11 specification, "Binary Encoding".
"""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from aiokafka import codec
from aiokafka.errors import CorruptRecordException
from aiokafka.record.memory_records import MemoryRecords
from crc32c import crc32c
from polars.exceptions import PanicException

from schemas.columns import SYNC, container_header, lengths, varint, varint_sizes
from schemas.errors import Retryable
from schemas.topics import Topic
from streams.store import inflight, records
from streams.store.lot import HEADER, Columns, Lot, Record

FEW = 32
"""Records below which reading them one by one is quicker."""
HEAD = struct.Struct(">qiibIhiqqqhii")  # base offset … record count
LENGTH, BASE_OFFSET_BYTES, LENGTH_ENDS = struct.Struct(">i"), 8, 12
MAGIC_AT, MAGIC, CRC, CRC_AT, CRC_FROM = 16, 2, struct.Struct(">I"), 17, 21
ATTRIBUTES = struct.Struct(">h")
CODEC, APPENDED, CONTROL = 0x07, 0x08, 0x20
"""Bits of the attributes; ``APPENDED``: the time is that of the log's append."""
UNPACKED = 4
"""How many times larger what is compressed is reckoned to be."""
MOST_UNPACKED = 32 * 1024 * 1024
"""Bytes of a batch without its compression at most, and of all that are read at once: a broker looks at the compressed
ones, producers gather a million or two, and of 2,070 zstd makes sixty-seven million."""
GZIP, SNAPPY = 1, 2
BLOCKWISE, BLOCKS_FROM = b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01", 16
"""How snappy of the Java client begins, and where its blocks do, each behind its length."""
INTO = {3: codec.cramjam.lz4.decompress_into, 4: codec.cramjam.zstd.decompress_into}


def size(fetched: bytes, at: int) -> int:
    """Bytes of the batch that begins at ``at``."""
    (rest,) = LENGTH.unpack_from(fetched, at + BASE_OFFSET_BYTES)
    return LENGTH_ENDS + int(rest)


def whole(fetched: bytes, at: int) -> bool:
    """Whether a batch begins at ``at`` and is all there."""
    return at + LENGTH_ENDS <= len(fetched) and at + size(fetched, at) <= len(fetched)


def intact(raw: bytes) -> bool:
    """Whether the batch is what was written, by its checksum, which the processor reckons here. Another format than 2
    is damage: a broker without ZooKeeper writes no other.
    """
    if len(raw) < HEAD.size or raw[MAGIC_AT] != MAGIC:
        return False
    return bool(crc32c(memoryview(raw)[CRC_FROM:]) == CRC.unpack_from(raw, CRC_AT)[0])


class Batch(NamedTuple):
    """A batch and what its head says: ``last`` is its highest offset less ``base``, ``holds`` how many records.
    ``plain``: its records without compression, once it is ``opened``.
    """

    raw: bytes
    base: int
    attributes: int
    last: int
    first_ms: int
    last_ms: int
    holds: int
    plain: bytes | None = None

    @classmethod
    def of(cls, raw: bytes) -> Batch:
        base, *_, attributes, last, first_ms, last_ms, _, _, _, holds = HEAD.unpack_from(raw)
        return cls(raw, base, attributes, last, first_ms, last_ms, holds)

    @property
    def next_offset(self) -> int:
        """Where the log goes on behind it."""
        return self.base + self.last + 1

    @property
    def filled(self) -> bool:
        """Whether it holds records: a marker of a transaction and what compaction left empty do not."""
        return self.holds > 0 and not self.attributes & CONTROL

    @property
    def packed(self) -> bool:
        """Whether it must be unpacked to be read."""
        return self.plain is None and bool(self.attributes & CODEC)

    def body(self) -> bytes | memoryview:
        """The records behind the head, uncompressed."""
        if self.packed:
            return _unpacked(self.raw[HEAD.size :], self.attributes & CODEC)
        return memoryview(self.raw)[HEAD.size :] if self.plain is None else self.plain

    def opened(self) -> Batch:
        """Itself with its records unpacked; as it is where they cannot be: whoever reads it says so."""
        with contextlib.suppress(Exception):  # each decompressor has its own
            return self._replace(plain=bytes(self.body())) if self.packed else self
        return self

    def unpacked(self) -> bytes:
        """The batch without its compression; its checksum is the old one."""
        if not self.attributes & CODEC:
            return self.raw
        made = bytearray(self.raw[: HEAD.size]) + self.body()
        LENGTH.pack_into(made, BASE_OFFSET_BYTES, len(made) - LENGTH_ENDS)
        ATTRIBUTES.pack_into(made, CRC_FROM, self.attributes & ~CODEC)
        return bytes(made)


def _unpacked(packed: bytes, how: int) -> bytes:
    """Without compression; raises ``CorruptRecordException`` if that is over ``MOST_UNPACKED``, and whatever the
    decoder raises if it is none.
    """
    if how == GZIP:
        return _ungzipped(packed)
    if how == SNAPPY:
        return _unsnapped(packed)
    room = np.empty(min(MOST_UNPACKED, 64 * 1024 + len(packed) * 8), dtype=np.uint8)
    try:
        return bytes(room[: INTO[how](packed, room)])
    except codec.cramjam.DecompressionError:  # too little room, as a rule
        room = np.empty(MOST_UNPACKED, dtype=np.uint8)
        return bytes(room[: INTO[how](packed, room)])


def _ungzipped(packed: bytes) -> bytes:
    made, left = bytearray(), packed
    while left:
        stream = zlib.decompressobj(zlib.MAX_WBITS | 16)
        made += stream.decompress(left, MOST_UNPACKED + 1 - len(made))
        if len(made) > MOST_UNPACKED or not stream.eof:
            raise CorruptRecordException("a compressed batch does not end where it must")
        left = stream.unused_data
    return bytes(made)


def _unsnapped(packed: bytes) -> bytes:
    blocks, at = [packed], BLOCKS_FROM
    if packed.startswith(BLOCKWISE):
        blocks = []
        while at < len(packed):
            (length,) = LENGTH.unpack_from(packed, at)
            blocks.append(packed[at + LENGTH.size : at + LENGTH.size + length])
            at += LENGTH.size + max(length, 0)
    snappy = codec.cramjam.snappy
    if sum(map(snappy.decompress_raw_len, blocks)) > MOST_UNPACKED:
        raise CorruptRecordException("a compressed batch is too large")
    return b"".join(bytes(snappy.decompress_raw(block)) for block in blocks)


@dataclass(frozen=True)  # without slots: both sums are asked for again and again
class Fetched:
    """Filled batches of one partition as a fetch brought them, in their order; read when they are applied (``lot``),
    for to read those of many fetches and partitions at once costs hardly more than to read one. Records below
    ``since`` are not wanted.
    """

    batches: Sequence[Batch]
    since: int

    def __len__(self) -> int:  # a fetch in the middle of a batch holds fewer
        return self._holds

    @cached_property
    def _holds(self) -> int:
        return sum(batch.holds for batch in self.batches)

    @cached_property
    def size(self) -> int:
        """Bytes that it takes when it is read; of what is compressed nobody knows before."""
        return sum(len(batch.raw) * (UNPACKED if batch.attributes & CODEC else 1) for batch in self.batches)

    @cached_property
    def packed(self) -> bool:
        """Whether any of it must be unpacked to be read."""
        return any(batch.packed for batch in self.batches)

    @property
    def range(self) -> tuple[int, int]:
        """The first and the last offset there can be."""
        return self.batches[0].base, self.batches[-1].next_offset - 1

    def one_by_one(self) -> list[Any]:
        """The records as aiokafka reads them. Raises ``CorruptRecordException`` where there is no record."""
        found = (record for batch in self.batches for record in _numbered(batch, _records(batch)))
        return [record for record in found if record.offset >= self.since]


def opened(topic: Topic, runs: Sequence[tuple[int, Fetched]]) -> list[Batch]:
    """The first batches of ``runs`` (each of one partition), unpacked, as many as are ``MOST_UNPACKED`` bytes together
    at most; one at least.
    """
    found: list[Batch] = []
    size = 0
    with inflight.decoding(topic.name, _ranges(runs)):
        for batch in (batch for _, run in runs for batch in run.batches):
            one = batch.opened()
            size += len(one.raw if one.plain is None else one.plain)
            if found and size > MOST_UNPACKED:
                break
            found.append(one)
    return found


def lot(topic: Topic, runs: Iterable[tuple[int, Sequence[Any] | Fetched]]) -> Lot:
    """The records of ``runs`` (each of one partition), all at once by column where that can be. Raises ``Retryable`` if
    a batch that is intact holds no records: its producer wrote it so, and it stays where it is.
    """
    runs = [(partition, run) for partition, run in runs if len(run)]
    fetched = [(partition, run) for partition, run in runs if isinstance(run, Fetched)]
    if fetched and len(fetched) == len(runs) and (found := _by_column(topic, fetched)) is not None:
        return found
    return Lot.joined(topic, [(p, _one_by_one(topic, p, run) if isinstance(run, Fetched) else run) for p, run in runs])


def _records(batch: Batch) -> Sequence[Any]:
    try:
        return list(MemoryRecords(batch.unpacked()).next_batch())
    except UnicodeDecodeError:  # a header's name, which may be any bytes; nothing else is text there
        return one_by_one(batch)


def _numbered(batch: Batch, found: Sequence[Any]) -> Sequence[Any]:
    """The records of a batch, each at an offset of its own within it. A broker looks how many there are and which is
    the last, not at each one's number: by a false one, a cursor would pass what is not applied.
    """
    offsets = [batch.base - 1, *(record.offset for record in found), batch.next_offset]
    if all(one < other for one, other in pairwise(offsets)):
        return found
    if len(found) != batch.last + 1:  # of a log that was compacted nobody knows which they were
        raise CorruptRecordException(f"false offsets in the batch at {batch.base}")
    return [
        Record(batch.base + n, r.timestamp, r.key, r.value, tuple(r.headers), r.timestamp_type)
        for n, r in enumerate(found)
    ]


def _one_by_one(topic: Topic, partition: int, run: Fetched) -> list[Any]:
    try:
        return run.one_by_one()
    except MemoryError:
        raise
    except Exception as error:  # each decompressor has its own
        where = "{}/{} among offsets {} to {}".format(topic.name, partition, *run.range)
        raise Retryable(f"{where}: a batch is intact and not readable; docs/operate.md, damaged log") from error


def _by_column(topic: Topic, fetched: Sequence[tuple[int, Fetched]]) -> Lot | None:
    """The records by column, if they can be read so; those under suspicion are not."""
    ranges = _ranges(fetched)
    if inflight.careful() and inflight.suspected(topic.name, ranges):
        return None
    batches = [batch for _, one in fetched for batch in one.batches]
    with inflight.decoding(topic.name, ranges):
        columns = read(batches)
    if columns is None:
        return None
    each = [(partition, one.since, batch.holds) for partition, one in fetched for batch in one.batches]
    partitions, since, counts = np.array(each, dtype=np.int64).T
    found = Lot(topic, columns, np.repeat(partitions, counts), columns.offsets())
    return found.chosen(found.offsets >= np.repeat(since, counts))


def _ranges(fetched: Sequence[tuple[int, Fetched]]) -> inflight.Ranges:
    ranges: dict[int, tuple[int, int]] = {}
    for partition, one in fetched:
        first, last = one.range
        low, high = ranges.get(partition, (first, last))
        ranges[partition] = min(low, first), max(high, last)
    return ranges


@dataclass(frozen=True, slots=True)
class Plan:
    """How to read records that carry these header names: the container's header, the fixed bytes before each value."""

    names: tuple[str, ...]
    header: bytes
    fixed: tuple[bytes, ...]

    @property
    def readable(self) -> bool:
        """Whether each name has a column of its own."""
        return 0 < len(self.names) == len(set(self.names))


def read(batches: Sequence[Batch]) -> Columns | None:
    """The records of whole batches; None if they must be read one by one."""
    count = sum(batch.holds for batch in batches)
    if count < FEW or any(batch.attributes & APPENDED for batch in batches):
        return None
    try:
        bodies = [batch.body() for batch in batches]
        plan = _plan(tuple(name for name, _ in records.parse(bodies[0], 0).headers))
        sizes = list(map(len, bodies))
        container = b"".join((plan.header, varint(count), varint(sum(sizes)), *bodies, SYNC))
        del bodies  # uncompressed, they are large
        frame = pl.read_avro(io.BytesIO(container)) if plan.readable else None
    except (Exception, PanicException):
        return None
    counts = [batch.holds for batch in batches]
    if frame is None or not _canonical(plan, frame, count, counts, sizes):
        return None
    heads = np.array([(batch.base, batch.last, batch.first_ms) for batch in batches], dtype=np.int64)
    base, last, first_ms = (pl.Series(column) for column in np.repeat(heads, counts, axis=0).T)
    if not ((frame["offset"] >= 0) & (frame["offset"] <= last)).all() or not _rising(frame["offset"], counts):
        return None
    values = (pl.col(f"h{i}").alias(HEADER + name) for i, name in enumerate(plan.names))
    return Columns(
        frame.select(pl.col("offset") + pl.lit(base), pl.col("timestamp") + pl.lit(first_ms), "key", "value", *values)
    )


def one_by_one(batch: Batch) -> list[Record]:
    """The records of a batch in which a header's name is not UTF-8: aiokafka's own parser ends there (see
    ``streams.store.records``). Raises ``CorruptRecordException`` where there is no record.
    """
    found, at = [], 0
    appended = batch.attributes & APPENDED
    try:
        body = batch.body()
        for _ in range(batch.holds):
            one = records.parse(body, at)
            at = one.end
            time = batch.last_ms if appended else batch.first_ms + one.timestamp
            found.append(Record(batch.base + one.offset, time, one.key, one.value, one.headers, int(bool(appended))))
    except (ValueError, IndexError) as error:
        raise CorruptRecordException(f"no record at byte {at}") from error
    return found


def _rising(offsets: pl.Series, counts: Sequence[int]) -> bool:
    """Whether they rise within each batch."""
    steps = np.diff(offsets.to_numpy())
    steps[np.cumsum(counts[:-1], dtype=np.int64) - 1] = 1  # from one batch to the next
    return bool((steps > 0).all())


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


@lru_cache(maxsize=64)  # any producer may bring other names
def _plan(names: tuple[str, ...]) -> Plan:
    written = [varint(len(name.encode())) + name.encode() for name in names] or [b""]
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
