"""Where an exception came from, in words that hold no value."""

from __future__ import annotations

import traceback
from pathlib import Path


def place(error: Exception) -> str:
    """Type and place of an exception; not its text, which may be personal."""
    frames = traceback.extract_tb(error.__traceback__)
    last = next((f for f in reversed(frames) if "site-packages" not in f.filename), frames[-1])
    return f"{type(error).__name__} in {Path(last.filename).name}, line {last.lineno}"
