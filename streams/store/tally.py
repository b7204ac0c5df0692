"""Ratings in the database: keeps each event once, folds cells, says alerts, uploads and rollups.

Decides how sets of ratings travel to SQL; what a rating is worth is decided in ``streams.rules.tally``. A chunk is
folded by column; few ratings, and visits with more than one event or a withdrawal, one by one
(``streams.store.tally_few``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
import polars as pl
import sqlalchemy as sa

from schemas import codesets
from schemas.clock import OFFSET_MS
from schemas.columns_out import derived_id_of
from schemas.errors import Fault
from schemas.topics import ALERT, RATING, ROLLUP, UPLOAD
from streams.rules import mask
from streams.rules import tally as rule
from streams.rules.calendar import DISTRICT_DIGITS
from streams.rules.claims import WITHDRAWAL
from streams.rules.claims import tags as claim_tags
from streams.rules.data import data
from streams.rules.tally import Rating, Standings
from streams.store import claims, frames, settling, standing, steps, tally_few
from streams.store.bulk import driver
from streams.store.projection import Carried, Refused
from streams.store.tables import rating_event
from streams.store.tally_few import Few, Visits

VISIT = ("region", "case_no", "service_no")
CELL = ("region", "department", "rated_on", "item_code", "channel", "score")
DAY = ("region", "department", "rated_on")
COUNTS = ("n", "defaults", "events", "received_at")
FOLDED = tally_few.FOLDED
STORED = tuple(c.name for c in rating_event.columns)
CELL_ORDER = ("rated_on", "department", "item_code", "channel", "score", "region")
"""The primary key of rating_cell_merged."""
MERGED_AT_ONCE = 500_000
"""Changes that one transaction merges: so many take some seconds, and all of them a key's order."""
TURNS = 9
"""While ratings come, each ``tidy`` merges every ninth department: all in five seconds, for a cell should have changed
some times to be worth its price; and a ninth at a time, for alerts wait behind it."""
FEW = 130
"""Ratings up to which one by one is quicker: a chunk by column takes twelve milliseconds in all, however small."""
DAYS_AT_ONCE, DAYS_AT_ONCE_QUIET = 8, 64
"""Departments' days that are said at once: few while ratings come, for alerts wait behind them; many if none came since
the last time, for it costs a tenth of a second however little is said."""


