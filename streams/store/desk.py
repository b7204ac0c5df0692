"""The supervisor's desk in the database: which cases' alerts must be looked at, what became of them, what is said.

Alerts are what ``alert_inbox`` holds of ``oversight.alert.v1``, acts what ``handling_event`` holds of
``oversight.handling.v1``; the rule is ``streams.rules.life``. Whoever adds to either, or finds the case void, marks it
in the same transaction; a tick takes marked and due cases. Reads no clock: the horizon is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
import structlog
from kafka.partitioner.default import murmur2

from schemas import codec
from schemas.topics import ALERT, HANDLING
from streams.rules import life, words
from streams.rules.calendar import CalendarHistory
from streams.rules.cards import Alert
from streams.rules.claims import WITHDRAWAL
from streams.rules.life import Act, Desk, Life, Word
from streams.rules.state import Spoken, alert_of
from streams.rules.tally import bad_scores
from streams.store import bulk, references, sets, standing
from streams.store.failure import place
from streams.store.projection import Said
from streams.store.steps import say
from streams.store.tables import alert_inbox, alert_life, desk_check
from streams.store.unfit import together

log = structlog.get_logger(__name__)
CASE, DEPARTMENT = "CASE", "DEPARTMENT"
BLOCK = 500
"""Cases and departments' months that one call of ``tick`` looks at."""
RECENT = 10_000
"""The newest rows of the outbox, among which are those that were sent and not applied yet."""
UNKNOWN: Mapping[str, Any] = {"region": "", "department": "", "item_code": "", "rule_id": "", "named": None}
"""What ``alert_life`` repeats of an alert, for one that nobody issued."""
ABOUT = ("region", "department", "case_no", "item_code", "kind", "colour")
Place = Mapping[str, int]
Remembered = Mapping[str, Mapping[str, Any]]
"""Alert id -> what was last said of it, as ``desk_check.said`` holds it."""
Unfit = dict[tuple[str, str], Exception]
"""Scope and key of what the desk cannot look at, or not store, and why."""


def mark(tx: sa.Connection, scope: str, keys: Place) -> None:
    """Have these cases, or months of departments (``life.month_of``), looked at again at once: key -> partition of
    ``oversight.handling.v1``.
    """
    if keys:
        order = sorted(keys)
        values = {"scope": scope, "keys": order, "partitions": [keys[k] for k in order]}
        tx.execute(_MARK, values)


def begin(tx: sa.Connection, said: Iterable[tuple[Any, str, Any]]) -> None:
    """Date bad ratings by the ratings themselves: an alert begins with the first of those that are bad without one
    between that was not (DOMAIN §5.7), in whatever order its words came. ``said``: alert, case, the word's rating.
    """
    columns = list(zip(*said, strict=True))
    if columns:
        alerts, cases, ratings = map(list, columns)
        values = {"alerts": alerts, "cases": cases, "ratings": ratings, "bad": list(bad_scores()), "gone": WITHDRAWAL}
        tx.execute(_BEGUN, values)


def partition_of(case_no: str) -> int:
    """Where the acts about the case travel: Kafka's own partitioner, as every producer of the bus has it."""
    return int(murmur2(case_no.encode()) & 0x7FFFFFFF) % HANDLING.partitions


def mark_all(tx: sa.Connection) -> None:
    """Have everything looked at again: a calendar changed."""
    tx.execute(sa.text("UPDATE desk_check SET next_check_at = 0 WHERE next_check_at IS DISTINCT FROM 0"))


def due(tx: sa.Connection, until: int) -> set[int]:
    """The partitions in which anything is due up to ``until`` (epoch ms)."""
    return set(tx.execute(_PARTITIONS_DUE, {"until": until, "partitions": HANDLING.partitions}).scalars())


class DeskReader:
    """Looks at cases and departments; keeps parsed calendars between calls. Not thread-safe."""

    def __init__(self) -> None:
        self._references = references.ReferenceReader()

    def tick(self, tx: sa.Connection, partition: int, horizon: int) -> bool:
        """Look at what is due in ``partition`` up to ``horizon`` (epoch ms), a block of it; True if more is left."""
        epochs = references.held(tx)
        asked = {"partition": partition, "horizon": horizon, "topic": HANDLING.name, "block": BLOCK}
        taken = tx.execute(_DUE, asked).all()
        calendars = self._references.read(tx, epochs, ()).calendars
        unfit: Unfit = {}

        def look(some: Sequence[sa.Row[Any]]) -> None:
            unfit.update(_look(tx, some, calendars, horizon, partition))

        unwritten = together(tx, look, taken)
        _let_be(tx, unfit | {(row.scope, row.key): error for row, error in unwritten})
        return len(taken) == BLOCK


