"""Which cases a published calendar concerns. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from streams.rules.calendar import DAY_MINUTES, Publication, Ranges, changed, day_of, epoch_ms


@dataclass(frozen=True, slots=True)
class Concern:
    """Cases of ``region`` and its townships (``000000``: all) that count one of ``days``, or know more than the
    calendar's ``received_at`` (epoch ms): they must be judged again.

    ``days`` None: all cases, whatever they count. A revision also changes what was known when a finished case ended, so
    these are no exception (DOMAIN §3.7).
    """

    region: str
    days: Ranges | None
    received_at: int

    @property
    def moments(self) -> tuple[tuple[int, int], ...]:
        """``days`` as epoch ms, the last one of each inclusive."""
        return tuple((epoch_ms(f * DAY_MINUTES), epoch_ms((t + 1) * DAY_MINUTES) - 1) for f, t in self.days or ())


def concern(new: Publication, known: Iterable[Publication]) -> Concern:
    """Whom ``new`` concerns, given what else is ``known``, its own region and year or not.

    The first calendar of a year concerns whoever counts into that year; a revision, who counts a day that it changed;
    one that comes after a higher revision changes how all that is named.
    """
    others = [p for p in known if (p.region, p.year) == (new.region, new.year) and p != new]
    if any(p.revision >= new.revision for p in others):
        return Concern(new.region, None, new.received_at)
    if not others:
        year = ((day_of(date(new.year, 1, 1)), day_of(date(new.year, 12, 31))),)
        return Concern(new.region, year, new.received_at)
    return Concern(new.region, changed(max(others, key=lambda p: p.revision), new), new.received_at)