@dataclass(frozen=True, slots=True)
class Effects:
    """Everything that some new events write, ready to be sent."""

    events: frames.Rows
    changes: frames.Rows
    said: frames.Spoken
    claims: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A chunk without the database: ``first`` are the accepted ``ratings`` less repetitions among themselves,
    ``cases`` their case numbers as a text[] literal, ``effects`` those of ``first`` if no case is known (None: not
    worked out beforehand).
    """

    carried: Sequence[Carried]
    refused: list[Refused]
    ratings: pl.DataFrame
    first: pl.DataFrame
    watermarks: list[tuple[int, int]]
    cases: str
    effects: Effects | None


class TallyProjection:
    """The processor ``tally`` on ``service.rating.v1``. ``upload=False`` leaves out the province's single
    ratings.
    """

    name = settling.TALLY
    topic = RATING
    aside_s = 1.0  # rollups may wait; alerts must not wait for rollups

    def __init__(self, upload: bool = True) -> None:
        self._upload = upload
        self._more_to_merge = False  # a hint: first all is merged, then every day is said once
        self._turn = 0
        self._last = Day(date.min, "", "")
        self._quiet = True  # a hint: nothing was applied since the last time
        self._news: bool | None = None  # what the last time settled may have left some; None: it settled nothing
        self._spoke = True  # a hint: the last time there was something to do

    def prepare(self, carried: Sequence[Carried]) -> Prepared | Few:
        """All that needs no database: decode, judge, fold and encode, as if nothing of it were known yet."""
        if len(carried) <= FEW:
            return tally_few.prepare(carried)
        read = frames.read(RATING, carried)
        judged = rule.judge(read.frame)
        first = _once_each(judged.accepted)
        return Prepared(
            carried=carried,
            refused=read.refused + _refused(judged, carried),
            ratings=judged.accepted,
            first=first,
            watermarks=_watermarks(judged.accepted),
            cases=_array(first["case_no"]),
            effects=_effects(first, first.clear(), self._upload, {}),
        )

    def apply(self, tx: sa.Connection, carried: Sequence[Carried]) -> None:
        """Fold ``carried`` (log order) into rating_event and rating_cell_change; say alerts and uploads."""
        self.apply_prepared(tx, self.prepare(carried))

    def apply_prepared(self, tx: sa.Connection, prepared: Prepared | Few) -> None:
        """``apply`` for what was prepared before; what the database knows already is found here.

        A repeated event changes nothing; one with a known id and other bytes is buried (conflict).
        """
        self._quiet = False
        if isinstance(prepared, Few):
            tally_few.apply(tx, prepared, self._upload)
            return
        steps.bury(tx, prepared.refused)
        steps.note_watermarks(tx, prepared.watermarks)
        out = standing.of_cases(tx, prepared.cases)
        old = _stored(tx, prepared.cases)
        new, effects = prepared.first, prepared.effects
        if not old.is_empty():
            new = prepared.first.join(old, on="event_id", how="anti", maintain_order="left")
        if out or not old.is_empty():
            effects = _effects(new, old, self._upload, out)
            standing.look(tx, out.keys() & set(new["case_no"]))
        if prepared.ratings.height > new.height:
            known = pl.concat([old.select("event_id", "digest"), new.select("event_id", "digest")])
            _bury_conflicts(tx, prepared.ratings, known, prepared.carried)
        if effects:
            _write(tx, effects)

    def speak(self, tx: sa.Connection) -> bool:
        """Settle what does not count, merge cells that changed, or say the rollups of some of the days they marked;
        True if more is left. Needs no clock: rollups follow events.

        What changes meanwhile waits for the next time (``aside_s``): said at once, every rollup of a busy day would be
        said many times a second. Days belong to no partition; it is asked beside the applying.
        """
        self._spoke = (self._spoke or _anything(tx)) and self._speak(tx)
        return self._spoke

    def _speak(self, tx: sa.Connection) -> bool:
        if self._news is None and (news := settling.settle(tx, self._upload)) is not None:
            self._news = news  # in turns with merging, which must neither hold the cursors nor wait for ever
            return True
        news, self._news = bool(self._news), None
        limit = DAYS_AT_ONCE_QUIET if self._quiet else DAYS_AT_ONCE
        self._quiet = True
        if not self._more_to_merge and self._say(tx, limit):
            more = _any_marked(tx)
            return claims.tell(tx) or more or news
        merged = _merge(tx)
        self._more_to_merge = merged == MERGED_AT_ONCE
        return claims.tell(tx) or merged > 0 or news

    def tidy(self, tx: sa.Connection) -> bool:
        """Merge the cells of some departments that changed, the next time those of others; after the last of them
        settle for once, then say. True if there was anything to do.
        """
        turn = self._turn
        if turn < TURNS:
            done = _merge(tx, _of_turn(turn)) > 0
        elif turn == TURNS:
            done = settling.settle(tx, self._upload) is not None
        else:
            said = self._say(tx, DAYS_AT_ONCE)
            done = claims.tell(tx) or said
        self._turn = (turn + 1) % (TURNS + 2)
        return done

    def _say(self, tx: sa.Connection, limit: int) -> bool:
        """Say the rollups of some marked days, those after the last ones first, so that each has its turn."""
        days = _take_days(tx, self._last, limit)
        if days:
            self._last = days[-1]
            _say_rollups(tx, days)
        return bool(days)


# --- keep what is new -----------------------------------------------------------------------------


def _refused(judged: rule.Judged, carried: Sequence[Carried]) -> list[Refused]:
    refused = []
    for row, fault in judged.refused.sort("row").iter_rows():
        event = steps.decode_row(carried[row])
        refused.append(Refused(carried[row], Fault(*rule.FAULTS[fault]), event))
    return refused


def _once_each(ratings: pl.DataFrame) -> pl.DataFrame:
    """The first of each event; nearly always all of them, which is quickly seen."""
    if ratings["event_id"].n_unique() == ratings.height:
        return ratings
    return ratings.unique("event_id", keep="first", maintain_order=True)


def _watermarks(ratings: pl.DataFrame) -> list[tuple[int, int]]:
    """The highest ``received_at`` of every partition."""
    partitions, received = ratings["partition"].to_numpy(), ratings["received_at"].to_numpy()
    return [(p, int(received[partitions == p].max())) for p in np.unique(partitions).tolist()]


def _array(texts: pl.Series) -> str:
    """The different ones of ``texts`` as a text[] literal of PostgreSQL (manual §8.15.2)."""
    if not len(texts):
        return "{}"
    quoted = pl.first().unique().str.replace_many(["\\", '"'], ["\\\\", '\\"']).str.join('","')
    return f'{{"{texts.to_frame().select(quoted).item()}"}}'


def _effects(new: pl.DataFrame, old: pl.DataFrame, upload: bool, out: Mapping[str, Standings]) -> Effects | None:
    """What the new events change, given the stored events of their cases and what of these does not count; None if
    there are none.
    """
    if new.is_empty():
        return None
    changes, amended = _folded(new, old, out)
    said = [(ALERT, _alerts(new, amended)), *([(UPLOAD, uploads(new))] if upload else [])]
    return Effects(
        events=frames.rows("rating_event", new.select(STORED).sort("case_no", "event_id")),
        changes=frames.rows("rating_cell_change", changes.select(*CELL, *COUNTS)),
        said=frames.spoken(said),
        claims=_claims(new),
    )


def _write(tx: sa.Connection, effects: Effects) -> None:
    frames.write(tx, effects.events)
    frames.write(tx, effects.changes)
    frames.put(tx, effects.said)
    claims.keep(tx, ((row["event_id"], row) for row in effects.claims))


def _claims(new: pl.DataFrame) -> list[dict[str, Any]]:
    """The rows of which ``streams.rules.claims.matters`` may hold: few of many."""
    return new.filter(_claiming()).select(CLAIMED).to_dicts()


@cache
def _claiming() -> pl.Expr:
    _, codes = claim_tags()
    return (pl.col("revision") > 0) | pl.col("tags").list.eval(pl.element().is_in(sorted(codes))).list.any()


CLAIMED = (
    "event_id", "case_no", "service_no", "assess_no", "revision", "operation", "tag_set", "tags", "received_at",
)  # fmt: skip


def _stored(tx: sa.Connection, cases: str) -> pl.DataFrame:
    """``tally_few.stored_rows`` as a frame."""
    rows = tally_few.stored_rows(tx, cases)
    plain = [(str(event_id), *rest, digest.hex) for event_id, *rest, digest in rows]
    return pl.DataFrame(plain, schema=_OLD, orient="row")


_OLD: dict[str, Any] = {
    "event_id": pl.String,
    "region": pl.String,
    "department": pl.String,
    "case_no": pl.String,
    "service_no": pl.Int32,
    "assess_no": pl.Int32,
    "revision": pl.Int32,
    "operation": pl.String,
    "item_code": pl.String,
    "channel": pl.String,
    "score": pl.Int16,
    "is_default": pl.Boolean,
    "occurred_at": pl.Int64,
    "received_at": pl.Int64,
    "digest": pl.String,
}


def _bury_conflicts(tx: sa.Connection, ratings: pl.DataFrame, known: pl.DataFrame, carried: Sequence[Carried]) -> None:
    odd = ratings.join(known, on="event_id", suffix="_known").filter(pl.col("digest") != pl.col("digest_known"))
    rows = odd["row"].sort().to_list()
    steps.bury(tx, [Refused(carried[row], steps.CONFLICT, steps.decode_row(carried[row])) for row in rows])


# --- fold -----------------------------------------------------------------------------------------


def _folded(new: pl.DataFrame, old: pl.DataFrame, out: Mapping[str, Standings]) -> tuple[pl.DataFrame, Visits]:
    """What must be added to the cells, one row a cell, and the visits that were folded one by one."""
    if old.is_empty() and not out and _each_alone(new):
        return _summed([_counts(new)]), {}
    alone = new.select((pl.len().over(VISIT) == 1) & (pl.col("operation") != WITHDRAWAL)).to_series()
    if not old.is_empty():
        known = old.select(VISIT).unique().with_columns(known=pl.lit(True))
        alone &= new.join(known, on=VISIT, how="left", maintain_order="left")["known"].is_null()
    if out:
        alone &= ~new["case_no"].is_in(list(out))
    amended = tally_few.visits(_ratings(old), _ratings(new.filter(~alone)))
    changes = pl.DataFrame(list(tally_few.changes(amended, out)), schema=_CHANGE)
    return _summed([_counts(new.filter(alone)), changes]), amended


def _each_alone(new: pl.DataFrame) -> bool:
    """Whether each rating is certainly its visit's only one, and counts; nearly always, which is quickly seen."""
    return new["case_no"].n_unique() == new.height and not (new["operation"] == WITHDRAWAL).any()


