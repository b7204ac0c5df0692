"""Draws one SVG a report: bars with the spread of the rounds. Decides which figures a picture shows, nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.errors import Misconfigured

COLOURS = {"ours": "#1f6f8b", "peers": "#c46d3b", "limits": "#9a9a9a"}
INCH = 0.42
"""Height of a bar with its space."""
LOADS = ("500", "10_percent", "50_percent", "80_percent")
SHOWN: Mapping[str, tuple[str, Sequence[str]]] = {
    "publishing": ("events a second", ("rate", "relay_rate", "carried_rate")),
    "timers": ("cases a second", ("rate",)),
    "latency": ("milliseconds", tuple(f"{p}_ms_at_{load}" for load in LOADS for p in ("p50", "p99"))),
    "recovery": ("seconds", ("start_and_catch_up_s", "median_s", "worst_s")),
    "idle": ("cores", ("cores", "worker_cores", "relay_cores", "consume_cores", "kafka_cores", "postgres_cores")),
    "growth": ("events a second", ("rate_small", "rate")),
    "workers": ("events a second", ("rate", "rate_two_workers")),
}
"""Unit and figures of ours by benchmark; all others show ``rate`` in events a second."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar and its spread."""

    kind: str
    label: str
    value: float
    low: float
    high: float


def bars(report: Mapping[str, Any]) -> list[Bar]:
    """Ours, the peers, the limits, in this order."""
    spread = report["spread"]
    _, shown = SHOWN.get(report["name"], ("", ("rate",)))
    found = report["ours"]
    ours = [Bar("ours", f"govbus: {name}", found[name], *spread["ours"][name]) for name in shown if name in found]
    peers = [Bar("peers", p, f["rate"], *spread["peers"][p]["rate"]) for p, f in report["peers"].items()]
    limits = [Bar("limits", f"limit: {x}", v, *spread["limits"][x]) for x, v in report["limit_rates"].items()]
    return [*ours, *peers, *limits]


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Write the picture of ``report`` to ``path`` (SVG); the same report gives the same bytes."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        raise Misconfigured("plots need the development packages: pip install -r requirements-dev.txt") from None
    unit, _ = SHOWN.get(report["name"], ("events a second", ()))
    rows = bars(report)[::-1]
    with mpl.rc_context({"svg.hashsalt": "govbus", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(8, 1 + INCH * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        axes.barh(
            [b.label for b in rows],
            [b.value for b in rows],
            xerr=[[b.value - b.low for b in rows], [b.high - b.value for b in rows]],
            color=[COLOURS[b.kind] for b in rows],
            ecolor="#333333",
            capsize=3,
        )
        for place, bar in enumerate(rows):
            axes.text(bar.high, place, f"  {short(bar.value)}", va="center")
        axes.set(xlabel=unit, title=f"{report['name']}: {report['events']:,} events, {report['rounds']} rounds")
        axes.margins(x=0.15)
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, format="svg", metadata={"Date": None})


def short(value: float) -> str:
    """No decimals from 100 on."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.2f}"
