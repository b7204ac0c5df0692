"""``govbus alerts``: what the supervisor sees, as it happens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from govbus.asked import PRIVATE, private
from schemas import codesets
from schemas.clock import SHANGHAI

if TYPE_CHECKING:
    import sqlalchemy as sa
    from rich.console import Console

    from connectors.publisher import Publisher

ACTIONS = {"alert.issued": "发牌", "alert.revoked": "撤牌", "alert.retracted": "收回"}
DEPT = typer.Option("", help="Only this department: its code, name or an alias.")
KIND = typer.Option("", help="Only this kind (govbus.alert-kind): CARD, BAD_RATING, FINDING, …")
COLOUR = typer.Option("", help="Only this colour: YELLOW, RED, RED_STATUTORY, NONE.")


def register(app: typer.Typer) -> None:
    """Add the group to ``app``."""
    group = typer.Typer(no_args_is_help=True, help="Alerts for supervisors.")
    group.command("watch")(watch)
    group.command("list")(list_open)
    group.command("show")(show_one)
    group.command("evidence")(evidence)
    group.command("handle")(handle)
    group.command("deliveries")(deliveries)
    group.command("redeliver")(redeliver)
    app.add_typer(group, name="alerts")


def watch(
    since: Annotated[
        str, typer.Option(help="now, beginning, or an ISO 8601 time (Asia/Shanghai unless it says).")
    ] = "now",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    dept: str = DEPT,
    kind: str = KIND,
    colour: str = COLOUR,
    count: Annotated[int, typer.Option(min=0, help="End after so many alerts; 0: never.")] = 0,
    timeout: Annotated[float, typer.Option(min=0, help="End after so many seconds; 0: never.")] = 0.0,
) -> None:
    """Watch alerts live; exit code 1 if fewer than --count came. 实时查看红黄牌与差评预警."""
    import itertools
    import json
    from functools import partial

    from consumers.alerts.live import tail, until
    from govbus.runtime import resolve
    from govbus.screen import console
    from govbus.settings import load

    asked = dict(zip(("department", "kind_code", "colour_code"), _chosen(dept, kind, colour), strict=True))
    start = since_ms(since)
    screen, words = console(soft_wrap=True, highlight=False), console(stderr=True)

    def away(gone: bool) -> None:
        told = "no broker answers 连不上 Kafka，恢复前看不到预警" if gone else "watching again 已恢复，没有遗漏"
        words.print(told, style="red" if gone else "dim")

    watching = partial(words.print, "watching 正在监视", style="dim")
    alerts = tail(resolve(load()).kafka, start, until(timeout or None), watching, away)
    wanted = (a for a in alerts if all(code in ("", a[name]) for name, code in asked.items()))
    seen = 0
    try:
        for seen, alert in enumerate(itertools.islice(wanted, count or None), 1):  # noqa: B007
            if as_json:
                print(json.dumps(alert, ensure_ascii=False), flush=True)
            else:
                show(screen, alert)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None
    raise typer.Exit(1 if seen < count else 0)


def list_open(
    case: Annotated[str, typer.Option(help="Only alerts about this case number.")] = "",
    dept: str = DEPT,
    kind: str = KIND,
    colour: str = COLOUR,
    overdue: Annotated[bool, typer.Option("--overdue", help="Only those whose next limit has passed.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Also those that are closed.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="So many of the oldest; 0: all.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List the alerts that stand and are not closed, oldest first; exit code 1 if there is none. 列出未销号预警."""
    import json

    from consumers.alerts.inbox import Wanted, open_alerts
    from govbus.runtime import district
    from govbus.screen import console
    from govbus.settings import load
    from streams.store import horizon

    office, kind, colour = _chosen(dept, kind, colour)
    screen, found = console(soft_wrap=True, highlight=False), False
    with district() as engine, engine.connect() as tx:
        overdue_at = horizon.now(tx, load().clock) if overdue else None
        for row in open_alerts(tx, Wanted(case, office, kind, colour, overdue_at, everything, limit)):
            found, alert = True, dict(row._mapping)
            if as_json:
                print(json.dumps(alert, ensure_ascii=False, default=str))
            else:
                names = {"kind_code": alert["kind"], "colour_code": alert["colour"], "event_type": "alert.issued"}
                show(screen, {**alert, **names, "evidence": []})
    raise typer.Exit(0 if found else 1)


