"""Quiet hours and the time of the digest: when something may be delivered. Pure; minutes of the day in Asia/Shanghai.

A red card is never held; which colours are is given.
"""

from __future__ import annotations

from dataclasses import dataclass

from schemas.clock import OFFSET_MS

DAY_MS, MINUTE_MS = 86_400_000, 60_000


def minutes(text: str) -> int:
    """``HH:MM`` as a minute of the day."""
    hours, _, rest = text.partition(":")
    return int(hours) * 60 + int(rest)


@dataclass(frozen=True, slots=True)
class Quiet:
    """Quiet from minute ``begin`` to minute ``end`` of the day (over midnight where ``end`` is lower; equal: never);
    ``holds``: the colours (govbus.card-colour) that wait.
    """

    begin: int = 0
    end: int = 0
    holds: frozenset[str] = frozenset()

    def until(self, now: int) -> int:
        """``now`` (epoch ms), or the end of the quiet hours that it lies in."""
        midnight = (now + OFFSET_MS) // DAY_MS * DAY_MS - OFFSET_MS
        for day in (-1, 0):
            begin = midnight + day * DAY_MS + self.begin * MINUTE_MS
            length = (self.end - self.begin) % 1440 * MINUTE_MS
            if begin <= now < begin + length:
                return begin + length
        return now

    def alert_until(self, colour: str, now: int) -> int:
        """When an alert of ``colour`` may go: at once, unless its colour waits."""
        return self.until(now) if colour in self.holds else now


def slot(at: int, now: int) -> int:
    """The last moment (epoch ms) up to ``now`` at which it was minute ``at`` of the day."""
    midnight = (now + OFFSET_MS) // DAY_MS * DAY_MS - OFFSET_MS
    today = midnight + at * MINUTE_MS
    return today if today <= now else today - DAY_MS
