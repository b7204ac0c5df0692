"""What the two allocators of a process do, asked of themselves, in processes that start as ours do."""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
import weakref
from functools import cache

import pytest

from streams.store.heap import ARENAS, POLARS, give_back

ASK = """
import ctypes, os, re, sys, tempfile, threading

class WhenLoaded:  # what the allocator of polars is told when that is loaded, and never again
    told = ""
    def find_spec(self, name, *_):
        if name == "polars" and not self.told:
            WhenLoaded.told = os.environ.get("_RJEM_MALLOC_CONF", "nothing")

sys.meta_path.insert(0, WhenLoaded())

def work(*_, **__):
    import polars
    from connectors.relay import Sender
    from streams.agents import projections
    sender = Sender("127.0.0.1:1")  # with threads of its own, as polars and numpy have them
    gate = threading.Barrier(12)

    def allocate():
        gate.wait()
        kept = [bytes(600) for _ in range(1000)]
        gate.wait()

    threads = [threading.Thread(target=allocate) for _ in range(12)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    c = ctypes.CDLL(None)
    c.fopen.restype = ctypes.c_void_p
    with tempfile.NamedTemporaryFile() as file:
        said = ctypes.c_void_p(c.fopen(file.name.encode(), b"w"))
        c.malloc_info(0, said)
        c.fclose(said)
        print(len(re.findall(rb"<heap nr=", file.read())), WhenLoaded.told)

def as_it_is():
    work()

def govbus():
    from govbus import cli
    cli.build = lambda: work
    cli.main()

def streams():
    from streams import worker
    worker.run = work
    worker.main(["--kafka", "", "--database-url", ""])

globals()[sys.argv[1]]()
"""


@pytest.mark.parametrize("program", ["govbus", "streams"])
def test_the_threads_of_a_process_of_ours_share_two_arenas(program: str) -> None:
    assert int(_said(program)[0]) <= ARENAS < int(_said("as_it_is")[0])


@pytest.mark.parametrize("program", ["govbus", "streams"])
def test_the_allocator_of_polars_is_told_before_it_is_loaded(program: str) -> None:
    assert _said(program)[1].endswith(POLARS)
    assert POLARS not in _said("as_it_is")[1]


@cache
def _said(program: str) -> list[str]:
    return _run(ASK, program)


def _run(program: str, *arguments: str) -> list[str]:
    """What a process says in which nobody has told an allocator anything yet."""
    env = {name: value for name, value in os.environ.items() if name != "_RJEM_MALLOC_CONF"}
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, check=True, text=True, timeout=60, env=env).stdout.split()


BURST = """
import ctypes, psutil
from streams.store import heap

heap.keep_small()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
large, small = [], []
for _ in range(10):
    large.append(libc.malloc(ctypes.c_size_t(16 << 20)))
    ctypes.memset(large[-1], 1, 16 << 20)
    small.append(libc.malloc(ctypes.c_size_t(300_000)))  # more than any hole has, so that it lies above
[libc.free(block) for block in large]
mb = lambda: psutil.Process().memory_info().rss >> 20
print(mb())
heap.give_back()
print(mb())
"""


def test_what_a_burst_took_goes_back_though_something_small_above_it_is_in_use() -> None:
    kept, left = map(int, _run(BURST))
    assert left < kept - 100


def test_giving_back_once_a_minute_leaves_nothing_behind() -> None:
    kind: type = ctypes.CDLL(None)._FuncPtr.__mro__[1]
    gc.collect()
    before = len(kind.__subclasses__())
    for _ in range(3):
        give_back()
    assert len(kind.__subclasses__()) == before


def test_what_only_refers_to_itself_is_collected() -> None:
    class Expression:
        pass

    circle = Expression()
    vars(circle)["accessor"] = circle  # as polars_hash keeps itself on an expression
    seen = weakref.ref(circle)
    gc.disable()
    try:
        del circle
        give_back()
        assert seen() is None
    finally:
        gc.enable()
