"""How many arenas the C library opens for many threads, asked of itself, in processes that start as ours do."""

from __future__ import annotations

import subprocess
import sys

import pytest

from streams.store.heap import ARENAS

ASK = """
import ctypes, re, sys, tempfile, threading

def work(*_, **__):
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
        print(len(re.findall(rb"<heap nr=", file.read())))

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
    assert _arenas(program) <= ARENAS < _arenas("as_it_is")


def _arenas(program: str) -> int:
    done = subprocess.run([sys.executable, "-c", ASK, program], capture_output=True, check=True, text=True, timeout=60)
    return int(done.stdout)