def _look(
    tx: sa.Connection, taken: Sequence[sa.Row[Any]], calendars: CalendarHistory, horizon: int, partition: int
) -> Unfit:
    """Look at these keys, and write what came of it; those at which the rule fails are left as they are, and named."""
    written = _Written()
    if cases := {r.key: r.said for r in taken if r.scope == CASE}:
        _look_at_cases(tx, cases, calendars, horizon, partition, written)
    for row in taken:
        if row.scope == DEPARTMENT:
            _look_at_department(tx, row.key, row.said, horizon, partition, written)
    written.write(tx)
    return written.unfit


def _let_be(tx: sa.Connection, unfit: Unfit) -> None:
    """Nothing of these keys changes, and they hold up no other (docs/decisions/0015)."""
    for (scope, key), error in unfit.items():
        log.error("a rule failed at the desk; the key waits for news", scope=scope, key=key, where=place(error))
        tx.execute(_LET_BE, {"scope": scope, "key": key})


def tried(tx: sa.Connection, alert: Mapping[str, Any], act: Act) -> tuple[str, tuple[str, ...]]:
    """Why an act that is not published yet would have no effect on ``alert`` (its row in ``alert_inbox``) by all acts
    that are applied or on their way (govbus.handling-fault), and what its department may do now. Of one that would have
    an effect, or is published, nothing: sameness is the outbox's to judge.
    """
    asked = {"topic": HANDLING.name, "key": alert["case_no"], "recent": RECENT}
    coming = [Act.of(codec.decode(bytes(v), HANDLING)) for v in tx.execute(_COMING, asked).scalars()]
    done = [*_acts(tx, [alert["case_no"]]).get(alert["case_no"], ()), *coming]
    acts = {a.event_id: a for a in done if a.alert_id == act.alert_id}
    if act.event_id in acts:
        return "", ()
    word, others = _word({**alert, "alert_id": act.alert_id}), list(acts.values())
    calendar = CalendarHistory(references.publications(tx)).known_at(act.known_at, alert["region"])
    fault = life.fault(word, others, act, calendar)
    return fault, life.may_follow(word, others, act, calendar) if fault else ()


class _Written:
    """What is to be written of the keys looked at, gathered key by key; ``unfit``: those at which the rule fails."""

    def __init__(self) -> None:
        self.unfit: Unfit = {}
        self._checks: list[dict[str, Any]] = []
        self._saids: list[Said] = []

    def add(
        self, scope: str, key: str, partition: int, nearest: int | None, before: Remembered,
        statements: Sequence[words.Statement], rows: Mapping[str, Mapping[str, Any]],
    ) -> None:  # fmt: skip
        """One key's statements; ``rows``: by alert id, the alerts that they are about."""
        said, saids = dict(before), []
        for statement in statements:
            alert = statement.alert
            row = _row_of(alert, rows)
            about = said[alert.alert_id]["about"] if row is None else _about(row, alert)
            saids.append(Said(ALERT, words.record(statement, about)))
            said[alert.alert_id] = {"seq": statement.seq, "action": statement.action, "content": words.content(alert),
                                    "alert": alert, "about": about}  # fmt: skip
        self._saids += saids
        self._checks.append(
            {"scope": scope, "key": key, "partition": partition, "next_check_at": nearest, "said": said}
        )

    def write(self, tx: sa.Connection) -> None:
        bulk.upsert(tx, desk_check, self._checks)
        say(tx, self._saids)


