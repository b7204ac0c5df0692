"""Writes ``performance.md``, its plots and the results it was made from. Says what was measured, judges nothing."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from bench import plots
from bench.peers.table import NAMES
from bench.plots import short
from bench.registry import BY_NAME

PLACE = "performance"
WORDS = {True: "met", False: "**missed**", None: "not judged"}
INTRODUCTION = """# Performance

Written by `govbus bench all` (or `govbus bench NAME --write`, one section); the same results as JSON are in
[performance/results.json]({place}/results.json). What is measured, what is equal and what is not:
[bench/README.md](../bench/README.md). Every figure is the median of its rounds, with the least and the greatest beside
it; ratios and shares are taken round by round.
"""


def add(report: Mapping[str, Any], out: Path) -> Path:
    """Put ``report`` in the place of the last one of its name, and write everything below ``out`` anew; returns the
    page's path.
    """
    place = out / PLACE
    place.mkdir(parents=True, exist_ok=True)
    results = place / "results.json"
    known = json.loads(results.read_text()) if results.exists() else []
    reports = sorted([r for r in known if r["name"] != report["name"]] + [{**report, "machine": machine()}], key=_order)
    results.write_text(json.dumps(reports, ensure_ascii=False, indent=1) + "\n")
    plots.draw(report, place / f"{report['name']}.svg")
    page = out / f"{PLACE}.md"
    page.write_text("\n".join(_page(reports)) + "\n")
    return page


def _order(report: Mapping[str, Any]) -> int:
    return list(BY_NAME).index(report["name"])


def machine() -> dict[str, str]:
    """What it was measured on, and when."""
    return {
        "measured": time.strftime("%Y-%m-%d", time.gmtime()),
        "cores": str(os.cpu_count()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "architecture": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def _page(reports: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield INTRODUCTION.format(place=PLACE)
    yield from _targets(reports)
    for report in reports:
        yield from _section(report)


def _targets(reports: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "\n## Targets\n\n| Benchmark | Target | |\n|---|---|---|"
    for report in reports:
        for text, met in report["targets"].items():
            yield f"| {report['name']} | {text} | {WORDS[met]} |"


def _section(report: Mapping[str, Any]) -> Iterator[str]:
    name = report["name"]
    yield f"\n## {name}\n"
    about = ", ".join(f"{name} {value}" for name, value in report["machine"].items())
    yield f"{BY_NAME[name].says}. {report['events']:,} events, {report['rounds']} rounds; {about}.\n"
    yield f"![{name}]({PLACE}/{name}.svg)\n"
    yield "| Figure | Median | Least | Greatest | Ours compared |\n|---|---|---|---|---|"
    yield from _rows(report)
    yield from (f"\nNot run: {peer}: {why.splitlines()[-1]}" for peer, why in report["not_run"].items())
    yield from (f"\n{note}" for note in _notes(report))
    if "paper" in report:
        yield from _paper(report["paper"])


def _notes(report: Mapping[str, Any]) -> Iterator[str]:
    """Under what it was measured, and what an older report says otherwise than its figures' names do."""
    ours = report["ours"]
    if report["name"] == "latency":
        gathers = f"{report['linger_ms']} ms" if "linger_ms" in report else "not kept, measured before it was"
        yield f"Each load lasts {report.get('seconds', '?')} s; how long the sender gathers: {gathers}."
    if report["name"] == "ratings" and (silent := set(NAMES) - {*report["peers"], *report["not_run"]}):
        yield f"Not run: {', '.join(sorted(silent))}: measured before it was kept why."
    if "rate_settled" in ours and "database_mb_settled" not in ours:
        yield ("Measured before settled rounds were kept apart: in the rounds that have a `rate_settled`, `worker_mb`, "
               "`database_mb` and `outbox` are those after settling.")  # fmt: skip
    if "paper" in report and "kafka_fill_cpu_us" not in ours:
        yield ("Measured before the brokers' writing was: the plan counts what reading costs them three times, and no "
               "writing, so four brokers may carry less than it says.")  # fmt: skip


def _paper(paper: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    yield "\nOn paper, from the costs measured for one event, events a second that each part would carry:\n"
    yield f"| Part | {' | '.join(paper)} |\n|{'---|' * (1 + len(paper))}"
    for part in next(iter(paper.values())):
        yield f"| {part} | {' | '.join(short(costs[part]) for costs in paper.values())} |"


def _rows(report: Mapping[str, Any]) -> Iterator[str]:
    spread = report["spread"]
    for figure, value in report["ours"].items():
        times = sum(figure in r["ours"] for r in report["measured"])
        few = f" (in {times} of {report['rounds']} rounds)" if times < report["rounds"] else ""
        yield _row(f"govbus: {figure}{few}", value, spread["ours"].get(figure), "")
    for peer, figures in report["peers"].items():
        low, high = spread["ratios"][peer]
        ratio = f"{report['ratios'][peer]:.2f} × ({low:.2f} to {high:.2f})"
        yield _row(f"peer: {peer}", figures["rate"], spread["peers"][peer]["rate"], ratio)
    for limit, share in report["limits"].items():
        yield _row(f"limit: {limit}", report["limit_rates"][limit], spread["limits"].get(limit), f"{share:.0%} of it")


def _row(name: str, value: float, between: Sequence[float] | None, compared: str) -> str:
    low, high = (short(v) for v in between) if between else ("", "")
    return f"| {name} | {short(value)} | {low} | {high} | {compared} |"
