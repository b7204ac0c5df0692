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

JSON, PAGE = "reliability.json", "reliability.md"
HEAD = """# Reliability: what was broken on purpose, and what became of it

Written by `make chaos` from its own results (`reliability.json` beside this page); nothing here is typed by hand, but
where `judged_again` says why a result from before counts no more.
A simulated working year flows over real Kafka and real PostgreSQL while something is broken; afterwards an oracle
that is a process of its own compares what publishers were answered with SQL, the topics and the province's receipts.
"""
COLUMNS = ("Test", "Target", "Asked", "Done", "Lost", "Doubled", "Recovery p95", "Verdict", "Took", "On")
APART = ("text", "target", "at", "machine", "met", "asked", "done", "took_s")
"""Figures that stand elsewhere on the page."""
Parts = Mapping[str, tuple[str, str]]
"""What there is to run, in order: name to text and target."""


def merge(directory: Path, part: str, figures: Mapping[str, Any], parts: Parts) -> None:
    """Keep ``figures`` as the newest of ``part`` and write the page anew."""
    kept = read(directory)
    kept[part] = {**figures, "at": datetime.now(UTC).date().isoformat(), "machine": machine()}
    (directory / JSON).write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    (directory / PAGE).write_text(page(kept, parts))


def read(directory: Path) -> dict[str, Any]:
    """What was kept, by part."""
    path = directory / JSON
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def machine() -> str:
    """What it ran on."""
    return f"{os.cpu_count()} cores, Python {platform.python_version()}"


def page(kept: Mapping[str, Any], parts: Parts) -> str:
    """The page: one row for each part, then what each found."""
    rows = [_row(COLUMNS), "|" + "---|" * len(COLUMNS)]
    rows += [_row(_summary(kept.get(name), *parts[name])) for name in parts]
    return "\n".join([HEAD, *rows, "", *(line for name in parts if name in kept for line in _part(kept[name]))])


def _summary(found: Mapping[str, Any] | None, text: str, target: str) -> tuple[str, ...]:
    if found is None:
        return (text, target, *[""] * 5, "not run", "", "")
    recovery = found.get("recovery_s")
    return (
        text, target, _cell(found.get("asked", "")), _cell(found.get("done", "")), _cell(found.get("lost", "")),
        _cell(found.get("doubled", "")), f"{recovery['p95']} s" if recovery else "", _verdict(found),
        _duration(found.get("took_s")), found["at"],
    )  # fmt: skip


def _verdict(found: Mapping[str, Any]) -> str:
    interrupted = ", interrupted" if found.get("interrupted") else ""
    return ("met" if found["met"] else "**missed**") + interrupted


def _duration(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"


def _part(figures: Mapping[str, Any]) -> list[str]:
    told = [f"## {figures['text']}", f"Target: {figures['target']} · {_verdict(figures)} · {figures['at']} · "
            f"{figures['machine']}", ""]  # fmt: skip
    return [*told, *_lines(figures), ""]


def _lines(figures: Mapping[str, Any]) -> list[str]:
    """Every figure as a row; tables within as rows of their own."""
    rows = [_row(("Figure", "Value")), "|---|---|"]
    for name, value in figures.items():
        if name in APART:
            continue
        if isinstance(value, Mapping):
            rows += [_row((f"{name}: {key}", _cell(inner))) for key, inner in value.items()]
        else:
            rows.append(_row((name, _cell(value))))
    return rows


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return " · ".join(f"{k}: {v}" for k, v in value.items()).replace("|", "\\|")
    if isinstance(value, list):
        return "none" if not value else "; ".join(map(str, value)).replace("|", "\\|")
    return str(value).replace("|", "\\|")
