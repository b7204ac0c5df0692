"""What the oracle asks beyond ids: whether a row, a receipt and a record at the province hold what was said.

Knows the words by their contracts and the province's names from DOMAIN §5.5 alone; imports nothing of ``streams``,
``connectors`` or ``consumers``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import sqlalchemy as sa

from schemas import codec
from schemas.envelope import digest as digest_of
from schemas.topics import ROLLUP, UPLOAD, Topic

Record = Mapping[str, Any]
SHANGHAI = timezone(timedelta(hours=8))
ACTIONS = {"alert.issued": "ISSUED", "alert.revoked": "REVOKED", "alert.retracted": "RETRACTED"}
INBOX_SQL = """SELECT alert_id::text, alert_seq, action, region, department, case_no, kind, colour, summary, item_code,
                      rule_id, due_at, known_at, reason, evidence FROM alert_inbox"""
INBOX = ("region", "department", "case_no", "kind_code", "colour_code", "summary", "item_code", "rule_id", "due_at",
         "received_at", "revoked_reason_code", "evidence")  # fmt: skip
VIEW_SQL = """SELECT resource_code, entry_version, region, department, title, summary, share_type, body
              FROM (SELECT *, body ->> 'region' AS region FROM directory_view) AS view"""
VIEW = ("region", "department", "title", "summary", "share_type_code")
DEAD_SQL = "SELECT dead_id::text, topic, reason, field, department FROM dead_letter"
DEAD = ("original_topic", "reason_code", "field", "department")
OUT_SQL = """SELECT concat_ws('/', case_no, department, service_no, assess_no), "out" FROM rating_out
             WHERE department <> ''"""
CELLS_SQL = """SELECT region, department, item_code, channel, rated_on::text, score, sum(n)::bigint,
                      sum(defaults)::bigint
               FROM rating_cell GROUP BY region, department, item_code, channel, rated_on, score"""
COUNTS = ("n1", "n2", "n3", "n4", "n5", "total", "defaults")
RECEIVED_SQL = "SELECT event_id::text, digest, kind, region, department, body FROM province_record"
STANDS = {"project_no": "projectNo", "service_number": "serviceNumber", "assess_number": "assessNumber",
          "revision": "revision", "effective": "effectivEvalua"}  # fmt: skip
RATED = {**STANDS, "operation": "operation", "satisfaction_code": "satisfaction", "pf_code": "pf",
         "eval_detail": "evalDetail", "writing_evaluation": "writingEvaluation", "assess_time": "assessTime",
         "area_code": "areaCode", "dept_code": "deptCode", "task_code": "taskCode", "is_default": "isDefault",
         "user_name": "userName"}  # fmt: skip
ROLLED = {"scope": "scope", "scope_kind_code": "scopeKind", "item_code": "taskCode", "channel_code": "pf",
          "rated_on": "ratedOn", "revision": "revision", "good": "good", "bad": "bad",
          **{name: name for name in COUNTS}}  # fmt: skip
"""The contract's field -> the province's, of what is said of a rating's standing, of a rating, of a rollup."""
PF = {"PC": "1", "MOBILE": "2", "QR": "3", "TABLET": "4", "HALL": "5", "PHONE": "6", "SMS": "7", "WINDOW": "5"}
"""The platform's code of a channel (DOMAIN §5.3), "" where it has none."""
MANY = 5_000


def rows(engine: sa.Engine, query: str) -> Iterator[Any]:
    """The rows of ``query``, some at a time."""
    with engine.connect().execution_options(yield_per=MANY) as tx:
        yield from tx.execute(sa.text(query))


def words(values: Iterable[tuple[str, bytes]], topic: Topic) -> Iterator[Record]:
    """The records of ``topic`` among (topic, value)."""
    return (codec.decode(value, topic) for name, value in values if name == topic.name)


# --- the desk, the directory, dead letters ---


def desk(engine: sa.Engine, said: Iterable[Record]) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """What the last words on each alert say (of bad ratings several may bear one number), and what the desk shows."""
    told = _last(said, "alert_id", "alert_seq")
    wanted = {i: [[r["alert_seq"], ACTIONS[r["event_type"]], *(r[f] for f in INBOX)] for r in last]
              for i, last in told.items()}  # fmt: skip
    return wanted, {alert: list(rest) for alert, *rest in rows(engine, INBOX_SQL)}


