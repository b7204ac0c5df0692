"""``python -m bench.jumping FILE …``: a worker like ``python -m streams …`` whose wall clock is ahead of the machine's
by the milliseconds in FILE.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from schemas.clock import wall_clock
from streams.worker import main


def put(place: Path, ahead_ms: int) -> None:
    """Let the clock jump; who reads meanwhile reads the old or the new."""
    new = place.with_suffix(".new")
    new.write_text(str(ahead_ms))
    os.replace(new, place)


if __name__ == "__main__":
    where = Path(sys.argv[1])
    main(sys.argv[2:], wall_ms=lambda: wall_clock() + int(where.read_text()))
