"""docs/reliability.md, written from the rig's own results; parts that ran at different times are kept as JSON beside.

Decides nothing; a part that did not run says so.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HEAD = """# Reliability: what was broken on purpose, and what became of it

Written by `make chaos` from its own results (`reliability.json` beside this page); nothing here is typed by hand.
A simulated working year flows over real Kafka and real PostgreSQL while something is broken; afterwards an oracle
that is a process of its own compares what publishers were answered with SQL, the topics and the province's receipts.
"""


def merge(directory: Path, part: str, figures: Mapping[str, Any]) -> None:
    """Keep ``figures`` as the newest of ``part`` and write the page anew."""
    kept = read(directory)
    kept[part] = {**figures, "at": datetime.now(UTC).date().isoformat(), "machine": machine()}
    (directory / "reliability.json").write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    (directory / "reliability.md").write_text(page(kept))


def read(directory: Path) -> dict[str, Any]:
    """What was kept, by part."""
    path = directory / "reliability.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def machine() -> str:
    """What it ran on."""
    return f"{os.cpu_count()} cores, Python {platform.python_version()}"


def page(kept: Mapping[str, Any]) -> str:
    """The page."""
    return "\n".join([HEAD, *(line for name in kept for line in _part(name, kept[name]))]) + "\n"


def _part(name: str, figures: Mapping[str, Any]) -> list[str]:
    told = [f"## {figures.get('text', name)}", f"Target: {figures.get('target', '')} · "
            f"{'met' if figures['met'] else '**missed**'} · {figures['at']} · {figures['machine']}", ""]  # fmt: skip
    return [*told, *_lines(figures), ""]


def _lines(figures: Mapping[str, Any]) -> list[str]:
    """Every figure as a row; tables within as rows of their own."""
    rows = ["| Figure | Value |", "|---|---|"]
    for name, value in figures.items():
        if name in ("text", "target", "at", "machine", "met"):
            continue
        if isinstance(value, Mapping):
            rows += [f"| {name}: {key} | {_cell(inner)} |" for key, inner in value.items()]
        else:
            rows.append(f"| {name} | {_cell(value)} |")
    return rows


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return " · ".join(f"{k}: {v}" for k, v in value.items()).replace("|", "\\|")
    if isinstance(value, list):
        return "none" if not value else "; ".join(map(str, value)).replace("|", "\\|")
    return str(value)
