"""A TCP relay in front of one address, in a thread of its own, that can be cut, silenced, refused and made to flap.

A cut lets nothing pass in its direction and loses nothing: as in a network that comes back, what was sent arrives
then. Decides nothing about what passes.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Literal, get_args

from connectors.local.process import LOOPBACK

Mode = Literal["open", "cut towards the server", "cut towards the client", "cut", "half open", "refused", "flapping"]
FAULTS: tuple[Mode, ...] = get_args(Mode)[1:]
UP, DOWN = "cut towards the server", "cut towards the client"
FLAP_S = 0.3
PIECE = 64 * 1024


class Wire:
    """Listens on ``port`` of loopback and carries to ``target()``, asked at every connection; a context manager."""

    def __init__(self, target: Callable[[], int]) -> None:
        self.port = 0
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wire", daemon=True)
        self._up, self._down, self._reach = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._server: asyncio.Server | None = None
        self._flapping: asyncio.Task[None] | None = None
        self._carrying: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Wire:
        self._thread.start()
        self.set("open")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.set("refused")
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def set(self, mode: Mode) -> None:
        """Behave so from now on."""
        asyncio.run_coroutine_threadsafe(self._set(mode), self._loop).result(10)

    def reset(self) -> None:
        """End every connection now."""
        asyncio.run_coroutine_threadsafe(self._reset(), self._loop).result(10)

    async def _set(self, mode: Mode) -> None:
        if self._flapping:
            self._flapping.cancel()
            self._flapping = None
        if mode == "flapping":
            self._flapping = asyncio.create_task(self._flap())
        else:
            await self._be(mode)

    async def _be(self, mode: Mode) -> None:
        for event, closed in ((self._up, {UP, "cut", "half open"}), (self._down, {DOWN, "cut", "half open"}),
                              (self._reach, {"cut", "half open"})):  # fmt: skip
            (event.clear if mode in closed else event.set)()
        if mode in ("refused", "half open"):
            await self._reset()
        if mode == "refused" and self._server:
            self._server.close()
            self._server = None
        elif mode != "refused" and not self._server:
            self._server = await asyncio.start_server(self._accept, LOOPBACK, self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _flap(self) -> None:
        while True:
            for mode in ("refused", "open"):
                await self._be(mode)
                await asyncio.sleep(FLAP_S)

    async def _reset(self) -> None:
        carrying = list(self._carrying)
        for task in carrying:
            task.cancel()
        await asyncio.gather(*carrying, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._carrying.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._carry(reader, writer)
        finally:
            self._carrying.discard(task)
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Both ways until either side ends."""
        await self._reach.wait()
        far, there = await asyncio.open_connection(LOOPBACK, self._target())
        both = (_pump(reader, there, self._up), _pump(far, writer, self._down))
        ways = [asyncio.create_task(way) for way in both]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            there.transport.abort()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, passes: asyncio.Event) -> None:
    while data := await source.read(PIECE):
        await passes.wait()
        sink.write(data)
        await sink.drain()
    await passes.wait()