def _look_at_cases(
    tx: sa.Connection,
    cases: Mapping[str, Remembered],
    calendars: CalendarHistory,
    horizon: int,
    partition: int,
    written: _Written,
) -> None:
    """An act that is applied is known, whatever the horizon: that says how far nothing else is to come, and falls back
    where something waits.
    """
    names = list(cases)
    rows, acts, reds, excluded = _alerts(tx, names), _acts(tx, names), _reds(tx, names), _excluded(tx, names)
    stood: dict[str, int] = {row.case_no: row.at for row in tx.execute(_STOOD, {"cases": names})}
    void = {case_no: noted.known_at for case_no, noted in standing.noted(tx, names).items() if noted.out}
    lived: dict[str, list[dict[str, Any]]] = {}
    for case_no, before in cases.items():
        own, done = rows.get(case_no, {}), acts.get(case_no, [])
        told = [_word(r, void.get(case_no)) for r in own.values() if r["action"] != "RETRACTED"]
        region = next((r["region"] for r in own.values()), "")
        until = max((horizon, *(act.known_at for act in done)))
        try:
            found = life.desk(told, done, calendars, region, until)
            lives = list(_life_rows(case_no, found, own, done))
            statements = words.differences(_spoken(before), found.alerts, until, _astray(before, found.alerts, own))
            written.add(CASE, case_no, partition, found.next_check_at, before, statements, own)
        except Exception as error:
            written.unfit[CASE, case_no] = error
        else:
            if max((stood.get(case_no, 0), *(since for since, _ in excluded.get(case_no, ())))) <= until:
                lived[case_no] = lives  # else this horizon has not come to what is stored
    sets.replace(tx, alert_life, "case_no", list(lived), [row for lives in lived.values() for row in lives])
    months = {life.month_of(d, issued) for d, issued, _, _ in reds ^ _reds(tx, names)}
    mark(tx, DEPARTMENT, dict.fromkeys(months, partition))
    now = _excluded(tx, names)
    standing.look(tx, {case_no for case_no in names if excluded.get(case_no) != now.get(case_no)})


def _look_at_department(
    tx: sa.Connection, key: str, before: Remembered, horizon: int, partition: int, written: _Written
) -> None:
    department, _, month = key.partition("/")
    rows: dict[str, dict[str, Any]] = {}
    if month:
        asked = {"department": department, "month": f"{month}-01"}
        rows = {r["alert_id"]: dict(r) for r in tx.execute(_REDS_OF, asked).mappings()}
    else:  # marked by a consumer from before migration 0007: it meant all of the department's months
        issued = tx.execute(_RED_ISSUED, {"department": department}).scalars()
        mark(tx, DEPARTMENT, dict.fromkeys((life.month_of(department, at) for at in issued), partition))
    try:
        nearest, statements = _escalated(key, before, rows, horizon)
        written.add(DEPARTMENT, key, partition, nearest, before, statements, rows)
    except Exception as error:
        written.unfit[DEPARTMENT, key] = error


def _escalated(
    key: str, before: Remembered, rows: Mapping[str, Mapping[str, Any]], horizon: int
) -> tuple[int | None, Sequence[words.Statement]]:
    """When to look at a department's month again, and what is to be said of it."""
    lives = [Life(_word(r), r["stage"], out_at=r["out_at"]) for r in rows.values()]
    alerts = life.escalated(DEPARTMENT, key, lives, horizon)
    ahead = [t for one in lives for t in (one.word.issued_at, one.out_at) if t is not None and t > horizon]
    return min(ahead, default=None), words.differences(_spoken(before), alerts, horizon)