def directory(engine: sa.Engine, said: Iterable[Record]) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """What the last word on each resource says, and what the view shows."""
    told = _last(said, "resource_code", "entry_version")
    wanted = {code: [[r["entry_version"], *(r[f] for f in VIEW), _plain(r)] for r in last]
              for code, last in told.items()}  # fmt: skip
    return wanted, {code: list(rest) for code, *rest in rows(engine, VIEW_SQL)}


def dead_letters(engine: sa.Engine, said: Iterable[Record]) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """What was said of each dead letter, and what is kept of it."""
    wanted: dict[str, list[Any]] = {r["dead_id"]: [[r[f] for f in DEAD]] for r in said}
    return wanted, {dead: list(rest) for dead, *rest in rows(engine, DEAD_SQL)}


def _last(said: Iterable[Record], key: str, number: str) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = defaultdict(list)
    for record in said:
        held = found[str(record[key])]
        if held and record[number] > held[0][number]:
            held.clear()
        if not held or record[number] == held[0][number]:
            held.append(record)
    return found


def _plain(record: Record) -> dict[str, Any]:
    return {k: v.isoformat() if isinstance(v, date) else v for k, v in record.items()}


# --- ratings ---


def standings(engine: sa.Engine, said: Iterable[Record]) -> tuple[dict[str, bool], dict[str, bool]]:
    """By assessment whether it is out of all counting: as the last word has it, and as the table has it."""
    found: dict[str, tuple[int, bool]] = {}
    for r in said:
        if r["event_type"] != "rating.uploaded":
            place = "/".join(str(r[f]) for f in ("project_no", "department", "service_number", "assess_number"))
            found[place] = max(found.get(place, (0, False)), (r["revision"], not r["effective"]))
    return {place: out for place, (_, out) in found.items()}, dict(tuple(row) for row in rows(engine, OUT_SQL))


def rollups(engine: sa.Engine, said: Iterable[Record]) -> tuple[dict[str, Sequence[int]], dict[str, Sequence[int]]]:
    """The counts of each scope: as its highest revision says, and as the cells add up, department and district too."""
    newest: dict[str, tuple[int, tuple[int, ...]]] = {}
    for r in said:
        word = (int(r["revision"]), tuple(int(r[name]) for name in COUNTS))
        newest[r["scope"]] = max(newest.get(r["scope"], word), word)
    counted: dict[str, list[int]] = defaultdict(lambda: [0] * len(COUNTS))
    for region, department, item, channel, day, score, n, defaults in rows(engine, CELLS_SQL):
        whole = f"{region[:6]}////{day}"
        for scope in (f"{region}/{department}/{item}/{channel}/{day}", f"{region}/{department}///{day}", whole):
            counts = counted[scope]
            counts[score - 1] += n
            counts[5] += n
            counts[6] += defaults
    return {scope: counts for scope, (_, counts) in newest.items()}, {s: tuple(c) for s, c in counted.items()}


# --- the province ---


def garbled(province: sa.Engine, said: Mapping[str, tuple[str, bytes]]) -> Iterator[str]:
    """Ids of the records that the province holds with another content than was said. ``said``: (topic, value) by id."""
    for event_id, digest, kind, region, department, body in rows(province, RECEIVED_SQL):
        if event_id not in said:
            continue
        name, value = said[event_id]
        topic = ROLLUP if name == ROLLUP.name else UPLOAD
        r = codec.decode(value, topic)
        meant = (digest_of(value), _kind(topic, r), r["region"], r["department"], _body(topic, r))
        if meant != (digest, kind, region, department, body):
            yield f"{kind} {event_id}"


def _kind(topic: Topic, record: Record) -> str:
    if topic == ROLLUP:
        return "rollup"
    return "rating" if record["event_type"] == "rating.uploaded" else "standing"


def _body(topic: Topic, record: Record) -> dict[str, Any]:
    names = {"rollup": ROLLED, "rating": RATED, "standing": STANDS}[_kind(topic, record)]
    return {theirs: _theirs(ours, record[ours]) for ours, theirs in names.items()}


def _theirs(name: str, value: Any) -> Any:
    if name == "assess_time":
        return datetime.fromtimestamp(value / 1000, UTC).astimezone(SHANGHAI).strftime("%Y-%m-%d %H:%M:%S")
    if name == "channel_code":
        return PF.get(value, "")
    return value.isoformat() if isinstance(value, date) else value
