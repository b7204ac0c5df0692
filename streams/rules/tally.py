"""Decides what a rating is worth: which are refused, which one counts, and in which cells (DOMAIN §5). Pure.

Two forms of one rule: ``refusal``, ``alert``, ``effective`` and ``cells`` read as the law does, one rating or one visit
at a time; ``judge`` and ``alerts`` say the same of columns, because ratings come by the million. Whatever the order of
events, the result depends on their set alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from string import Formatter
from typing import Any
from uuid import UUID

import polars as pl

from schemas import codesets
from schemas.clock import OFFSET_MS
from schemas.columns_out import derived_id_of
from schemas.envelope import derived_id
from streams.rules.calendar import day_at
from streams.rules.claims import WITHDRAWAL
from streams.rules.data import data

FIRST, AGAIN = 1, 2
MOST_REVISIONS = 2**31 - 2
"""What is said about a correction counts one more, as an int of the contract."""


# --- which ratings are refused --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Judged:
    """``accepted``: the frame with columns ``score`` (Int16), ``channel``, ``rated_on``. ``refused``: row,
    fault index.
    """

    accepted: pl.DataFrame
    refused: pl.DataFrame


FAULTS: tuple[tuple[str, str, str], ...] = (
    ("unknown_department", "department", "the department is not registered"),
    ("unknown_code", "operation", "not in govbus.operation"),
    ("bad_format", "service_no", "a visit is numbered from 1"),
    ("bad_format", "revision", "a correction is numbered from 0 to 2147483646"),
    ("assess_number_exceeded", "assess_no", "one rating and one re-rating per visit (DOMAIN §5.6)"),
    ("unknown_code", "satisfaction_code", "no code set of satisfaction has it"),
    ("unknown_code", "channel_code", "no code set of channels has it"),
    ("unknown_code", "tags", "not a tag, or one no longer valid on that day (DOMAIN §5.4)"),
    ("tag_level_mismatch", "tags", "the first digit of a tag is its level (DOMAIN §5.4)"),
)
"""Reason, field and text of what can be wrong, in the order in which it is told."""


def refusal(record: Mapping[str, Any]) -> int | None:
    """Which of ``FAULTS`` a record of service.rating.v1 has, the first if several; None if it is accepted."""
    tag = _tag_fault(record)
    wrong = (
        record["department"] not in codesets.departments(),
        record["operation"] not in codesets.load("govbus.operation").values,
        record["service_no"] < 1,
        not 0 <= record["revision"] <= MOST_REVISIONS,
        record["assess_no"] not in (FIRST, AGAIN),
        score(record) is None,
        channel(record) is None,
        tag == UNKNOWN_TAG,
        tag == OTHER_LEVEL,
    )
    return next((i for i, is_so in enumerate(wrong) if is_so), None)


def score(record: Mapping[str, Any]) -> int | None:
    """1..5, 5 best, whichever code set the sender speaks (§5.2); None if no set has the code."""
    return _values("satisfaction").get((record["satisfaction_set"], record["satisfaction_code"]))


def channel(record: Mapping[str, Any]) -> str | None:
    """Code of ``govbus.channel`` (§5.3); None if no set has the code."""
    return _values("channel").get((record["channel_set"], record["channel_code"]))


def _tag_fault(record: Mapping[str, Any]) -> int:
    """What is worst among its tags: unknown, of another level, or nothing (§5.4)."""
    known = [_levels().get((record["tag_set"], tag), (0, 0)) for tag in record["tags"]]
    if any(record["occurred_at"] >= until for _, until in known):
        return UNKNOWN_TAG
    return OTHER_LEVEL if any(level != score(record) for level, _ in known) else 0


UNKNOWN_TAG, OTHER_LEVEL = 2, 1


def judge(ratings: pl.DataFrame) -> Judged:
    """``refusal`` by column, of ``ratings`` (columns of service.rating.v1 and a unique ``row``).

    Sets and codes are translated to score 1..5 (5 best) and ``govbus.channel`` by joins with the code sets.
    """
    told = ratings
    for kind in ("satisfaction", "channel"):
        told = told.join(_codes(kind), on=(f"{kind}_set", f"{kind}_code"), how="left", maintain_order="left")
    told = told.with_columns(_rated_on(), _fault())
    if told["fault"].null_count() == told.height:  # nearly always
        return Judged(told.drop("fault"), told.select("row", "fault").clear())
    return Judged(
        told.filter(pl.col("fault").is_null()).drop("fault"),
        told.filter(pl.col("fault").is_not_null()).select("row", "fault"),
    )


def _rated_on() -> pl.Expr:
    return pl.from_epoch(pl.col("occurred_at") + OFFSET_MS, time_unit="ms").dt.date().alias("rated_on")


@lru_cache(maxsize=1)  # to build it takes as long as to reckon it for some hundred ratings
def _fault() -> pl.Expr:
    """Place in ``FAULTS``, null where nothing is wrong."""
    return pl.coalesce(pl.when(wrong).then(pl.lit(i, pl.Int8)) for i, wrong in enumerate(_wrongs())).alias("fault")


def _wrongs() -> tuple[pl.Expr, ...]:
    """What makes a rating wrong, in the order of ``FAULTS``."""
    return (
        ~pl.col("department").is_in(list(codesets.departments())),
        ~pl.col("operation").is_in(list(codesets.load("govbus.operation").values)),
        pl.col("service_no") < 1,
        ~pl.col("revision").is_between(0, MOST_REVISIONS),
        ~pl.col("assess_no").is_in([FIRST, AGAIN]),
        pl.col("score").is_null(),
        pl.col("channel").is_null(),
        *_tag_wrongs(),
    )


def _tag_wrongs() -> tuple[pl.Expr, pl.Expr]:
    """Where a tag is unknown; where one is of another level (an unknown one has none)."""
    tagged, known = pl.col("tags").list.len() > 0, {tag: level for (_, tag), level in _levels().items()}
    levels, until = (
        pl.col("tags").list.eval(
            pl.element().replace_strict({tag: level[i] for tag, level in known.items()}, default=0, return_dtype=dtype)
        )
        for i, dtype in enumerate((pl.Int16, pl.Int64))
    )
    unknown = (pl.col("tag_set") != data("tally")["sets"]["tag"]) | (pl.col("occurred_at") >= until.list.min())
    other = (levels.list.min() != pl.col("score")) | (levels.list.max() != pl.col("score"))
    return tagged & unknown, tagged & other


@lru_cache(maxsize=2)
def _values(kind: str) -> Mapping[tuple[str, str], Any]:
    """What each (set, code) of ``kind`` means: a score of satisfaction, a code of ``govbus.channel``."""
    means = int if kind == "satisfaction" else str
    known = ((s, c, codesets.canonical(s, c)) for s in data("tally")["sets"][kind] for c in codesets.load(s).values)
    return {(s, c): means(value) for s, c, value in known if value is not None}


@lru_cache(maxsize=2)
def _codes(kind: str) -> pl.DataFrame:
    """``_values`` as a table: set, code, canonical value."""
    value = "score" if kind == "satisfaction" else "channel"
    rows = [(*key, means) for key, means in _values(kind).items()]
    table = pl.DataFrame(rows, schema=[f"{kind}_set", f"{kind}_code", value], orient="row")
    return table.with_columns(pl.col("score").cast(pl.Int16)) if value == "score" else table


@lru_cache(maxsize=1)
def _levels() -> Mapping[tuple[str, str], tuple[int, int]]:
    """Level of every (set, tag), and the instant (epoch ms) until which it is valid."""
    set_id, old = data("tally")["sets"]["tag"], data("tally")["superseded"]
    until = int(old["before"].timestamp() * 1000)
    gone = {(set_id, str(t)): (t // 100, until) for low, high in old["ranges"] for t in range(low, high + 1)}
    return gone | {(set_id, t): (int(t) // 100, 2**62) for t in codesets.load(set_id).values}


# --- which rating counts, and where ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rating:
    """An accepted rating event as the fold needs it. Times are epoch ms UTC; ``score`` 1..5, 5 best."""

    event_id: UUID
    region: str
    department: str
    case_no: str
    service_no: int
    assess_no: int
    revision: int
    operation: str
    item_code: str
    channel: str
    score: int
    is_default: bool
    occurred_at: int
    received_at: int

    @classmethod
    def of(cls, event_id: UUID, record: Mapping[str, Any]) -> Rating:
        """From a record of service.rating.v1 that ``refusal`` accepts."""
        known = {name: record[name] for name in cls.__slots__ if name in record and name != "event_id"}
        return cls(event_id=event_id, score=score(record), channel=channel(record), **known)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """Where a rating is counted; ``rated_on`` is the day in Asia/Shanghai."""

    region: str
    department: str
    rated_on: date
    item_code: str
    channel: str
    score: int


@dataclass(frozen=True, slots=True)
class Count:
    """``n`` effective ratings, ``defaults`` of them default ones; ``events`` that could have moved the
    cell so far.
    """

    n: int = 0
    defaults: int = 0
    events: int = 0
    received_at: int = 0

    def __sub__(self, before: Count) -> Count:
        """What must be added to ``before``; ``received_at`` is a maximum and stays."""
        return Count(self.n - before.n, self.defaults - before.defaults, self.events - before.events, self.received_at)


def cell(rating: Rating) -> Cell:
    """The cell of a rating event."""
    r = rating
    return Cell(r.region, r.department, day_at(r.occurred_at), r.item_code, r.channel, r.score)


Assessment = tuple[str, str, int, int]
"""Region, department, visit and assessment of a case: what one publisher tells of one assessment, corrections included.
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether an assessment is ``out`` of what is counted: its case is void, or an appeal found it mistaken or
    malicious (§5.8). ``changes``: how often that changed; ``known_at``: when it became known, epoch ms.
    """

    out: bool = False
    changes: int = 0
    known_at: int = 0

    def turned(self, out: bool, known_at: int) -> Standing:
        """After one look: itself if nothing changed."""
        return self if out == self.out else Standing(out, self.changes + 1, known_at)


Standings = Mapping[Assessment, Standing]
COUNTS: Standings = {}
"""Of a case of which nothing was ever out."""


def assessment(rating: Rating) -> Assessment:
    """Which assessment of its case a rating is about."""
    return rating.region, rating.department, rating.service_no, rating.assess_no


def effective(visit: Iterable[Rating], standings: Standings = COUNTS) -> Rating | None:
    """The rating of one visit (region, case_no, service_no) that counts, or None.

    Of each assessment the highest revision speaks, an active one before a default one (§5.6.3); a withdrawal says that
    there is none, and one that is out is as good as none (§5.8). An active rating counts before a default one, a
    re-rating before the first (§5.6.2).
    """
    last: dict[int, Rating] = {}
    for rating in sorted(visit, key=_weight):
        last[rating.assess_no] = rating
    gone = {a for a, standing in standings.items() if standing.out}
    standing = [r for r in last.values() if r.operation != WITHDRAWAL and assessment(r) not in gone]
    return max(standing, key=lambda r: (not r.is_default, r.assess_no), default=None)


def _weight(rating: Rating) -> tuple[bool, int, int, str]:
    """Later in this order speaks louder. Time and id only part what two departments numbered alike."""
    return (not rating.is_default, rating.revision, rating.occurred_at, str(rating.event_id))


def cells(visit: Sequence[Rating], standings: Standings = COUNTS) -> dict[Cell, Count]:
    """What one visit adds to the cells. Every event of the visit, and every change of what is out of it, counts as an
    event in each of its cells.

    So a cell's number of events grows whenever its ``n`` may have changed: it can serve as the revision.
    """
    counting = effective(visit, standings)
    known = max((r.received_at for r in visit), default=0)
    events = len(visit) + sum(standings[a].changes for a in {assessment(r) for r in visit} & standings.keys())
    added = {cell(r): Count(0, 0, events, known) for r in visit}
    if counting:
        added[cell(counting)] = Count(1, int(counting.is_default), events, known)
    return added


def loudest(ratings: Iterable[Rating]) -> Rating:
    """Of the ratings of one assessment the one that speaks."""
    return max(ratings, key=_weight)


# --- bad ratings ----------------------------------------------------------------------------------


def bad_scores() -> tuple[int, ...]:
    """The scores that make a rating a bad one (§5.2)."""
    return tuple(data("tally")["bad_rating"]["scores"])


def is_bad(rating: Rating) -> bool:
    """A citizen's own rating of score 1 or 2 that is not a withdrawal (§5.2); default ratings are nobody's
    word.
    """
    return rating.operation != WITHDRAWAL and not rating.is_default and rating.score in bad_scores()


def told_of(old: Sequence[Rating], new: Sequence[Rating]) -> Iterator[Rating]:
    """The ratings of a visit of which the ``new`` ones make something be said: bad ones, and what took one away, which
    is the same publisher's later word on the assessment.
    """
    yield from filter(is_bad, new)
    fresh = set(new)
    first: dict[Assessment, int] = {}
    known: dict[Assessment, int] = {}
    """The lowest revision of a bad rating of each assessment: of all, and of those that are not new."""
    for bad in filter(is_bad, (*old, *new)):
        for lowest in (first,) if bad in fresh else (first, known):
            lowest[assessment(bad)] = min(bad.revision, lowest.get(assessment(bad), bad.revision))
    for later in (*old, *new):
        about, revision = assessment(later), later.revision
        takes_away = first.get(about, revision) < revision and not later.is_default and not is_bad(later)
        if takes_away and (later in fresh or known.get(about, revision) >= revision):
            yield later


MATTER = ("region", "case_no", "service_no", "department", "assess_no")
"""What a publisher tells of one assessment, corrections included: one alert, so that a correction that leaves a bad
rating bad begins no deadline anew (§5.7).
"""


def alert_id(rating: Rating) -> UUID:
    """Id of the alert about the rating; the same for its corrections."""
    return derived_id("BAD_RATING", *(getattr(rating, name) for name in MATTER))


def named(record: Mapping[str, Any]) -> bool:
    """Whether a record of service.rating.v1 says who gave the rating (实名)."""
    return bool(record["rater_name"].strip()) and not record["anonymous"] and not record["is_default"]


def named_ones() -> pl.Expr:
    """``named`` by column."""
    return (pl.col("rater_name").str.strip_chars() != "") & ~pl.col("anonymous") & ~pl.col("is_default")


def alert(bad: Rating, by_name: bool) -> dict[str, Any]:
    """Record of oversight.alert.v1 (without its event id) that says that ``bad`` came in, ``by_name`` or not; a
    function of its event alone.
    """
    department, level, rule = _department(bad.department), _level_names()[str(bad.score)], data("tally")["bad_rating"]
    by = rule["named"] if by_name else ""
    text = rule["issued"].format(department=department, case_no=bad.case_no, level=level, named=by)
    return {
        **_about(bad),
        "occurred_at": bad.occurred_at,
        "received_at": bad.received_at,
        "event_type": "alert.issued",
        "alert_seq": 1 + bad.revision,
        "summary": text,
        "revoked_reason_code": "",
        "evidence": [str(bad.event_id)],
        "named": by_name,
    }


def alerts(ratings: pl.DataFrame) -> pl.DataFrame:
    """``alert`` by column, for the bad ones of ``ratings`` (accepted)."""
    bad, said = _alerts()
    return ratings.filter(bad).select(said)


@lru_cache(maxsize=1)  # to build them takes longer than to reckon them
def _alerts() -> tuple[pl.Expr, Sequence[pl.Expr]]:
    """Which ratings are bad, and the columns of their alerts."""
    rule = data("tally")["bad_rating"]
    text = _filled(
        rule["issued"],
        department=pl.col("department").replace_strict(_department_names(), return_dtype=pl.String),
        case_no=pl.col("case_no"),
        level=pl.col("score").cast(pl.String).replace_strict(_level_names(), return_dtype=pl.String),
        named=pl.when(named_ones()).then(pl.lit(rule["named"])).otherwise(pl.lit("")),
    )
    made = {
        **{name: pl.lit(value) for name, value in _rule().items()},
        "issued_at": pl.col("received_at"),
        "event_type": pl.lit("alert.issued"),
        "alert_seq": 1 + pl.col("revision"),
        "revoked_reason_code": pl.lit(""),
        "summary": text,
        "evidence": pl.concat_list("event_id"),
        "named": named_ones(),
        "alert_id": derived_id_of([pl.lit("BAD_RATING"), *MATTER]),
    }
    same = ("region", "department", "occurred_at", "received_at", "case_no", "item_code")
    return _bad(), [*map(pl.col, same), *(expr.alias(name) for name, expr in made.items())]


def _bad() -> pl.Expr:
    """``is_bad`` by column."""
    bad = pl.col("score").is_in(data("tally")["bad_rating"]["scores"])
    return bad & (pl.col("operation") != WITHDRAWAL) & ~pl.col("is_default")


def _filled(template: str, **values: pl.Expr) -> pl.Expr:
    """``template.format(**values)`` by column."""
    parts = [(pl.lit(text), values.get(name or "", pl.lit(""))) for text, name, _, _ in Formatter().parse(template)]
    return pl.concat_str([part for pair in parts for part in pair])


@lru_cache(maxsize=1)
def _department_names() -> Mapping[str, str]:
    return {code: _department(code) for code in codesets.departments()}


@lru_cache(maxsize=1)
def _level_names() -> Mapping[str, str]:
    return {str(s): codesets.name("platform.satisfaction", str(s)) for s in data("tally")["bad_rating"]["scores"]}


def revocation(later: Rating) -> dict[str, Any]:
    """Record that says that ``later`` took a bad rating away; a function of its event alone."""
    rule = data("tally")["bad_rating"]
    reason, change = rule["revocation"][later.operation]
    text = rule["revoked"].format(department=_department(later.department), case_no=later.case_no, change=change)
    return {
        **_about(later),
        "occurred_at": later.occurred_at,
        "received_at": later.received_at,
        "event_type": "alert.revoked",
        "alert_seq": 1 + later.revision,
        "summary": text,
        "revoked_reason_code": reason,
        "evidence": [str(later.event_id)],
    }


def _about(rating: Rating) -> Mapping[str, Any]:
    """What every word about a bad rating says alike."""
    return {
        **_rule(),
        "alert_id": str(alert_id(rating)),
        "region": rating.region,
        "department": rating.department,
        "case_no": rating.case_no,
        "item_code": rating.item_code,
        "issued_at": rating.received_at,
    }


def _rule() -> Mapping[str, str]:
    rule = data("tally")["bad_rating"]
    return {
        "kind_code": "BAD_RATING",
        "colour_code": rule["colour"],
        "rule_id": rule["rule_id"],
        "rule_version": rule["rule_version"],
    }


def _department(code: str) -> str:
    return codesets.name(codesets.DEPARTMENTS, code)