def _alerts(tx: sa.Connection, cases: list[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """Case -> alert id -> the row of the alert's last word."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for row in tx.execute(_ALERTS, {"cases": cases}).mappings():
        found.setdefault(row["case_no"], {})[str(row["alert_id"])] = {**row, "alert_id": str(row["alert_id"])}
    return found


def _acts(tx: sa.Connection, cases: list[str]) -> dict[str, list[Act]]:
    acts: dict[str, list[Act]] = {}
    query = sa.text("SELECT case_no, body FROM handling_event WHERE case_no = ANY(:cases) ORDER BY event_id")
    for case_no, body in tx.execute(query, {"cases": cases}):
        acts.setdefault(case_no, []).append(Act.of(body))
    return acts


def _reds(tx: sa.Connection, cases: list[str]) -> set[tuple[str, int, str, int | None]]:
    """(department, issued when, alert id, out of the statistics when) of the cases' red cards, as they are stored."""
    return {(d, issued, a, out) for d, issued, a, out in tx.execute(_REDS, {"cases": cases})}


def _excluded(tx: sa.Connection, cases: list[str]) -> dict[str, list[tuple[int, str]]]:
    """By case, its bad ratings that an appeal excluded, as stored: since when (epoch ms), and the alert's id."""
    found: dict[str, list[tuple[int, str]]] = {}
    for row in standing.excluded(tx, cases):
        found.setdefault(row.case_no, []).append((row.out_at, row.alert_id))
    return found


def _row_of(alert: Alert, rows: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The row of the alert that this one is about, if it is among ``rows``."""
    return rows.get(alert.evidence[-1 if alert.kind == life.ESCALATION else 0])


def _about(row: Mapping[str, Any], alert: Alert) -> dict[str, Any]:
    """What ``alert`` repeats of the one that it is about; it is for who did what it finds wrong, who decides, or who
    answered when it was issued.
    """
    former = (department for until, department in row.get("former", ()) if alert.issued_at < until)
    doer = next((department for _, department in alert.answering), "")
    department = doer or life.addressee(alert.rule_id, row["department"]) or next(former, row["department"])
    return {**{name: row[name] for name in ABOUT}, "department": department}


def _astray(before: Remembered, alerts: Iterable[Alert], rows: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """The alerts that stand and were told to another department than they are for: who answered became known late."""
    found = set()
    for alert in alerts:
        said, row = before.get(alert.alert_id), _row_of(alert, rows)
        if said is None or said["action"] != "ISSUED" or row is None:
            continue
        if _about(row, alert)["department"] != said["about"]["department"]:
            found.add(alert.alert_id)
    return found


def _word(row: Mapping[str, Any], void_at: int | None = None) -> Word:
    """The last word of an alert. A bad rating of a case that is void since ``void_at`` counts no more
    (docs/decisions/0016), though nobody takes back what the citizen said.
    """
    revoked_at, reason = (row["known_at"], row["reason"]) if row.get("action") == "REVOKED" else (None, "")
    if revoked_at is None and void_at is not None and row["kind"] == "BAD_RATING":
        revoked_at, reason = max(void_at, row["issued_at"]), "case_voided"
    return Word(
        row["alert_id"],
        row["kind"],
        row["colour"],
        row["case_no"],
        row["department"],
        row["issued_at"],
        revoked_at,
        reason,
        row.get("given_at"),
        tuple((until, department) for until, department in row.get("former", ())),
    )


def _life_rows(
    case_no: str, found: Desk, own: Mapping[str, Mapping[str, Any]], acts: Sequence[Act]
) -> Iterable[dict[str, Any]]:
    """A row for each alert, and one for each that acts speak of and nobody issued."""
    for one in found.lives:
        row = own[one.word.alert_id]
        yield _life_row(one, case_no, row)
    known = {one.word.alert_id for one in found.lives}
    strays: dict[str, list[Act]] = {}
    for act in acts:
        if act.alert_id not in known:
            strays.setdefault(act.alert_id, []).append(act)
    for alert_id, told in sorted(strays.items()):
        steps = tuple(life.Step(a, life.UNKNOWN) for a in told)
        lost = Life(Word(alert_id, "", "", case_no, "", 0), life.UNKNOWN, steps)
        yield _life_row(lost, case_no, {**UNKNOWN, "department": told[0].department}) | {"issued_at": None}


def _life_row(one: Life, case_no: str, alert: Mapping[str, Any]) -> dict[str, Any]:
    running = one.next_run
    verified, level, closed = one.last("verified"), one.last("supervised"), one.last("closed")
    first = {r.timer.name: r for r in reversed(one.runs)}
    return {
        "alert_id": one.word.alert_id,
        "case_no": case_no,
        **{name: alert[name] for name in UNKNOWN},
        "kind": one.word.kind,
        "colour": one.word.colour,
        "stage": one.stage,
        "issued_at": one.word.issued_at,
        "out_at": one.out_at,
        "out_reason": one.out_reason,
        **{f"{name}_at": one.first(name) for name in ("signed", "contacted", "rectified", "called_back", "closed")},
        "verified": "" if verified is None else verified.verified,
        "level": "" if level is None else level.level or "ORDINARY",
        "closing": "" if closed is None else closed.closing or "CLOSED_OUT",
        "dues": {name: run.due_at for name, run in first.items() if not run.provisional},
        "next_timer": "" if running is None else running.timer.name,
        "next_due_at": None if running is None else running.due_at,
        "steps": [[s.act.event_id, s.act.type, s.act.occurred_at, s.stage, s.fault] for s in one.steps],
    }


def _spoken(said: Remembered) -> dict[str, Spoken]:
    return {k: Spoken(s["seq"], s["action"], s["content"], alert_of(s["alert"])) for k, s in said.items()}


_ALERTS = sa.select(alert_inbox).where(bulk.any_of(alert_inbox.c.case_no, "cases")).order_by(alert_inbox.c.alert_id)
_BEGUN = sa.text(
    """
WITH told AS (
    SELECT DISTINCT t.alert_id, r.revision, r.received_at, r.occurred_at,
        r.score = ANY(:bad) AND r.operation <> :gone AS bad
    FROM unnest(CAST(:alerts AS uuid[]), CAST(:cases AS text[]), CAST(:ratings AS uuid[]))
        AS t(alert_id, case_no, event_id)
    JOIN rating_event e USING (case_no, event_id)
    JOIN rating_event r USING (case_no, region, service_no, department, assess_no) WHERE NOT r.is_default),
good AS (
    SELECT alert_id, max(revision) AS revision FROM told t WHERE NOT bad AND revision < (
        SELECT max(revision) FROM told b WHERE b.alert_id = t.alert_id AND b.bad) GROUP BY 1),
begun AS (
    SELECT DISTINCT ON (t.alert_id) t.alert_id, t.received_at, t.occurred_at
    FROM told t LEFT JOIN good g USING (alert_id) WHERE t.bad AND t.revision > coalesce(g.revision, -1)
    ORDER BY t.alert_id, t.revision)
UPDATE alert_inbox i SET issued_at = b.received_at, given_at = b.occurred_at FROM begun b
WHERE i.alert_id = b.alert_id AND (i.issued_at, i.given_at) IS DISTINCT FROM (b.received_at, b.occurred_at)"""
)
_COMING = sa.text(  # unsent ones, and those that the worker has not applied yet
    "SELECT value FROM outbox WHERE topic = :topic AND key = :key "
    "AND (sent_at IS NULL OR seq > (SELECT max(seq) FROM outbox) - :recent)"
)
_MARK = sa.text(
    "INSERT INTO desk_check (scope, key, partition, next_check_at) "
    "SELECT :scope, k, p, 0 FROM unnest(CAST(:keys AS text[]), CAST(:partitions AS integer[])) AS n(k, p) ORDER BY k "
    "ON CONFLICT (scope, key) DO UPDATE SET next_check_at = 0"
)
_LET_BE = sa.text("UPDATE desk_check SET next_check_at = NULL WHERE scope = :scope AND key = :key")
_PARTITIONS_DUE = sa.text(  # a look into the index for each
    "SELECT p FROM generate_series(0, CAST(:partitions AS integer) - 1) AS p WHERE EXISTS "
    "(SELECT FROM desk_check WHERE partition = p AND next_check_at <= :until)"
)
_DUE = sa.text(
    "SELECT scope, key, said FROM desk_check d WHERE partition = :partition AND next_check_at <= :horizon "
    "AND NOT EXISTS (SELECT FROM outbox o WHERE o.topic = :topic AND o.key = d.key AND o.sent_at IS NULL) "
    "ORDER BY scope, key LIMIT :block FOR UPDATE"
)
_BEGIN = (
    "CAST(1000 * extract(epoch FROM (CAST(:month AS date) + interval '{} month') AT TIME ZONE 'Asia/Shanghai') "
    "AS bigint)"
)
_RED = "kind = 'CARD' AND colour IN ('RED', 'RED_STATUTORY')"
_REDS = sa.text(
    f"SELECT department, issued_at, alert_id, out_at FROM alert_life WHERE case_no = ANY(:cases) AND {_RED}"
)
_STOOD = sa.text(
    "SELECT case_no, max(issued_at) AS at FROM alert_life WHERE case_no = ANY(:cases) AND issued_at IS NOT NULL "
    "GROUP BY case_no"
)
_RED_ISSUED = sa.text(f"SELECT DISTINCT issued_at FROM alert_life WHERE department = :department AND {_RED}")
_REDS_OF = sa.text(
    f"SELECT alert_id, issued_at, stage, out_at, {', '.join(ABOUT)} FROM alert_life "
    f"WHERE department = :department AND {_RED} "
    f"AND issued_at >= {_BEGIN.format('0')} AND issued_at < {_BEGIN.format('1')}"
)
