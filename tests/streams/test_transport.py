"""What a fetch yields, whatever the producer: compressed, small, large, with and without headers; from any offset."""

from __future__ import annotations

import asyncio
import struct
import time
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from aiokafka.consumer import consumer as client
from aiokafka.consumer.fetcher import READ_UNCOMMITTED, Fetcher, FetchResult
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import TopicPartition
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread
from faust.types import TP

from streams import transport
from streams.batches import UNPACKED, Fetched
from streams.transport import (
    LONG_PAUSE_S,
    MUCH_BYTES,
    PAUSE_S,
    Batches,
    Chunk,
    ChunkConsumer,
    ChunkRecords,
    ChunkThread,
    Damaged,
    PacedFetcher,
    Passed,
)

CRC_AT, ATTRIBUTES_AT, CONTROL = 17, 21, 0x20
HEADERS = [("ce_id", b"1"), ("ce_type", b"x")]


class Gbk(str):
    """A text that a producer of another house encodes."""

    def encode(self, *_: Any) -> bytes:
        return str.encode(self, "gbk")


def mixed(base: int, headers: list[list[tuple[str, bytes]]], compression: int) -> bytes:
    """A batch of as many records as there are ``headers``."""
    builder = _DefaultRecordBatchBuilderPy(2, compression, 0, -1, -1, -1, 10_000_000)
    for i, each in enumerate(headers):
        builder.append(i, 10**12, b"k", b"%d" % (base + i), each)
    return base.to_bytes(8, "big") + bytes(builder.build())[8:]


def batch(base: int, count: int, compression: int, headers: list[tuple[str, bytes]]) -> bytes:
    return mixed(base, [headers] * count, compression)


def marker(base: int) -> bytes:
    """What ends a transaction: a control batch of one record."""
    made = bytearray(batch(base, 1, 0, []))
    struct.pack_into(">h", made, ATTRIBUTES_AT, CONTROL)
    struct.pack_into(">I", made, CRC_AT, calc_crc32c(bytes(made[ATTRIBUTES_AT:])))
    return bytes(made)


def parts(raw: bytes, position: int) -> list[Any]:
    """What a fetch from ``position`` yields, piece by piece."""
    given: list[Any] = [TopicPartition("t", 0), Batches(raw), None, position, None, None, True, READ_UNCOMMITTED]
    return list(ChunkRecords(*given))


def read(found: list[Any]) -> list[Any]:
    """The records among what a fetch yielded."""
    return [record for part in found if isinstance(part, Fetched) for record in part.one_by_one()]


def fetched(raw: bytes, position: int) -> tuple[list[int], int]:
    """Offsets that a fetch from ``position`` yields (each with its value), and where the next one begins."""
    given: list[Any] = [TopicPartition("t", 0), Batches(raw), None, position, None, None, True, READ_UNCOMMITTED]
    records = ChunkRecords(*given)
    found = list(records)
    assert found[-1] == Passed(records.next_fetch_offset)
    assert [int(r.value) for r in read(found)] == [r.offset for r in read(found)]
    return [r.offset for r in read(found)], records.next_fetch_offset


@pytest.mark.parametrize("compression", [0, 1, 3])
@pytest.mark.parametrize("headers", [HEADERS, []])
@pytest.mark.parametrize("count", [1, 3, 100])
def test_every_record_from_the_position_on_is_yielded_once(
    compression: int, headers: list[tuple[str, bytes]], count: int
) -> None:
    raw = batch(10, count, compression, headers) + batch(10 + count, 2, compression, headers)
    assert fetched(raw, 10) == (list(range(10, 12 + count)), 12 + count)
    assert fetched(raw, 9 + count) == ([9 + count, 10 + count, 11 + count], 12 + count)