def _counts(alone: pl.DataFrame) -> pl.DataFrame:
    """What each of these adds to its cell."""
    one = pl.lit(1, pl.Int64)
    defaults = pl.col("is_default").cast(pl.Int64)
    return alone.select(*CELL, n=one, defaults=defaults, events=one, received_at="received_at")


def _ratings(frame: pl.DataFrame) -> Iterable[Rating]:
    for event_id, *rest in frame.select(FOLDED).iter_rows():
        yield Rating(UUID(event_id), *rest)


_CHANGE: dict[str, Any] = {
    "region": pl.String,
    "department": pl.String,
    "rated_on": pl.Date,
    "item_code": pl.String,
    "channel": pl.String,
    "score": pl.Int16,
    "n": pl.Int64,
    "defaults": pl.Int64,
    "events": pl.Int64,
    "received_at": pl.Int64,
}


def _summed(parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """One row a cell, in any order: they are appended, and merging brings them into the key's."""
    changes = pl.concat(parts) if len(parts) > 1 else parts[0]
    return changes.group_by(CELL).agg(pl.col("n", "defaults", "events").sum(), pl.col("received_at").max())


def _of_turn(turn: int) -> Mapping[str, Any]:
    """Whose changes ``tidy`` merges in this turn: those of every ninth department, in the first one also those of
    departments that are registered no more.
    """
    known = sorted(codesets.departments())
    if turn == 0:
        return {"departments": [code for i, code in enumerate(known) if i % TURNS], "others": True}
    return {"departments": known[turn::TURNS], "others": False}


ALL = {"departments": list[str](), "others": True}


def _merge(tx: sa.Connection, whose: Mapping[str, Any] = ALL) -> int:
    """Move changes, all of them or those of some departments, into rating_cell_merged and mark their days; how many.
    One worker at a time.

    Whoever reads the view rating_cell sees each change once: before, among the changes; after, in the sum.
    """
    tx.execute(MERGE_MEMORY)
    return int(tx.execute(_MERGE, {"limit": MERGED_AT_ONCE, "lock": MERGE_LOCK, **whose}).scalar_one())


MERGE_LOCK = 0x63656C6C  # "cell"
SAY_LOCK = 0x73756D73  # "sums"
MERGE_MEMORY = sa.text("SET LOCAL work_mem = '64MB'")
"""A hundred thousand changes are read thrice; beyond this they go to the disk."""


_MERGE = sa.text(
    f"""
WITH taken AS (
    DELETE FROM rating_cell_change WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM rating_cell_change WHERE pg_try_advisory_xact_lock(:lock)
            AND (department = ANY(CAST(:departments AS text[]))) <> :others LIMIT :limit))
    RETURNING *
), days AS (
    INSERT INTO rollup_dirty ({", ".join(DAY)}) SELECT DISTINCT {", ".join(DAY)} FROM taken
), sums AS MATERIALIZED (
    SELECT {", ".join(CELL)}, sum(n) AS n, sum(defaults) AS defaults, sum(events) AS events,
        max(received_at) AS received_at FROM taken GROUP BY {", ".join(CELL)}
), merged AS (
    INSERT INTO rating_cell_merged AS c ({", ".join((*CELL, *COUNTS))})
    SELECT {", ".join((*CELL, *COUNTS))} FROM sums ORDER BY {", ".join(CELL_ORDER)}
    ON CONFLICT ({", ".join(CELL_ORDER)}) DO UPDATE SET n = c.n + excluded.n,
        defaults = c.defaults + excluded.defaults, events = c.events + excluded.events,
        received_at = greatest(c.received_at, excluded.received_at)
)
SELECT count(*) FROM taken"""
)
"""Sums are made before they are put in order: there are ten times as many changes as cells."""


# --- bad ratings ----------------------------------------------------------------------------------


def _alerts(new: pl.DataFrame, amended: Visits) -> pl.DataFrame:
    """Records for oversight.alert.v1: new bad ratings by column, and what took one away in ``amended`` visits."""
    issued = rule.alerts(new)
    told = (rating for old, fresh in amended.values() for rating in rule.told_of(old, fresh))
    revoked = [rule.revocation(rating) for rating in told if not rule.is_bad(rating)]
    return pl.concat([issued, pl.DataFrame(revoked, schema=issued.schema)]) if revoked else issued


# --- uploads --------------------------------------------------------------------------------------


def uploads(ratings: pl.DataFrame) -> pl.DataFrame:
    """``tally_few.upload`` by column, for accepted ratings."""
    return ratings.select(
        "region",
        "department",
        "occurred_at",
        "occurred_text",
        "entered_at",
        "received_at",
        event_type=pl.lit("rating.uploaded"),
        rating_id=derived_id_of([pl.lit("rating"), *VISIT, "assess_no"]),
        source_event_id="event_id",
        project_no="case_no",
        service_number="service_no",
        assess_number="assess_no",
        revision="revision",
        operation="operation",
        satisfaction_code=pl.col("score").cast(pl.String),
        pf_code=pl.col("channel").replace_strict(tally_few.pf(), return_dtype=pl.String),
        eval_detail=pl.col("tags").list.join(","),
        writing_evaluation=pl.lit(_masked_texts(ratings)),
        assess_time="occurred_at",
        area_code="region",
        dept_code=pl.col("department").replace_strict({c: d.uscc for c, d in codesets.departments().items()}),
        task_code="item_code",
        is_default="is_default",
        effective=pl.col("operation") != WITHDRAWAL,
        user_name=pl.when(rule.named_ones()).then(pl.lit(_masked_names(ratings))).otherwise(pl.lit("")),
    )


def _masked_texts(ratings: pl.DataFrame) -> pl.Series:
    texts = ratings.select("comment", "rater_name").iter_rows()
    return pl.Series([mask.free_text(comment, (name,)) if comment else "" for comment, name in texts], dtype=pl.String)


def _masked_names(ratings: pl.DataFrame) -> pl.Series:
    return pl.Series([mask.name(n) if n else "" for n in ratings["rater_name"].to_list()], dtype=pl.String)


# --- rollups --------------------------------------------------------------------------------------


class Day(NamedTuple):
    """What a department was rated on one day (Asia/Shanghai)."""

    rated_on: date
    department: str
    region: str


def _take_days(tx: sa.Connection, after: Day, limit: int) -> list[Day]:
    """Some marked days, no longer marked, date by date: a date's total is then summed up for all its departments. They
    begin behind ``after`` and go round. None while another worker says some: two that read their sums at different
    moments could say a scope's newer figures before its older ones, and the older would stand on the topic.
    """
    taken = [Day(*row) for row in tx.execute(_TAKE, {**after._asdict(), "limit": limit, "lock": SAY_LOCK})]
    return [*sorted(day for day in taken if day > after), *sorted(day for day in taken if day <= after)]


_TAKE = sa.text(
    """
WITH marked AS (
    SELECT DISTINCT rated_on, department, region FROM rollup_dirty WHERE (SELECT pg_try_advisory_xact_lock(:lock))
), days AS (
    SELECT * FROM marked
    ORDER BY (rated_on, department, region) <= (CAST(:rated_on AS date), :department, :region),
        rated_on, department, region LIMIT :limit
), gone AS (
    DELETE FROM rollup_dirty WHERE ctid IN (
        SELECT d.ctid FROM rollup_dirty AS d JOIN days USING (rated_on, department, region)
        FOR UPDATE OF d SKIP LOCKED)
    RETURNING rated_on, department, region
) SELECT DISTINCT rated_on, department, region FROM gone"""
)


def _anything(tx: sa.Connection) -> bool:
    """Whether anything is to be settled, merged, said or told: one look instead of five, for a worker that is idle."""
    return bool(tx.execute(_ANYTHING).scalar_one())


_ANYTHING = sa.text(
    "SELECT EXISTS (SELECT FROM rating_out_news) OR EXISTS (SELECT FROM rollup_dirty) "
    "OR EXISTS (SELECT FROM rating_cell_change) OR EXISTS (SELECT FROM rating_claim_news)"
)


def _any_marked(tx: sa.Connection) -> bool:
    query = "SELECT true FROM rollup_dirty LIMIT 1 FOR UPDATE SKIP LOCKED"
    return bool(tx.execute(sa.text(query)).scalar_one_or_none())


_SUMS = """{}
coalesce(sum(n), 0)::bigint AS total, sum(defaults)::bigint AS defaults,
sum(events)::bigint AS revision, max(received_at) AS received_at FROM rating_cell_merged
JOIN unnest(%s::date[], %s::text[], %s::text[]) AS wanted(day, office, place)
ON (rated_on, department) = (day, office)""".format(
    "".join(f"coalesce(sum(n) FILTER (WHERE score = {s}), 0)::bigint AS n{s}, " for s in range(1, 6))
)
_OF_DEPARTMENTS = (
    "SELECT region, department, rated_on, coalesce(item_code, ''), coalesce(channel, ''), "
    f"grouping(item_code), {_SUMS} AND region = place GROUP BY GROUPING SETS "
    "((region, department, rated_on, item_code, channel), (region, department, rated_on))"
)
_OF_DISTRICTS = (
    f"SELECT place, '', rated_on, '', '', 2, {_SUMS} "
    f"AND left(region, {DISTRICT_DIGITS}) = place GROUP BY place, rated_on"
)
_KINDS = ("CELL", "DEPARTMENT", "DISTRICT")
_ROLLUP: dict[str, Any] = {
    "region": pl.String,
    "department": pl.String,
    "rated_on": pl.Date,
    "item_code": pl.String,
    "channel_code": pl.String,
    "kind": pl.Int32,
    "n1": pl.Int64,
    "n2": pl.Int64,
    "n3": pl.Int64,
    "n4": pl.Int64,
    "n5": pl.Int64,
    "total": pl.Int64,
    "defaults": pl.Int64,
    "revision": pl.Int64,
    "received_at": pl.Int64,
}


def _say_rollups(tx: sa.Connection, days: Sequence[Day]) -> None:
    """Say the scopes of these days that grew since they were last said: cells, departments, districts."""
    scopes = _records(
        pl.concat([_sums(tx, _OF_DEPARTMENTS, days), _sums(tx, _OF_DISTRICTS, _of_all_departments(days))])
    )
    said = _said(tx, scopes["scope"].to_list())
    grown = scopes.join(said, on="scope", how="left", maintain_order="left").filter(
        pl.col("said").is_null() | (pl.col("said") < pl.col("revision"))
    )
    frames.put(tx, frames.spoken([(ROLLUP, grown.drop("said"))]))
    _remember(tx, grown)


def _of_all_departments(days: Sequence[Day]) -> list[Day]:
    """The days of all departments of the districts; what a township's department was rated is the district's too."""
    of_districts = sorted({(day.rated_on, day.region[:DISTRICT_DIGITS]) for day in days})
    return [Day(on, code, region) for on, region in of_districts for code in codesets.departments()]


def _sums(tx: sa.Connection, query: str, days: Sequence[Day]) -> pl.DataFrame:
    with driver(tx).cursor() as cursor:
        cursor.execute(query.encode(), [list(c) for c in zip(*days, strict=True)])
        return pl.DataFrame(cursor.fetchall(), schema=_ROLLUP, orient="row")


def _records(sums: pl.DataFrame) -> pl.DataFrame:
    """Records of rating.rollup.v1; ``occurred_at`` is the midnight (Asia/Shanghai) that begins the day."""
    midnight = pl.col("rated_on").cast(pl.Datetime("ms")).dt.timestamp("ms") - OFFSET_MS
    return sums.with_columns(
        event_type=pl.lit("rollup.revised"),
        occurred_at=midnight.clip(lower_bound=0),
        scope=pl.concat_str(
            ["region", "department", "item_code", "channel_code", pl.col("rated_on").cast(pl.String)],
            separator="/",
        ),
        scope_kind_code=pl.col("kind").replace_strict(dict(enumerate(_KINDS)), return_dtype=pl.String),
        channel_set=pl.when(pl.col("channel_code") == "").then(pl.lit("")).otherwise(pl.lit("govbus.channel")),
        good=pl.col("n3") + pl.col("n4") + pl.col("n5"),
        bad=pl.col("n1") + pl.col("n2"),
        department=pl.when(pl.col("department") == "")
        .then(pl.lit(data("tally")["rollup"]["district_department"]))
        .otherwise("department"),
    )


def _said(tx: sa.Connection, scopes: list[str]) -> pl.DataFrame:
    query = sa.text("SELECT scope, revision FROM rollup_emitted WHERE scope = ANY(:scopes)")
    rows = [tuple(r) for r in tx.execute(query, {"scopes": scopes})]
    return pl.DataFrame(rows, schema={"scope": pl.String, "said": pl.Int64}, orient="row")


def _remember(tx: sa.Connection, grown: pl.DataFrame) -> None:
    marks = grown.select("scope", "revision").sort("scope")
    with driver(tx).cursor() as cursor:
        cursor.execute(
            b"INSERT INTO rollup_emitted AS e (scope, revision) SELECT * "
            b"FROM unnest(%s::text[], %s::bigint[]) "
            b"ON CONFLICT (scope) DO UPDATE SET revision = greatest(e.revision, excluded.revision)",
            [marks["scope"].to_list(), marks["revision"].to_list()],
        )
