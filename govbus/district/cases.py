"""How the cases of a year go: submitted, corrected, accepted, paused, decided, delivered, or left lying.

Decides what really happened and when the bus heard of it; says nothing about what must be concluded
(``oracle`` does). Offices work by the final calendar, whatever was announced before.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

from govbus.district import clock, people
from govbus.district.clock import MINUTE, REVISED
from govbus.district.model import Item, Row, Span, Story, Told, chance
from schemas.topics import CASE

DAY_MS = 86_400_000
EXTENSION_DAYS = 5
CHANNELS = ("1", "1", "1", "2", "2", "3", "4")
TOWNS = ("赫山街道", "桃花仑街道", "金银山街道", "会龙山街道", "鱼形山街道", "八字哨镇", "泉交河镇", "兰溪镇",
         "大渡口社区", "松树山村", "政务服务中心")  # fmt: skip
PAUSES = (
    "HEARING",
    "INSPECTION",
    "APPRAISAL",
    "EXPERT",
)  # 公示 does not stop the clock by itself (DOMAIN §3.2)
# share of the promise that a case takes: most early, some in the yellow, some late, a few never
PACE = ((0.84, 0.05, 0.70), (0.07, 0.82, 0.97), (0.05, 1.05, 1.60), (0.02, 2.10, 4.50))


def story(rng: random.Random, case_no: str, versions: tuple[Item, ...], submitted: int, span: Span) -> Story:
    """The whole life of one case up to the end of ``span``."""
    happened = list(_life(rng, versions, submitted))
    told = _heard(rng, [t for t in happened if t.occurred_at < span.end])
    return Story(case_no, versions[0], versions, tuple(t for t in told if t.received_at <= span.end))


def in_force(versions: tuple[Item, ...], accepted: int) -> Item:
    """The version in force on the day of acceptance (DOMAIN §2.2)."""
    return [v for v in versions if v.in_force(clock.day_of(accepted))][-1]


def _life(rng: random.Random, versions: tuple[Item, ...], submitted: int) -> Iterator[Told]:
    yield _event("case.submitted", submitted)
    if chance(rng, 0.2):
        yield _event("case.prechecked", submitted + 5 * MINUTE)
    received = submitted
    if chance(rng, 0.10):
        asked = _later(rng, submitted, 30, 800)
        yield _event("case.correction_requested", asked, gap_list="营业执照复印件; 法定代表人签字")
        if chance(rng, 0.15):
            yield _event("case.returned", _later(rng, asked, 10_000, 12_000), reason="逾期未补正")
            return
        received = _later(rng, asked, 200, 4_000)
        yield _event("case.correction_received", received)
    if chance(rng, 0.03):
        yield _event("case.not_accepted", _later(rng, received, 60, 1_500), reason="不属于本部门职权范围")
        return
    accepted = _accepted(rng, versions[0], received)
    yield _event("case.accepted", accepted)
    yield from _handled(rng, in_force(versions, accepted), accepted)


def _accepted(rng: random.Random, item: Item, received: int) -> int:
    """On the spot at once; else within hours; one in a hundred is left lying past the five days (§3.2)."""
    if item.on_the_spot:
        return _later(rng, received, 0, 3)
    return _later(rng, received, 2_600, 3_300) if chance(rng, 0.01) else _later(rng, received, 2, 900)


def _handled(rng: random.Random, item: Item, accepted: int) -> Iterator[Told]:
    total = item.promise * clock.MINUTES_A_DAY
    pauses: list[tuple[int, int]] = []
    if item.promise >= 5 and chance(rng, 0.12):
        yield from _paused(rng, accepted, total, pauses)
    extended = item.promise >= 10 and not pauses and chance(rng, 0.06)
    done = 0.0
    if extended:
        asked = _later(rng, accepted, 0.3 * total, 0.6 * total)
        yield _event(
            "case.extended",
            asked,
            extension_limit=5.0,
            extension_unit_code="1",
            reason="情况复杂,经负责人批准",
        )
        total, done = total + EXTENSION_DAYS * clock.MINUTES_A_DAY, 0.65
    resumed = _later(rng, max([accepted, *(end for _, end in pauses)]), 30, 200)
    stepped = bool(pauses) and chance(rng, 0.5)  # the other half go on without a word (DOMAIN §3.5: IN_PROCESS)
    if stepped:
        yield _step(resumed)
    if chance(rng, 0.02):
        return  # nobody ever finishes it
    finished = _finished(rng, accepted, total, pauses, done)
    if not pauses and (extended or (total > 1_000 and resumed < finished)):
        finished, stepped = max(finished, resumed + MINUTE), True
        yield _step(resumed)
    yield from _ended(rng, max(finished, resumed + MINUTE) if stepped else finished)


def _step(moment: int) -> Told:
    return _event(
        "case.step_completed",
        moment,
        step_name="审核",
        step_result_set="govbus.step-result",
        step_result_code="1",
    )


def _paused(rng: random.Random, accepted: int, total: float, pauses: list[tuple[int, int]]) -> Iterator[Told]:
    """A special procedure, sometimes a second one that begins while the first is open."""
    begin = _later(rng, accepted, 0.2 * total, 0.5 * total)
    yield from _special(rng, 1, begin, pauses)
    if chance(rng, 0.3):
        yield from _special(rng, 2, _later(rng, begin, 60, 400), pauses)


def _special(rng: random.Random, number: int, begin: int, pauses: list[tuple[int, int]]) -> Iterator[Told]:
    end = _later(rng, begin, 500, 4_000)
    pauses.append((begin, end))
    about = {"event_no": number, "special_kind_code": rng.choice(PAUSES), "special_started_at": begin}
    if chance(rng, 0.7):
        yield _event("case.special_started", begin, **about, reason="依法启动")
    yield _event("case.special_ended", end, **about, special_ended_at=end)


def _finished(rng: random.Random, accepted: int, total: float, pauses: list[tuple[int, int]], done: float) -> int:
    """When it ends; never within three minutes of a threshold, so that no result hangs on rounding.

    ``total`` in open minutes; ``done``: the share of it that has passed at least.
    """
    share = max(_pace(rng), done)
    short = total < clock.MINUTES_A_DAY
    start = accepted if short else clock.at(REVISED.next_working(clock.day_of(accepted)), 0)
    limits = REVISED.deadlines(accepted, total / clock.MINUTES_A_DAY, pauses)
    while True:
        moment = REVISED.after(start, max(share * total, 1), pauses)
        assert moment is not None
        moment = (moment + (7 * MINUTE if _closing(moment) else 0)) // MINUTE * MINUTE
        moment = max([moment, accepted, *(end + 300 * MINUTE for _, end in pauses)])
        if all(t is None or abs(t - moment) > 3 * MINUTE for t in (limits.yellow, limits.due)):
            return moment
        share += 0.01


def _closing(moment: int) -> bool:
    return moment == clock.at(clock.day_of(moment), clock.SESSIONS[-1][1])


def _pace(rng: random.Random) -> float:
    (_, low, high) = rng.choices(PACE, weights=[p[0] for p in PACE])[0]
    return rng.uniform(low, high)


def _ended(rng: random.Random, finished: int) -> Iterator[Told]:
    fate = rng.random()
    if fate < 0.03:
        yield _event("case.withdrawn", finished, reason="申请人撤回")
    elif fate < 0.04:
        yield _event("case.transferred", finished, reason="转报上级")
    elif fate < 0.10:
        yield _decided(finished, "1", reason="不符合法定条件")
    else:
        yield _decided(finished, "0")
        yield from _handed_over(rng, finished)
    if chance(rng, 0.01):
        yield _event("case.voided", finished + 20 * DAY_MS, reason="重复登记")


def _decided(finished: int, result: str, **fields: Any) -> Told:
    return _event("case.decided", finished, result_set="province.result-newer", result_code=result, **fields)


def _handed_over(rng: random.Random, finished: int) -> Iterator[Told]:
    if chance(rng, 0.6):
        certified = _later(rng, finished, 30, 1_000)
        yield _event("case.certified", certified)
        if chance(rng, 0.8):
            yield _event("case.delivered", _later(rng, certified, 30, 1_500))


def _event(event: str, occurred_at: int, **fields: Any) -> Told:
    return Told(event, occurred_at, occurred_at, fields)


def _later(rng: random.Random, start: int, low: float, high: float) -> int:
    """A whole minute some open-hours minutes after ``start``."""
    moment = REVISED.after(start, max(1, rng.uniform(low, high)))
    assert moment is not None
    return max(start, moment // MINUTE * MINUTE)


def _heard(rng: random.Random, happened: list[Told]) -> list[Told]:
    """Mostly within two minutes; some keyed in days later, some all at once."""
    heard = [replace(t, received_at=t.occurred_at + rng.randint(1_000, 110_000)) for t in happened]
    heard = [_keyed_in(rng, t) if chance(rng, 0.012) else t for t in heard]
    if heard and chance(rng, 0.01):
        last = max(t.received_at for t in heard) + rng.randint(1, 3) * DAY_MS
        heard = [replace(t, received_at=last + place * 1_000) for place, t in enumerate(heard)]
    return sorted(heard, key=lambda t: t.received_at)


def _keyed_in(rng: random.Random, told: Told) -> Told:
    late = told.received_at + rng.randint(1, 6) * DAY_MS + rng.randint(0, 600) * MINUTE
    return replace(told, received_at=late, fields={**told.fields, "entered_at": late - 30_000})


def rows(rng: random.Random, story: Story) -> list[Row]:
    """What the department publishes about the case."""
    item, party = story.item, _applicant(rng, story.item)
    common = {
        "case_no": story.case_no, "item_code": item.code, "accepting_unit": rng.choice(TOWNS),
        "applicant_type_set": "gbt39046.applicant-type", "applicant_type_code": party.applicant_type,
        "applicant_name": party.name, "applicant_id_type_set": "gat2000.156",
        "applicant_id_type_code": party.type_code, "applicant_id": party.number,
        "channel_set": "gbt39046.channel", "channel_code": rng.choice(CHANNELS),
    }  # fmt: skip
    as_text = chance(rng, 0.3)
    return [Row(CASE, item.region, item.department, t.received_at, _record(common, t, as_text)) for t in story.told]


def _record(common: Mapping[str, Any], told: Told, as_text: bool) -> dict[str, Any]:
    occurred: int | str = clock.text_of(told.occurred_at) if as_text else told.occurred_at
    return {"event_type": told.event, "occurred_at": occurred, **common, **told.fields}


def _applicant(rng: random.Random, item: Item) -> people.Party:
    return people.firm(rng, item.region) if chance(rng, 0.4) else people.citizen(rng, item.region)


def submission(rng: random.Random, first: date, last: date) -> int:
    """A moment to submit: mostly in open hours of a working day, one in ten online at any time."""
    day = first + timedelta(days=rng.randrange((last - first).days))
    if chance(rng, 0.1):
        return clock.at(day, rng.randrange(24 * 60))
    while not clock.is_working(day):
        day += timedelta(days=1)
    opens, closes = rng.choice(clock.SESSIONS)
    return clock.at(day, rng.randrange(opens, closes - 5))
