"""How many arenas the C library opens for many threads, asked of itself."""

from __future__ import annotations

import subprocess
import sys

from streams.store.heap import ARENAS

ASK = """
import ctypes, re, sys, tempfile, threading
from streams.store import heap

if sys.argv[1] == "small":
    heap.keep_small()
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
"""


def test_many_threads_share_two_arenas() -> None:
    assert _arenas("small") <= ARENAS < _arenas("as it is")


def _arenas(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", ASK, how], capture_output=True, check=True, text=True, timeout=60)
    return int(done.stdout)
