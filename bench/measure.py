"""What a benchmark reports: medians, spreads, paired ratios, shares of limits, targets. Measures nothing itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

Figures = Mapping[str, float]
RATE = "rate"


@dataclass(frozen=True, slots=True)
class Round:
    """One round, all measured one after another: ours, each peer, each limit. ``failed`` says of peers that gave no
    figure why not.
    """

    ours: Figures
    peers: Mapping[str, Figures] = field(default_factory=dict)
    limits: Figures = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Target:
    """``figure`` of ours, or its ratio to ``peer``, or its share of ``limit``, must be at least ``least`` and at most
    ``most``. ``limit`` and ``peer`` compare the report's main figure. ``events``: a report on fewer says nothing of it.
    """

    text: str
    figure: str = RATE
    least: float | None = None
    most: float | None = None
    peer: str = ""
    limit: str = ""
    events: int = 0

    def met(self, report: Mapping[str, Any]) -> bool | None:
        """None if it could not be judged, because what it compares was not measured."""
        table, name = ("ours", self.figure)
        if self.peer or self.limit:
            table, name = ("ratios", self.peer) if self.peer else ("limits", self.limit)
        found = report[table].get(name)
        if found is None or report.get("events", 0) < self.events:
            return None
        return (self.least is None or found >= self.least) and (self.most is None or found <= self.most)


def report(
    name: str, rounds: Sequence[Round], targets: Sequence[Target] = (), figure: str = RATE, **more: Any
) -> dict[str, Any]:
    """The JSON of DESIGN §5. ``ratios`` and ``limits`` compare ``figure`` of ours with the ``rate`` of the others,
    round by round. A peer that failed in any round is in ``not_run`` with why, and nowhere else.
    """
    failed = {peer: why for r in rounds for peer, why in r.failed.items()}
    peers = {p: medians([r.peers[p] for r in rounds]) for p in rounds[0].peers if p not in failed}
    ratios = {p: [r.ours[figure] / r.peers[p][RATE] for r in rounds] for p in peers}
    limits = {x: [r.ours[figure] / r.limits[x] for r in rounds] for x in rounds[0].limits}
    found: dict[str, Any] = {
        "name": name,
        "rounds": len(rounds),
        "figure": figure,
        "ours": medians([r.ours for r in rounds]),
        "peers": peers,
        "ratios": {p: median(found) for p, found in ratios.items()},
        "limits": {x: median(found) for x, found in limits.items()},
        "limit_rates": medians([r.limits for r in rounds]),
        "not_run": failed,
        "spread": {
            "ours": spreads([r.ours for r in rounds]),
            "peers": {p: spreads([r.peers[p] for r in rounds]) for p in peers},
            "ratios": {p: [min(found), max(found)] for p, found in ratios.items()},
            "limits": spreads([r.limits for r in rounds]),
        },
        "measured": [asdict(r) for r in rounds],
        **more,
    }
    return {**found, "targets": {t.text: t.met(found) for t in targets}}


def medians(figures: Sequence[Figures]) -> dict[str, float]:
    """Median of every figure of the first round over the rounds that measured it."""
    return {name: median(f[name] for f in figures if name in f) for name in figures[0]}


def spreads(figures: Sequence[Figures]) -> dict[str, list[float]]:
    """Least and greatest of every figure of the first round."""
    return {name: [min(found), max(found)] for name in figures[0] if (found := [f[name] for f in figures if name in f])}


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of ``values`` do not exceed (nearest rank)."""
    ranked = sorted(values)
    return ranked[max(0, -(-len(ranked) * round(share * 1000) // 1000) - 1)]
