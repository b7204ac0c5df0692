"""The indicators from the derived tables: counts by group in SQL, items by the rule. Reads only.

All figures of one report are of one moment: one snapshot, whose cursors say how far the log is in it. The recount from
raw events is ``govbus.recount`` and shares no code with this.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

import sqlalchemy as sa

from schemas.clock import OFFSET_MS
from schemas.envelope import derived_id
from schemas.topics import CALENDAR, CASE, HANDLING, ITEM, RATING
from streams.rules import indicators, lateness
from streams.rules.calendar import day_at
from streams.rules.indicators import Excluded, Figure, ItemCount
from streams.rules.limits import HANDLING_ITEM, HOUR, IMPLEMENTING, MINUTE, WORKING_DAY, implementing
from streams.store import horizon
from streams.store.horizon import Clock

SOURCES = (CASE, RATING, HANDLING, ITEM, CALENDAR)
PERIODS = {"day": "YYYY-MM-DD", "month": "YYYY-MM", "quarter": 'YYYY"-Q"Q', "year": "YYYY"}
Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is asked: columns to group by, and which days (Asia/Shanghai, both included), department, region."""

    by: tuple[str, ...] = ("department",)
    since: date | None = None
    until: date | None = None
    department: str = ""
    region: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """Figures by group (values of ``chosen.by``), and what they rest on.

    ``as_of``: highest ``received_at`` applied, or when the newest card was issued if that was later, but not later than
    now, epoch ms UTC. ``cursors``: topic -> partition -> first offset that is not in it. The same question about the
    same state has the same ``query_id``.
    """

    query_id: str
    as_of: int
    chosen: Chosen
    cursors: Mapping[str, Mapping[int, int]]
    groups: Mapping[Key, Mapping[str, Figure]]
    excluded: Sequence[Excluded] = field(default=())
    unpublished: int = 0
    """Cases that count nowhere because their limit lies in a year whose calendar is not published."""


