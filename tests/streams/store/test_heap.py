"""What the two allocators of a process do, asked of themselves, in processes that start as ours do."""

from __future__ import annotations

import subprocess
import sys
from functools import cache

import pytest

from streams.store.heap import ARENAS, POLARS

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
    done = subprocess.run([sys.executable, "-c", ASK, program], capture_output=True, check=True, text=True, timeout=60)
    return done.stdout.split()
