"""What a benchmark reports: medians, paired ratios, shares, targets. Measures nothing itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

Figures = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Round:
    """One round, all measured one after another: ours, each peer, each limit; figures are events a second."""

    ours: Figures
    peers: Mapping[str, Figures] = field(default_factory=dict)
    limits: Figures = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Target:
    """``figure`` of ours, or its ratio to ``peer``, must be at least ``least``."""

    text: str
    figure: str
    least: float
    peer: str = ""


def report(name: str, rounds: Sequence[Round], figure: str, targets: Sequence[Target], **more: Any) -> dict[str, Any]:
    """The JSON of DESIGN §5. ``ratios`` and ``limits`` compare ``figure`` of ours, round by round."""
    ours = medians([r.ours for r in rounds])
    peers = {p: medians([r.peers[p] for r in rounds]) for p in rounds[0].peers}
    ratios = {p: median(r.ours[figure] / r.peers[p]["rate"] for r in rounds) for p in peers}
    limits = {x: median(r.ours[figure] / r.limits[x] for r in rounds) for x in rounds[0].limits}
    met = {t.text: (ratios[t.peer] if t.peer else ours[t.figure]) >= t.least for t in targets}
    return {
        "name": name,
        "rounds": len(rounds),
        "ours": ours,
        "peers": peers,
        "ratios": ratios,
        "limits": limits,
        "limit_rates": medians([r.limits for r in rounds]),
        "targets": met,
        **more,
    }


def medians(figures: Sequence[Figures]) -> dict[str, float]:
    """Median of every figure of the first round over the rounds that measured it."""
    return {name: median(f[name] for f in figures if name in f) for name in figures[0]}