def _chosen(dept: str, kind: str, colour: str) -> tuple[str, str, str]:
    """Codes of department, kind and colour, each empty if it was not asked for."""
    from govbus import asked

    office = asked.department(dept, "--dept")
    kind = asked.code(kind.upper(), "--kind", "govbus.alert-kind")
    return office, kind, asked.code(colour.upper(), "--colour", "govbus.card-colour")


def show_one(
    alert: Annotated[str, typer.Argument(help="Id of the alert (监察编号).")],
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Show an alert, its handling so far and what is due next. 查看一条预警的处置过程."""
    import json

    with _known(alert) as (_, row):
        if as_json:
            print(json.dumps(row, ensure_ascii=False, default=str))
        else:
            _show_life(row)


def _show_life(row: Mapping[str, Any]) -> None:
    from govbus.screen import console

    screen = console(soft_wrap=True, highlight=False)
    names = {"kind_code": row["kind"], "colour_code": row["colour"], "event_type": f"alert.{row['action'].lower()}"}
    show(screen, {**row, **names, "revoked_reason_code": row["reason"]})
    for timer, due in sorted((row["dues"] or {}).items(), key=lambda pair: pair[1] or 0):
        screen.print(f"  {codesets.name('govbus.timer', timer)}期限 {local_time(due)}" if due else "", style="dim")
    for event_id, act, at, stage, fault in row["steps"] or ():
        done = codesets.name("govbus.event-type", f"handling.{act}")
        what = f"{done} → {codesets.name('govbus.handling-stage', stage)}{_wrong(fault)}"
        screen.print(f"  {local_time(at)} {what} 依据 {event_id[:8]}", style="yellow" if fault else "")


def evidence(
    alert: Annotated[str, typer.Argument(help="Id of the alert (监察编号).")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show every event and alert that an alert rests on, nobody named; exit code 1 unless all are there. 查看依据."""
    import json

    from consumers.alerts.evidence import find
    from govbus.evidence import line, plain
    from govbus.screen import console

    with _known(alert) as (engine, row), engine.connect() as tx:
        found, nowhere = find(tx, row["case_no"], row["evidence"])
    screen = console(soft_wrap=True, highlight=False)
    for told in map(plain, found):
        if as_json:
            print(json.dumps(told, ensure_ascii=False))
        else:
            screen.print(line(told))
    for lost in nowhere:
        if as_json:
            print(json.dumps({"event_id": lost, "topic": None}))
        else:
            screen.print(f"{lost} 无此事件：发布箱、各表和监察台中均没有", style="red")
    if not row["evidence"]:
        console(stderr=True).print("the alert names no evidence 该预警没有记录依据", style="yellow")
    raise typer.Exit(0 if found and not nowhere else 1)


def handle(
    alert: Annotated[str, typer.Argument(help="Id of the alert (监察编号).")],
    event: Annotated[str, typer.Option(help="What was done: signed, explained, rectified, contacted, …")],
    dept: Annotated[
        str, typer.Option(help="Who acts: code, name or alias; the alert's department, or who decides.")
    ] = "",
    number: Annotated[int, typer.Option("--no", help="Which act of this type about the alert, from 1.")] = 1,
    at: Annotated[str, typer.Option(help="When it was done, Asia/Shanghai; now if empty.")] = "",
    note: Annotated[str, typer.Option(help=f"Explanation, measure or feedback{PRIVATE}.")] = "",
    actor: Annotated[str, typer.Option(help=f"Who did it{PRIVATE}.")] = "",
    rating: Annotated[str, typer.Option(help="Id of the rating, for bad ratings.")] = "",
    verify: Annotated[str, typer.Option(help="For verified: VALID, MISTAKEN, MALICIOUS, NO_BASIS.")] = "",
    level: Annotated[str, typer.Option(help="For supervised: ORDINARY, YELLOW, RED.")] = "",
    closing: Annotated[str, typer.Option(help="For closed: CLOSED_OUT, CIRCULATED, ACCOUNTABILITY.")] = "",
    satisfied: Annotated[bool | None, typer.Option(help="For called_back: whether the citizen is satisfied.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Register it though it will not count.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Publish what was done about an alert; exit code 0 if it stands on the bus. 登记处置：签收、说明、整改、回访…"""
    import json

    from connectors.publisher import Publisher
    from govbus.screen import console
    from schemas.errors import Misconfigured
    from schemas.topics import HANDLING
    from streams.rules import life

    note, actor = private(note, "说明"), private(actor, "经办人")
    with _known(alert) as (engine, found):
        row = {
            "event_type": f"handling.{event}", "case_no": found["case_no"], "alert_id": alert, "event_no": number,
            "occurred_at": at or datetime.now(SHANGHAI).strftime("%Y-%m-%d %H:%M:%S"), "note": note,
            "actor_name": actor, "rating_id": rating, "verify_result_code": verify, "level_code": level,
            "closing_code": closing, "satisfied": satisfied,
        }  # fmt: skip
        who = dept or (life.deciders(found["department"])[0] if life.decides(event) else found["department"])
        publisher = Publisher(engine, who, found["region"])
        answering = life.answered(found["department"], found["former"], _done_at(row))
        if not any(life.entitled(event, publisher.department, d) for d in answering):  # it would be a finding
            deciders = life.deciders(found["department"])
            may = deciders if life.decides(event) else (*answering, *deciders)
            raise Misconfigured(f"--dept {publisher.department} may not do this 无权作出该处置; {' or '.join(may)} may")
        if not force:
            _not_in_vain(engine, publisher, found, row)
        (result,) = publisher.publish(HANDLING, [row])
    if as_json:
        faults = [{"field": f.field, "reason": f.reason, "text": f.text} for f in result.faults]
        told = {"outcome": result.outcome, "event_id": str(result.event_id or ""), "receipt": result.receipt or ""}
        print(json.dumps({**told, "faults": faults}, ensure_ascii=False))
    elif result.accepted:
        done = codesets.name("govbus.event-type", f"handling.{event}")
        console(highlight=False).print(f"已登记：{done}，回执 {result.receipt}")
    else:
        for fault in result.faults:
            console(highlight=False).print(f"未登记：{fault.field} {fault.text} {fault.mend}".rstrip(), style="red")
    raise typer.Exit(0 if result.accepted else 1)


def _not_in_vain(engine: sa.Engine, publisher: Publisher, found: Mapping[str, Any], row: Mapping[str, Any]) -> None:
    """Raise ``Misconfigured`` if the act would have no effect by what the desk knows, and say which would have one; one
    that is no act at all is refused later, with its reason.
    """
    from schemas.clock import wall_clock
    from schemas.errors import Misconfigured
    from schemas.topics import HANDLING
    from streams.rules.life import Act
    from streams.store import desk

    (checked,) = publisher.check(HANDLING, [row])
    if not checked.accepted:
        return
    what = row["event_type"].removeprefix("handling.")
    act = Act(str(checked.event_id), row["alert_id"], what, publisher.department, _done_at(row), wall_clock(),
              row["verify_result_code"])  # fmt: skip
    with engine.connect() as tx:
        fault, may = desk.tried(tx, found, act)
    if fault:
        why = codesets.name("govbus.handling-fault", fault)
        names = [f"{one} {codesets.name('govbus.event-type', f'handling.{one}')}" for one in may]
        raise Misconfigured(f"--event {what} would have no effect 不起作用：{why}（{fault}）；now may follow 此时可以："
                            f"{'、'.join(names) or '无'}；--force registers it all the same 仍予登记")  # fmt: skip


def _done_at(row: Mapping[str, Any]) -> int:
    """When an act was done (epoch ms); one whose time is none is refused later, with its reason."""
    from connectors import times

    try:
        return times.moment(row["occurred_at"])
    except ValueError:
        return 0


def deliveries(
    dead: Annotated[bool, typer.Option("--dead", help="Only those given up.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List what subscribers have not taken yet; exit code 1 if anything was given up. 查看未送达的推送。"""
    import json

    from consumers.alerts.deliver import waiting
    from govbus.runtime import district
    from govbus.screen import console

    with district() as engine, engine.connect() as tx:
        rows = [dict(r._mapping) for r in waiting(tx, dead)]
    screen = console(soft_wrap=True, highlight=False)
    for row in rows:
        if as_json:
            print(json.dumps(row, ensure_ascii=False, default=str))
            continue
        state = "已放弃" if row["dead_at"] else f"{local_time(row['not_before'])} 再试"
        why = f" 原因 {row['last_error']}" if row["last_error"] else ""
        screen.print(f"{row['channel']} 案件编号 {row['case_no']} 已试 {row['attempts']} 次 {state}{why}")
    raise typer.Exit(1 if any(r["dead_at"] for r in rows) else 0)


def redeliver(
    channel: Annotated[str, typer.Argument(help="The subscriber's name; all of them if empty.")] = "",
) -> None:
    """Have what was given up tried anew; exit code 0 too if nothing was. 重新推送已放弃的。"""
    from consumers.alerts.deliver import heard, redrive
    from consumers.alerts.queue import DIGEST
    from govbus.runtime import district
    from govbus.settings import load
    from schemas.errors import Misconfigured

    subscribed = {DIGEST, *(hook.name for hook in load().webhooks)}
    with district() as engine, engine.begin() as tx:
        if channel and channel not in subscribed and not heard(tx, channel):
            raise Misconfigured(f"no subscriber is called {channel}; see `govbus alerts deliveries --dead`")
        count = redrive(tx, channel)
    typer.echo(f"重新推送 {count} 条" if count else "没有已放弃的推送")


@contextmanager
def _known(alert: str) -> Iterator[tuple[sa.Engine, dict[str, Any]]]:
    """The database and what the desk knows of an alert; raises ``Misconfigured`` if that is nothing."""
    import uuid

    from consumers.alerts.inbox import one_alert
    from govbus.runtime import district
    from schemas.errors import Misconfigured

    try:
        wanted = uuid.UUID(alert)
    except ValueError:
        raise Misconfigured(f"{alert!r} is no id of an alert; `govbus alerts list` shows them") from None
    with district() as engine:
        with engine.connect() as tx:
            row = one_alert(tx, wanted)
        if row is None:
            raise Misconfigured(f"the desk knows no alert {alert}; `govbus alerts list` shows them")
        yield engine, dict(row._mapping)


def _wrong(fault: str) -> str:
    return f"（无效：{codesets.name('govbus.handling-fault', fault)}）" if fault else ""


def since_ms(text: str) -> int | None:
    """Where ``--since`` begins: None now, 0 the beginning, else epoch ms; raises ``Misconfigured``."""
    from schemas.errors import Misconfigured

    if text in ("now", "beginning"):
        return None if text == "now" else 0
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Misconfigured(f"--since knows now, beginning and ISO 8601 times, not {text!r}") from None
    since = int((moment if moment.tzinfo else moment.replace(tzinfo=SHANGHAI)).timestamp() * 1000)
    if since < 0:
        raise Misconfigured(f"--since {text} is before 1970, when no record arrived; beginning is all there are")
    return since


def show(console: Console, alert: Mapping[str, Any]) -> None:
    """One alert as a coloured line: time, id, what, department, item, rule, case, reason, evidence.

    The id stands so far to the left that no terminal breaks it in two: it has to be copied.
    """
    from rich.text import Text

    from consumers.alerts.live import STYLES

    colour = alert["colour_code"]
    action = ACTIONS[alert["event_type"]]
    title = codesets.alert_name(alert["kind_code"], colour)
    if alert["kind_code"] != "CARD":
        action = action.replace("撤牌", "撤销")
    line = Text(f"{local_time(alert['issued_at'])} {alert['alert_id']} ")
    line.append(f" {title} ", style=STYLES.get(colour, "bold magenta") if action == "发牌" else "dim strike")
    line.append(f" {action}" if action != "发牌" else "", style="bold")
    line.append(f" {codesets.name(codesets.DEPARTMENTS, alert['department'])}", style="bold")
    known = {"事项": alert.get("item_code"), "规则": alert["rule_id"], "案件编号": alert["case_no"]}
    line.append("".join(f" {name} {value}" for name, value in known.items() if value))
    line.append(f" {alert['summary']}")
    if stage := alert.get("stage"):
        line.append(f" 〔{codesets.name('govbus.handling-stage', stage)}〕")
    if due := alert.get("next_due_at"):
        line.append(f" {codesets.name('govbus.timer', alert['next_timer'])}期限 {local_time(due)}", style="bold")
    if why := alert.get("revoked_reason_code"):
        line.append(f" 原因 {codesets.name('govbus.revocation', why)}")
    if alert["evidence"]:
        line.append(f" 依据 {'、'.join(e[:8] for e in alert['evidence'])}", style="dim")
    console.print(line)


def local_time(ms: int) -> str:
    """Epoch milliseconds as a time in Asia/Shanghai."""
    return datetime.fromtimestamp(ms / 1000, SHANGHAI).strftime("%Y-%m-%d %H:%M:%S")
