"""How a process that runs for months uses the C library's heap: what is freed goes back to the system."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # malloc.h of glibc
ARENAS = 2
KEPT_BYTES = 1024 * 1024
"""Free memory at a heap's end that is kept; a block of this size has a mapping of its own, which ends with it."""


def keep_small() -> None:
    """Call it before anything else: the C library counts its arenas once, when a second thread asks for memory, and
    polars, numpy and librdkafka start threads of their own.

    By default glibc has eight arenas for every core, each with its own holes, and learns from large blocks that were
    freed to keep ever larger ones. Another C library is left as it is.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for what, value in ((_ARENA_MAX, ARENAS), (_MMAP_THRESHOLD, KEPT_BYTES), (_TRIM_THRESHOLD, KEPT_BYTES)):
            mallopt(what, value)
