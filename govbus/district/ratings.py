"""What citizens say about finished cases: all channels, both satisfaction code sets, second thoughts.

The two code sets are inverted (DOMAIN §5.2): a 5 is ``5`` on the platform, ``1`` in GB/T 39046.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from govbus.district import clock
from govbus.district.clock import MINUTE
from govbus.district.model import Row, Story, chance
from schemas.envelope import derived_id
from schemas.topics import RATING

DAY_MS = 86_400_000
SCORES, WEIGHTS = (5, 4, 3, 2, 1), (62, 22, 9, 4, 3)
TAGS = {5: "517", 4: "413", 3: "314", 2: "214", 1: "115"}
CHANNELS = (
    ("platform.channel", "1", "PC"),
    ("platform.channel", "2", "MOBILE"),
    ("platform.channel", "3", "QR"),
    ("platform.channel", "4", "TABLET"),
    ("platform.channel", "5", "HALL"),
    ("platform.channel", "6", "PHONE"),
    ("platform.channel", "7", "SMS"),
    ("gbt39046.channel", "1", "WINDOW"),
    ("gbt39046.channel", "4", "POST"),
)


@dataclass(frozen=True, slots=True)
class Opinion:
    """One rating event as meant: ``score`` 5 best, ``channel`` index into ``CHANNELS``."""

    story: Story
    assess_no: int
    revision: int
    operation: str
    score: int
    channel: int
    occurred_at: int
    received_at: int
    is_default: bool = False
    service_no: int = 1


def opinions(rng: random.Random, story: Story, finished: int, end: int) -> list[Opinion]:
    """Everything said about one finished case up to ``end``."""
    said = list(_said(rng, story, finished))
    return [o for o in said if o.received_at <= end]


def _said(rng: random.Random, story: Story, finished: int) -> Iterator[Opinion]:
    score = rng.choices(SCORES, WEIGHTS)[0]
    at = finished + rng.randint(2, 2_000) * MINUTE
    channel = rng.randrange(len(CHANNELS))
    default = chance(rng, 0.04)
    first = Opinion(story, 1, 0, "I", 5 if default else score, channel, at, at + rng.randint(200, 60_000), default)
    yield first
    if default:
        return
    second = rng.random()
    if second < 0.02:
        yield _again(first, 1, "U", rng.choice(SCORES))
    elif second < 0.03:
        yield _again(first, 1, "D", first.score)
    elif score <= 2 and second < 0.35:
        later = at + rng.randint(5, 20) * DAY_MS
        yield Opinion(story, 2, 0, "I", rng.choice((4, 5, 2)), channel, later, later + 5_000)


def _again(first: Opinion, revision: int, operation: str, score: int) -> Opinion:
    """A correction or withdrawal about the same opinion: same day it was given for, heard a little later."""
    return Opinion(
        first.story,
        first.assess_no,
        revision,
        operation,
        score,
        first.channel,
        first.occurred_at,
        first.received_at + 3_600_000,
    )


EVENTS = {"I": "rating.given", "U": "rating.corrected", "D": "rating.withdrawn"}


def row(rng: random.Random, opinion: Opinion) -> Row:
    """What is published; the code set of the satisfaction is drawn anew each time."""
    item = opinion.story.item
    inverted = chance(rng, 0.4)
    channel_set, channel_code, _ = CHANNELS[opinion.channel]
    tagged = chance(rng, 0.3)
    return Row(
        RATING,
        item.region,
        item.department,
        opinion.received_at,
        {
            "event_type": EVENTS[opinion.operation],
            "operation": opinion.operation,
            "occurred_at": opinion.occurred_at,
            "case_no": opinion.story.case_no,
            "service_no": opinion.service_no,
            "assess_no": opinion.assess_no,
            "revision": opinion.revision,
            "item_code": item.code,
            "satisfaction_set": "gbt39046.satisfaction" if inverted else "platform.satisfaction",
            "satisfaction_code": str(6 - opinion.score if inverted else opinion.score),
            "channel_set": channel_set,
            "channel_code": channel_code,
            "is_default": opinion.is_default,
            "tag_set": "platform.eval-detail" if tagged else "",
            "tags": [TAGS[opinion.score]] if tagged else [],
            "comment": "窗口让我跑了三趟" if opinion.score == 1 else "",
            "rater_name": "王小明",
            "anonymous": False,
        },
    )


def alert_id(opinion: Opinion) -> str:
    """Id of the alert about the rating, its corrections included."""
    item = opinion.story.item
    matter = (item.region, opinion.story.case_no, opinion.service_no, item.department, opinion.assess_no)
    return str(derived_id("BAD_RATING", *matter))


def day(opinion: Opinion) -> str:
    """Day in Asia/Shanghai on which the opinion counts."""
    return clock.day_of(opinion.occurred_at).isoformat()


def live(rng: random.Random, story: Story, service_no: int, at: int) -> Opinion:
    """A rating given right now, for another visit of a finished case."""
    score = rng.choices(SCORES, WEIGHTS)[0]
    return Opinion(story, 1, 0, "I", score, rng.randrange(len(CHANNELS)), at - 1_000, at, service_no=service_no)