@pytest.mark.parametrize("compression", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("count", [1, 40])
@pytest.mark.parametrize("at", [0, -1])
def test_a_header_name_that_is_not_utf_8_is_read_as_its_bytes_and_ends_nothing(
    compression: int, count: int, at: int
) -> None:
    headers: list[list[tuple[str, bytes]]] = [HEADERS] * count
    headers[at] = [*HEADERS, (Gbk("部门"), b"x")]
    raw = batch(10, 2, compression, HEADERS) + mixed(12, headers, compression) + batch(12 + count, 2, 0, HEADERS)
    assert fetched(raw, 11) == (list(range(11, 14 + count)), 14 + count)
    found = read(parts(raw, 12))
    odd = next(r for r in found if r.offset == 12 + at % count)
    assert odd.headers == (*HEADERS, ("\\xb2\\xbf\\xc3\\xc5", b"x"))
    assert (odd.key, odd.timestamp, odd.timestamp_type) == (b"k", 10**12, 0)


def test_what_is_before_a_damaged_batch_is_read_and_the_damaged_one_is_told() -> None:
    sound, damaged = batch(0, 40, 0, HEADERS), bytearray(batch(40, 40, 0, HEADERS))
    damaged[-1] ^= 1
    found = parts(sound + bytes(damaged), 0)
    assert [r.offset for r in read(found)] == list(range(40))
    assert found[1:] == [Passed(40), Damaged(40)]
    assert parts(bytes(damaged), 40) == [Damaged(40)]


def test_the_marker_that_ends_a_transaction_is_passed_wherever_it_lies() -> None:
    raw = batch(0, 3, 0, HEADERS) + marker(3) + batch(4, 2, 0, HEADERS) + marker(6)
    found = parts(raw, 0)
    assert ([r.offset for r in read(found)], found[1:]) == ([0, 1, 2, 4, 5], [Passed(7)])
    assert parts(marker(6), 6) == [Passed(7)]


def test_a_chunk_of_a_marker_alone_goes_on_where_the_marker_ends() -> None:
    consumer: Any = SimpleNamespace(_since={TP("t", 0): 6})
    given = ([Passed(7)], parts(batch(7, 2, 0, []), 7))
    chunks = [ChunkConsumer._chunk(consumer, TP("t", 0), one) for one in given]
    assert [(c.since, len(c.records), c.end) for c in chunks] == [(6, 0, 7), (7, 2, 9)]
    assert [ChunkConsumer._message(consumer, [c], 1).offset for c in chunks] == [6, 8]


def test_a_chunk_of_a_marker_before_which_nobody_read_is_above_every_cursor_so_that_it_is_a_gap() -> None:
    chunk = ChunkConsumer._chunk(SimpleNamespace(_since={}), TP("t", 0), [Passed(7)])  # type: ignore[arg-type]
    assert chunk == Chunk("t", 0, 7, [], 7)


def test_a_chunk_that_nobody_read_before_begins_where_its_own_fetch_began() -> None:
    nobody: Any = SimpleNamespace(_since={})
    chunk = ChunkConsumer._chunk(nobody, TP("t", 0), parts(batch(7, 4, 0, []), 9))
    assert (chunk.since, chunk.end, nobody._since) == (9, 11, {TP("t", 0): 11})


@pytest.mark.parametrize(
    ("answers", "pauses"),
    [
        ([(1, 0), (1, 0)], [0.0, 0.0]),
        ([(1, 500), (1, 0), (1, 0)], [0.0, PAUSE_S, 0.0]),
        ([(1, MUCH_BYTES), (1, MUCH_BYTES - 1), (2, 500), (1, 0)], [0.0, LONG_PAUSE_S, 0.0, PAUSE_S]),
    ],
)
def test_a_broker_is_left_alone_after_an_answer_that_brought_something_and_longer_after_much(
    monkeypatch: pytest.MonkeyPatch, answers: list[tuple[int, int]], pauses: list[float]
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(round(seconds, 3))

    async def answer(self: Any, _: Any, node: int, __: Any) -> bool:
        brought = sizes.pop(0)
        self._records[TopicPartition("t", node)] = waiting(brought)
        return brought > 0

    monkeypatch.setattr(transport, "time", SimpleNamespace(monotonic=lambda: 100.0))
    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(Fetcher, "_proc_fetch_request", answer)
    paced = PacedFetcher.__new__(PacedFetcher)
    paced._ask_at = dict.fromkeys((1, 2), 100.0)
    paced._records = {TopicPartition("t", 3): waiting(MUCH_BYTES)}  # which nobody takes, and which this did not ask for
    sizes = [brought for _, brought in answers]

    async def asked() -> list[bool]:
        return [await paced._proc_fetch_request(None, node, asking(node)) for node, _ in answers]

    assert asyncio.run(asked()) == [brought > 0 for _, brought in answers]
    assert slept == pauses


def waiting(size: int) -> Any:
    """So many bytes that nobody has taken yet."""
    records = SimpleNamespace(_records=Batches(bytes(size)))
    return FetchResult(None, assignment=None, partition_records=records, backoff=0)


def asking(partition: int) -> Any:
    return SimpleNamespace(topics=[("t", [(partition, 0, 1_000)])])


def test_a_client_that_is_closed_while_it_leaves_a_broker_alone_is_closed_at_once() -> None:
    async def closed() -> None:
        states = SimpleNamespace(register_fetch_waiters=lambda _: None, wait_for_assignment=asyncio.Event().wait)
        states.subscription = None
        there = SimpleNamespace(_loop=asyncio.get_running_loop(), _metadata_max_age_ms=1_000)
        paced = PacedFetcher(there, states)
        paced._ask_at[1] = time.monotonic() + 60
        await asyncio.sleep(0.01)  # it waits for an assignment
        task = asyncio.create_task(paced._proc_fetch_request(None, 1, asking(0)))
        paced._pending_tasks.add(task)
        await asyncio.sleep(0.01)
        await paced.close()
        assert not await task

    asyncio.run(asyncio.wait_for(closed(), 5))


def test_what_waits_is_reckoned_as_it_will_be_when_it_is_read() -> None:
    plain, packed = (batch(0, 100, compression, HEADERS) for compression in (0, 1))
    chunks = [Chunk("t", 0, 0, parts(raw, 0)[0], 100) for raw in (plain, packed)]
    assert [c.size for c in chunks] == [len(plain), UNPACKED * len(packed)]
    assert Chunk("t", 0, 0, [SimpleNamespace(value=b"123"), SimpleNamespace(value=None)]).size == 3


def test_the_client_uses_the_paced_fetcher_and_leaves_waiting_to_it() -> None:
    thread = ChunkThread.__new__(ChunkThread)
    made = SimpleNamespace()
    with patch.object(AIOKafkaConsumerThread, "_create_worker_consumer", lambda *_: made):
        assert thread._create_worker_consumer(None) is made
    assert (made._fetch_max_wait_ms, made._fetch_min_bytes) == (200, 1)
    assert client.Fetcher is PacedFetcher
