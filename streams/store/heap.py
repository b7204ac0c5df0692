"""How a process that runs for months uses memory: what one batch freed serves the next, and workers and consumers give
back once a minute what nothing uses.
"""

from __future__ import annotations

import ctypes
import gc
import os

_C = ctypes.CDLL(None)
"""Loaded once: every time it leaves a class behind."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # malloc.h of glibc
ARENAS = 2
MAPPED_BYTES = 32 * 1024 * 1024
"""A block of this size has a mapping of its own, which ends with it. A smaller one whose pages come anew from the
kernel for every batch cost a tenth of the worker's processor time (docs/decisions/0008)."""
KEPT_BYTES = 64 * 1024 * 1024
"""Free memory at a heap's end that is kept."""
EVERY_S = 60.0
"""How often a process that runs for months gives back."""
_POLARS = "_RJEM_MALLOC_CONF"
POLARS = f"oversize_threshold:0,dirty_decay_ms:5000,narenas:{ARENAS}"
"""The allocator of polars (jemalloc): large blocks like others, freed pages kept for five seconds."""


def keep_small() -> None:
    """Call it before anything else, polars above all, which reads its setting when it is loaded: the C library counts
    its arenas once, when a second thread asks for memory, and polars, numpy and librdkafka start threads of their own.

    By default glibc has eight arenas for every core, each with its own holes, and learns from large blocks that were
    freed to keep ever larger ones. Another C library is left as it is.
    """
    told = os.environ.get(_POLARS, "")  # by the process that started this one, which may have loaded polars
    if POLARS not in told:
        os.environ[_POLARS] = ",".join(filter(None, (told, POLARS)))  # the last word counts
    mallopt = getattr(_C, "mallopt", None)
    if mallopt is not None:
        for what, value in ((_ARENA_MAX, ARENAS), (_MMAP_THRESHOLD, MAPPED_BYTES), (_TRIM_THRESHOLD, KEPT_BYTES)):
            mallopt(what, value)


def set_apart() -> None:
    """What a process has when its work begins stays: whoever collects garbage need not walk through it again."""
    gc.collect()
    gc.freeze()


def give_back() -> None:
    """Collect what only refers to itself, expressions of polars above all: a worker tells Python to do so hardly ever
    (``streams.worker``), and they would stay. Then whole pages that are free anywhere in the heap go back to the
    system; glibc by itself gives only what is free at the end, and one small block there keeps all that a burst took.
    """
    gc.collect()
    trim = getattr(_C, "malloc_trim", None)
    if trim is not None:
        trim(0)