def report(tx: sa.Connection, chosen: Chosen, clock: Clock = "wall") -> Report:
    """All indicators; ``tx`` must read one snapshot (REPEATABLE READ), ``clock``: what timers take for now."""
    as_of, cursors = _stand(tx, clock)
    counts: dict[Key, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for query, moment in ((_CASES, _ENDED), (_CARDS, _ISSUED), (_SCORES, "rated_on"), (_BAD, _GIVEN),
                          (_BAD_DUE, _local("rectify_due_at"))):  # fmt: skip
        for row in tx.execute(sa.text(_grouped(query, moment, chosen)), _values(chosen, as_of)).mappings():
            for name, value in row.items():
                if not name.startswith("k_"):
                    counts[tuple(row[f"k_{b}"] for b in chosen.by)][name] += float(value or 0)
    excluded: list[Excluded] = []
    if not PERIODS.keys() & set(chosen.by):
        excluded = _add_items(tx, chosen, as_of, counts)
    groups = {key: _figures(counts[key]) for key in sorted(counts)}
    left_out = _grouped(_UNPUBLISHED, _ENDED, replace(chosen, by=()))
    unpublished = tx.execute(sa.text(left_out), _values(chosen, as_of)).scalar_one()
    asked = (*chosen.by, chosen.since, chosen.until, chosen.department, chosen.region)
    query_id = derived_id("indicators", indicators.version(), *asked, as_of, json.dumps(cursors, sort_keys=True))
    return Report(str(query_id), as_of, chosen, cursors, groups, excluded, unpublished)


def late_cases(tx: sa.Connection, department: str = "", clock: Clock = "wall") -> list[dict[str, Any]]:
    """Every case that is or looked overdue, with its label (govbus.lateness) and its times, oldest due first."""
    values = {**_values(Chosen(department=department), _stand(tx, clock)[0]), "department": department}
    return [row._asdict() for row in tx.execute(sa.text(_LATE_CASES), values)]


def standing_cards(tx: sa.Connection) -> dict[str, tuple[int, int]]:
    """How many red and yellow cards each department has in the figures."""
    everything = Chosen()
    rows = tx.execute(sa.text(_grouped(_CARDS, _ISSUED, everything)), _values(everything, 0))
    return {row.k_department: (row.red_cards, row.yellow_cards) for row in rows}


def bad_days(tx: sa.Connection) -> dict[str, date]:
    """The day (Asia/Shanghai) of each bad rating in the figures, by its alert."""
    query = f"{_RATED.split('-- sums')[0]} SELECT alert_id, {_GIVEN}::date AS day FROM facts WHERE {_GIVEN} IS NOT NULL"
    return {row.alert_id: row.day for row in tx.execute(sa.text(query))}


def rated_cases(tx: sa.Connection) -> dict[str, bool]:
    """The cases that the figures take for rated, and whether actively."""
    return {row.case_no: row.active for row in tx.execute(sa.text(f"WITH {EFFECTIVE} SELECT * FROM effective"))}


def satisfaction(tx: sa.Connection) -> dict[str, tuple[int, int]]:
    """Points and ratings of each department in the satisfaction."""
    everything = Chosen()
    rows = tx.execute(sa.text(_grouped(_SCORES, "rated_on", everything)), _values(everything, 0))
    return {row.k_department: (int(row.points), int(row.scored)) for row in rows}


def _stand(tx: sa.Connection, clock: Clock) -> tuple[int, dict[str, dict[int, int]]]:
    """How far the log is in this snapshot, and the timers if these are further; a publishing host whose clock is ahead
    makes nothing late before now.
    """
    cursors: dict[str, dict[int, int]] = {t.name: {} for t in SOURCES}
    names = list(cursors)
    query = sa.text(
        "SELECT topic, partition, next_offset, watermark FROM cursor "
        "WHERE topic = ANY(:names) ORDER BY topic, partition"
    )
    as_of: int = tx.execute(_NEWEST_CARD).scalar_one()
    for topic, partition, next_offset, watermark in tx.execute(query, {"names": names}):
        cursors[topic][partition] = next_offset
        as_of = max(as_of, watermark)
    return min(as_of, horizon.now(tx, clock)), cursors


_NEWEST_CARD = sa.text("SELECT coalesce(max(issued_at), 0) FROM card")


def _figures(n: Mapping[str, float]) -> dict[str, Figure]:
    """The indicators of one group from its counts; what was not counted is left out."""
    rates = {
        "on_time_rate": ("on_time", "finished"),
        "early_rate": ("early", "finished"),
        "overdue_rate": ("overdue", "finished"),
        "average_minutes": ("used", "used_of"),
        "at_once_rate": ("at_once", "cards"),
        "rated_rate": ("rated", "finished"),
        "actively_rated_rate": ("actively_rated", "finished"),
        "satisfaction": ("points", "scored"),
        "rectified_rate": ("rectified", "bad"),
        "rectified_in_time_rate": ("rectified_in_time", "bad_due"),
        "called_back_rate": ("called_back", "bad"),
        "named_called_back_rate": ("named_called_back", "named_bad"),
        "speed_up_rate": ("saved", "statutory"),
        "depth_share": ("deep", "applied_for"),
        "platform_coverage": ("on_platform", "all_items"),
    }
    found = {key: Figure(n[a], n[b]) for key, (a, b) in rates.items() if b in n}
    found |= {key: Figure(n[key]) for key in indicators.indicators() if key not in rates and key in n}
    return {key: found[key] for key in indicators.indicators() if key in found}


# --- cases, cards, ratings ------------------------------------------------------------------------


def _local(moment: str) -> str:
    """SQL: the day in Asia/Shanghai of an epoch-ms expression."""
    return f"(timestamp 'epoch' + ({moment} + {OFFSET_MS}) * interval '1 millisecond')"


_ISSUED, _GIVEN, _ENDED = _local("issued_at"), _local("given_at"), _local("coalesce(stopped_at, due_at)")


def _grouped(query: str, moment: str, chosen: Chosen) -> str:
    """``moment``: SQL, the timestamp or day in Asia/Shanghai by which a fact is in a period."""
    keys = ", ".join(f"{_key(b, moment)} AS k_{b}" for b in chosen.by)
    place = ", ".join(str(n) for n in range(1, len(chosen.by) + 1))
    body, sums = query.split("-- sums")
    wanted = (
        "(:department = '' OR department = :department) AND starts_with(region, :region) AND "
        f"(CAST(:since AS date) IS NULL OR {moment}::date >= CAST(:since AS date)) AND "
        f"(CAST(:until AS date) IS NULL OR {moment}::date <= CAST(:until AS date))"
    )
    select = f"SELECT {keys}{', ' if keys else ''}{sums} FROM facts WHERE {moment} IS NOT NULL AND {wanted}"
    return f"{body} {select}{f' GROUP BY {place}' if place else ''}"


def _key(by: str, moment: str) -> str:
    columns = {"department": "department", "level": "body_level", "item": "item_code", "region": "region"}
    return columns[by] if by in columns else f"to_char({moment}, '{PERIODS[by]}')"


def _values(chosen: Chosen, as_of: int) -> dict[str, Any]:
    limits = lateness.thresholds()
    return {
        "department": chosen.department, "region": chosen.region, "since": chosen.since, "until": chosen.until,
        "as_of": as_of, "points": indicators.points(),
        "backfill_ms": limits.backfill_ms, "bulk_events": limits.bulk_events, "bulk_ms": limits.bulk_ms,
    }  # fmt: skip


LEVELS = f"""withdrawn AS (
    SELECT DISTINCT ON (item_code, item_version) item_code, item_version,
        coalesce((body->>'cancelled_on')::date, {_local("occurred_at")}::date) AS gone_on
    FROM item_event WHERE event_type = 'item.withdrawn'
    ORDER BY item_code, item_version, received_at DESC, event_id DESC),
versions AS (
    SELECT DISTINCT ON (item_code, item_version) item_code, item_version, body,
        (body->>'effective_on')::date AS from_on, least((body->>'cancelled_on')::date, gone_on) AS to_on
    FROM item_event LEFT JOIN withdrawn USING (item_code, item_version) WHERE event_type = 'item.published'
    ORDER BY item_code, item_version, received_at DESC, event_id DESC),
judging AS (
    SELECT *, true AS own FROM versions UNION ALL
    SELECT h.item_code, w.item_version, w.body, w.from_on, w.to_on, false
    FROM (SELECT DISTINCT item_code FROM versions WHERE length(item_code) = {HANDLING_ITEM}) h
    JOIN versions w ON w.item_code = left(h.item_code, {IMPLEMENTING})),
spans AS (
    SELECT item_code, day AS from_on, lead(day) OVER (PARTITION BY item_code ORDER BY day) AS to_on FROM (
        SELECT item_code, from_on AS day FROM judging UNION SELECT item_code, to_on FROM judging) AS days
    WHERE day IS NOT NULL),
levels AS (
    SELECT DISTINCT ON (s.item_code, s.from_on) s.item_code, s.from_on, s.to_on,
        coalesce(v.body->>'body_level_code', '') AS body_level,
        v.body->>'promise_unit_code' IN ('{WORKING_DAY}', '{HOUR}', '{MINUTE}') AS working
    FROM spans s JOIN judging v ON v.item_code = s.item_code AND v.from_on <= s.from_on
        AND (s.from_on < v.to_on) IS NOT FALSE
    ORDER BY s.item_code, s.from_on, v.own DESC, v.from_on DESC, v.item_version DESC)"""
"""From which day to before which day an item has one level (gbt39046.level: 4 区, 5 乡镇, 6 村), and a limit in working
time or not: what ``streams.rules.indicators.in_force`` says of a day, of all days at once.
"""


def _of_item(code: str) -> str:
    """SQL: whether ``v`` of LEVELS is of the item by which cases of ``code`` are judged, be it in force or not
    (``streams.rules.limits.judging``). A handling item of which versions are known has its item's in LEVELS too.
    """
    unknown = f"length({code}) = {HANDLING_ITEM} AND {code} NOT IN (SELECT item_code FROM versions)"
    return f"v.item_code = CASE WHEN {unknown} THEN left({code}, {IMPLEMENTING}) ELSE {code} END"


def _by_version(moment: str) -> str:
    """SQL: whether ``v`` of LEVELS is the version in force at an epoch-ms expression (DOMAIN §2.2)."""
    return _in_force(f"{_local(moment)}::date")


def _in_force(day: str) -> str:
    return f"{day} >= v.from_on AND ({day} < v.to_on) IS NOT FALSE"


LATE = """stops AS (
    SELECT DISTINCT ON (c.case_no) c.case_no, e.entered_at, e.received_at
    FROM case_state c JOIN case_event e USING (case_no)
    WHERE c.on_time IS NOT NULL AND e.event_type IN ('case.decided', 'case.returned', 'case.transferred')
    ORDER BY c.case_no, e.occurred_at = c.stopped_at DESC, e.occurred_at, e.received_at, e.event_id),
late AS (
    SELECT c.case_no, c.due_at, c.stopped_at, s.received_at, coalesce(s.entered_at, s.received_at) AS keyed,
        c.on_time IS NOT NULL AND c.stopped_at < c.due_at + 60000 AND s.received_at >= c.due_at + 60000
            AND NOT c.provisional AS heard_late,
        c.department, c.on_time, c.provisional
    FROM case_state c LEFT JOIN stops s USING (case_no)
    WHERE c.due_at IS NOT NULL AND (c.on_time IS NOT NULL OR c.stopped_at IS NULL)),
lateness AS (
    SELECT case_no, CASE
        WHEN provisional THEN ''
        WHEN stopped_at IS NULL OR stopped_at >= due_at + 60000
            THEN CASE WHEN CAST(:as_of AS bigint) >= due_at + 60000 THEN 'LATE_SERVICE' ELSE '' END
        WHEN NOT heard_late OR heard_late IS NULL THEN ''
        WHEN keyed - stopped_at >= :backfill_ms OR count(*) FILTER (WHERE heard_late)
            OVER (PARTITION BY department, keyed / :bulk_ms, heard_late) >= :bulk_events THEN 'BACKFILL'
        ELSE 'LATE_ENTRY' END AS label FROM late)"""
"""The rule of streams.rules.lateness over all cases at once; a test holds both together."""
UNSETTLED = (
    "(c.provisional AND (NOT c.on_time OR c.state->>'calendar_version' LIKE "
    f"'%' || extract(year FROM {_local('c.stopped_at')}) || '-provisional%'))"
)
"""SQL: whether the calendar that is not published yet may still turn on time into overdue, or the other way round: it
cannot where the case ended on time before that year began. No red card either (§3.6).
"""
_LATE_CASES = f"""WITH {LATE}
SELECT l.label, l.case_no, c.department, c.item_code, c.due_at, c.stopped_at, s.entered_at, s.received_at
FROM lateness l JOIN case_state c USING (case_no) LEFT JOIN stops s USING (case_no)
WHERE l.label <> '' AND (:department = '' OR c.department = :department) ORDER BY c.due_at, l.case_no"""
EFFECTIVE = """effective AS (
    SELECT case_no, bool_or(NOT is_default) AS active FROM (
        SELECT DISTINCT ON (case_no, region, service_no, assess_no)
            case_no, region, department, service_no, assess_no, operation, is_default
        FROM rating_event ORDER BY case_no, region, service_no, assess_no, is_default, revision DESC, occurred_at DESC,
            event_id DESC) AS r
    LEFT JOIN rating_out o USING (case_no, region, department, service_no, assess_no)
    WHERE operation <> 'D' AND o."out" IS NOT TRUE GROUP BY case_no)"""
"""The cases with a rating that counts (``effective`` of streams.rules.tally), and whether one is active. One
pass over all ratings, like LATE over all case events; a case's own events are sorted, which costs no index.
"""
_CASES = f"""WITH {LEVELS}, {LATE}, {EFFECTIVE}, facts AS (
    SELECT c.*, coalesce(v.body_level, '') AS body_level, coalesce(l.label, '') AS label, r.active,
        CASE WHEN v.working AND c.on_time IS NOT NULL THEN (c.state->>'used_minutes')::bigint END AS used
    FROM case_state c LEFT JOIN levels v ON {_of_item("c.item_code")} AND {_by_version("c.accepted_at")}
    LEFT JOIN lateness l USING (case_no) LEFT JOIN effective r USING (case_no)
    WHERE (c.on_time IS NOT NULL AND NOT {UNSETTLED}) OR (c.stopped_at IS NULL AND l.label <> ''))
-- sums
 count(on_time) AS finished, count(*) FILTER (WHERE on_time) AS on_time, count(*) FILTER (WHERE NOT on_time) AS overdue,
 count(*) FILTER (WHERE on_time AND {_local("stopped_at")}::date < {_local("due_at")}::date) AS early,
 sum(used) AS used, count(used) AS used_of, count(*) FILTER (WHERE label = 'LATE_SERVICE') AS late_service,
 count(*) FILTER (WHERE label = 'LATE_ENTRY') AS late_entry,
 count(*) FILTER (WHERE label = 'BACKFILL') AS backfill,
 count(active) FILTER (WHERE on_time IS NOT NULL) AS rated,
 count(*) FILTER (WHERE on_time IS NOT NULL AND active) AS actively_rated"""
_UNPUBLISHED = f"""WITH facts AS (
    SELECT c.* FROM case_state c WHERE (c.on_time IS NOT NULL AND {UNSETTLED})
    OR (c.stopped_at IS NULL AND c.provisional AND c.due_at + 60000 <= :as_of))
-- sums
 count(*) AS unpublished"""
_CARDS = f"""WITH {LEVELS}, facts AS (
    SELECT k.colour, k.issued_at, coalesce(s.department, k.department) AS department, k.region, k.item_code,
        coalesce(v.body_level, '') AS body_level,
        l.rectified_at < (l.dues->>'at_once')::bigint + 60000 AS at_once,
        l.issued_at IS NULL OR l.dues->>'at_once' IS NOT NULL AS settled
    FROM card k LEFT JOIN case_state s USING (case_no)
    LEFT JOIN levels v ON {_of_item("k.item_code")} AND {_by_version("coalesce(s.accepted_at, k.issued_at)")}
    LEFT JOIN alert_life l ON l.case_no = k.case_no AND l.alert_id = k.alert_id::text
    WHERE k.kind = 'CARD' AND k.revoked_at IS NULL AND l.out_at IS NULL)
-- sums
 count(*) FILTER (WHERE colour <> 'YELLOW') AS red_cards, count(*) FILTER (WHERE colour = 'YELLOW') AS yellow_cards,
 count(*) FILTER (WHERE settled) AS cards, count(*) FILTER (WHERE at_once) AS at_once"""
_SCORES = f"""WITH {LEVELS}, facts AS (
    SELECT r.*, coalesce(v.body_level, '') AS body_level
    FROM rating_cell r LEFT JOIN levels v ON {_of_item("r.item_code")} AND {_in_force("r.rated_on")}
    WHERE r.n <> 0)
-- sums
 sum(n * score) * :points AS points, sum(n) AS scored"""
_RATED = f"""WITH {LEVELS}, facts AS (
    SELECT l.*, (l.dues->>'rectify')::bigint AS rectify_due_at, coalesce(v.body_level, '') AS body_level,
        coalesce(i.given_at, l.issued_at) AS given_at
    FROM alert_life l LEFT JOIN case_state c USING (case_no) LEFT JOIN alert_inbox i ON i.alert_id::text = l.alert_id
    LEFT JOIN levels v ON {_of_item("l.item_code")} AND {_by_version("coalesce(c.accepted_at, l.issued_at)")}
    WHERE l.kind = 'BAD_RATING' AND l.out_at IS NULL AND c.status IS DISTINCT FROM 'VOID')
-- sums
"""
_BAD = f"""{_RATED}
 count(*) AS bad, count(rectified_at) AS rectified, count(called_back_at) AS called_back,
 count(*) FILTER (WHERE named) AS named_bad, count(called_back_at) FILTER (WHERE named) AS named_called_back"""
_BAD_DUE = f"""{_RATED}
 count(*) FILTER (WHERE rectify_due_at + 60000 <= :as_of) AS bad_due, count(*) FILTER (
    WHERE rectify_due_at + 60000 <= :as_of AND rectified_at < rectify_due_at + 60000) AS rectified_in_time"""


# --- items ----------------------------------------------------------------------------------------


def _add_items(
    tx: sa.Connection, chosen: Chosen, as_of: int, counts: dict[Key, dict[str, float]]
) -> list[Excluded]:
    """Add what the items in force count to the groups; the items that the speed-up leaves out."""
    counted = [indicators.count_item(r) for r in indicators.in_force(_item_records(tx), day_at(as_of))]
    wanted = [(c, e) for c, e in counted if _asked(c.department, c.region, chosen)]
    for count, excluded in wanted:
        n = counts[_item_key(count, chosen.by)]
        for name, value in _item_counts(count, excluded is None).items():
            n[name] += value
    known = {c.item_code for c, _ in counted}
    for stranger in strangers(tx, known):
        if _asked(stranger.department, stranger.region, chosen):
            counts[_item_key(stranger, chosen.by)]["all_items"] += 1
    return sorted((e for _, e in wanted if e is not None), key=lambda e: (e.department, e.item_code))


def strangers(tx: sa.Connection, known: Set[str]) -> list[ItemCount]:
    """Items that are handled beside the platform, once for each department and region: not among those in force
    (``known``), nor exempt, nor in force when each of the cases was accepted.
    """
    fine = known | indicators.exempt()
    rows = [r for r in tx.execute(_STRANGERS) if fine.isdisjoint((r.item_code, implementing(r.item_code)))]
    return [ItemCount(r.item_code, r.department, r.region, "", False, False) for r in rows]


def items_in_force(tx: sa.Connection, clock: Clock = "wall") -> list[ItemCount]:
    """What every item in force adds to the figures, at the moment of the snapshot."""
    records = indicators.in_force(_item_records(tx), day_at(_stand(tx, clock)[0]))
    return [indicators.count_item(r)[0] for r in records]


def _item_counts(count: ItemCount, comparable: bool) -> dict[str, float]:
    add: dict[str, float] = {"on_platform": 1, "all_items": 1}
    if count.applied_for:
        add |= {"applied_for": 1, "deep": float(count.deep)}
    if comparable:
        add |= {"statutory": count.statutory, "saved": count.statutory - count.promise}
    return add


def _asked(department: str, region: str, chosen: Chosen) -> bool:
    return chosen.department in ("", department) and region.startswith(chosen.region)


def _item_key(count: ItemCount, by: Sequence[str]) -> Key:
    values = {"department": count.department, "level": count.level, "item": count.item_code, "region": count.region}
    return tuple(values[b] for b in by)


def _item_records(tx: sa.Connection) -> Iterable[dict[str, Any]]:
    for row in tx.execute(_ITEMS).mappings():
        yield {**row["body"], **{name: row[name] for name in row if name != "body"}}


_ITEMS = sa.text(
    "SELECT item_code, item_version, event_type, department, region, occurred_at, body FROM item_event "
    "ORDER BY received_at, event_id"
)
_STRANGERS = sa.text(  # a case that was not accepted needs any version at any time
    f"WITH {LEVELS} SELECT c.item_code, c.department, c.region FROM case_state c "
    "WHERE c.status <> 'VOID' AND NOT EXISTS (SELECT FROM levels v WHERE "
    f"{_of_item('c.item_code')} AND (c.accepted_at IS NULL OR {_by_version('c.accepted_at')})) "
    "GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
)
