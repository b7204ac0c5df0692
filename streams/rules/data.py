"""The constants of the rules, which are data: ``streams/rules/<name>.toml``, most of them beside the rule of that name.
Decides nothing.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@cache
def data(name: str) -> Mapping[str, Any]:
    """What ``<name>.toml`` says. Read on first use, not at import; shared, so never to be changed."""
    return tomllib.loads((HERE / f"{name}.toml").read_text("utf-8"))
