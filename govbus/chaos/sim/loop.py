"""An asyncio loop for one simulated process: its waiting is a pause, its clock virtual, its threads strands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from govbus.chaos.sim.schedule import FOREVER, Process, pause


class Loop(asyncio.BaseEventLoop):
    """Runs in a strand of ``process``; callbacks keep asyncio's own order, everything else is up to the seed."""

    def __init__(self, process: Process) -> None:
        super().__init__()
        self._process = process
        self._selector = self  # asyncio asks it what happened outside
        self._clock_resolution = 1e-9
        self._watched: list[tuple[Callable[[], object], asyncio.Future[None]]] = []
        process.on_death.append(self.close)

    def live(self) -> None:
        """The work of the loop's strand: for ever."""
        while True:
            self._run_once()  # type: ignore[attr-defined]

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """A task that must never end; if it does with an exception, the process ends with it."""
        self.create_task(work).add_done_callback(_raise)

    def select(self, timeout: float | None) -> None:
        """Wait until something is due; others take their turns meanwhile."""
        asyncio._set_running_loop(None)
        pause(FOREVER if timeout is None else timeout, self._awake)
        asyncio._set_running_loop(self)
        for happened, future in self._watched:
            if happened():
                self.call_soon(_tell, future, future.set_result, None)
        self._watched = [(h, f) for h, f in self._watched if not (f.done() or h())]

    async def until(self, happened: Callable[[], object], seconds: float | None = None) -> None:
        """Wait until ``happened()``, at most ``seconds``."""
        future = self.create_future()
        self._watched.append((happened, future))
        timer = self.call_later(seconds, _tell, future, future.set_result, None) if seconds else None
        await future
        if timer:
            timer.cancel()

    def _awake(self) -> bool:
        return bool(self._ready) or any(happened() for happened, _ in self._watched)  # type: ignore[attr-defined]

    def time(self) -> float:
        """Virtual seconds."""
        return self._process.schedule.now

    def run_in_executor(self, _executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """``func`` in a strand of its own."""
        future = self.create_future()

        def work() -> None:
            try:
                result = func(*args)
            except Exception as error:
                self.call_soon(_tell, future, future.set_exception, error)
            else:
                self.call_soon(_tell, future, future.set_result, result)

        self._process.spawn(work)
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """An exception of a callback is the process's; a task that died with its process is nothing to tell."""
        if error := context.get("exception"):
            raise error

    def _check_closed(self) -> None:
        """What a dead process's coroutines still ask for as they are collected, nobody hears."""

    def _process_events(self, _events: Any) -> None:
        """There are none but the loop's own."""

    def _write_to_self(self) -> None:
        """Nobody sleeps in a system call here."""


def _raise(task: asyncio.Task[None]) -> None:
    task.result()


def _tell(future: asyncio.Future[Any], tell: Callable[[Any], None], what: Any) -> None:
    if not future.done():
        tell(what)
