"""``govbus alerts``: what the supervisor sees, as it happens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

ACTIONS = {"alert.issued": "发牌", "alert.revoked": "撤牌", "alert.retracted": "收回"}
COLOURS = {"YELLOW": "黄牌", "RED": "红牌", "RED_STATUTORY": "红牌(法定)", "NONE": "预警"}


def register(app: typer.Typer) -> None:
    """Add the group to ``app``."""
    group = typer.Typer(no_args_is_help=True, help="Alerts for supervisors.")
    group.command("watch")(watch)
    group.command("list")(list_open)
    app.add_typer(group, name="alerts")


def watch(
    since: Annotated[
        str, typer.Option(help="now, beginning, or an ISO 8601 time (Asia/Shanghai unless it says).")
    ] = "now",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    colour: Annotated[str, typer.Option(help="Only this colour: YELLOW, RED, RED_STATUTORY, NONE.")] = "",
    count: Annotated[int, typer.Option(help="End after so many alerts; 0: never.")] = 0,
    timeout: Annotated[float, typer.Option(help="End after so many seconds; 0: never.")] = 0.0,
) -> None:
    """Watch alerts live. 实时查看红黄牌与差评预警."""
    import itertools
    import json

    from rich.console import Console

    from consumers.alerts.live import tail, until
    from govbus.runtime import resolve
    from govbus.settings import load
    from schemas.errors import Misconfigured

    if colour and colour.upper() not in COLOURS:
        raise Misconfigured(f"--colour knows {', '.join(COLOURS)}")
    start = since_ms(since)
    console = Console(soft_wrap=True, highlight=False)
    words = Console(stderr=True)
    alerts = tail(
        resolve(load()).kafka, start, until(timeout or None), lambda: words.print("watching 正在监视", style="dim")
    )
    wanted = (a for a in alerts if not colour or a["colour_code"] == colour.upper())
    try:
        for alert in itertools.islice(wanted, count or None):
            if as_json:
                print(json.dumps(alert, ensure_ascii=False), flush=True)
            else:
                show(console, alert)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def list_open(
    case: Annotated[str, typer.Option(help="Only alerts about this case number.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List the alerts that stand; exit code 1 if there is none. 列出未撤销的预警."""
    import json

    from rich.console import Console

    from consumers.alerts.inbox import open_alerts
    from govbus.runtime import resolve
    from govbus.settings import load
    from streams.store.engine import connect

    engine = connect(resolve(load()).database_url)
    with engine.connect() as tx:
        rows = [dict(r._mapping) for r in open_alerts(tx) if case in ("", r.case_no)]
    for row in rows:
        if as_json:
            print(json.dumps(row, ensure_ascii=False, default=str))
        else:
            names = {"kind_code": row["kind"], "colour_code": row["colour"], "event_type": "alert.issued"}
            show(Console(soft_wrap=True, highlight=False), {**row, **names, "rule_id": "", "evidence": []})
    raise typer.Exit(0 if rows else 1)


def since_ms(text: str) -> int | None:
    """Where ``--since`` begins: None now, 0 the beginning, else epoch ms; raises ``Misconfigured``."""
    from datetime import datetime

    from connectors.province.format import SHANGHAI
    from schemas.errors import Misconfigured

    if text in ("now", "beginning"):
        return None if text == "now" else 0
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Misconfigured(f"--since knows now, beginning and ISO 8601 times, not {text!r}") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=SHANGHAI)).timestamp() * 1000)


def show(console: Console, alert: Mapping[str, Any]) -> None:
    """One alert as a coloured line: time, what, department, item, rule, case, reason, evidence."""
    from rich.text import Text

    from consumers.alerts.live import STYLES

    colour = alert["colour_code"]
    action = ACTIONS[alert["event_type"]]
    title = kind_name(alert["kind_code"], colour)
    if alert["kind_code"] != "CARD":
        action = action.replace("撤牌", "撤销")
    line = Text(f"{local_time(alert['issued_at'])} ")
    line.append(f" {title} ", style=STYLES.get(colour, "bold magenta") if action == "发牌" else "dim strike")
    line.append(f" {action}" if action != "发牌" else "", style="bold")
    line.append(f" {department_name(alert['department'])}", style="bold")
    known = {"事项": alert.get("item_code"), "规则": alert["rule_id"], "案件编号": alert["case_no"]}
    line.append("".join(f" {name} {value}" for name, value in known.items() if value))
    line.append(f" {alert['summary']}")
    if why := alert.get("revoked_reason_code"):
        line.append(f" 原因 {revocation_name(why)}")
    if alert["evidence"]:
        line.append(f" 依据 {'、'.join(e[:8] for e in alert['evidence'])}", style="dim")
    console.print(line)


def kind_name(kind: str, colour: str) -> str:
    """What a supervisor calls it."""
    return {"BAD_RATING": "差评", "FINDING": "督查"}.get(kind, COLOURS.get(colour, colour))


def revocation_name(code: str) -> str:
    """Why an alert was taken back (code set ``govbus.revocation``), or the code if the set does not know it."""
    from schemas import codesets

    return codesets.load("govbus.revocation").values.get(code, code)


def department_name(code: str) -> str:
    """The department's Chinese name, or its code if the code set does not know it."""
    from schemas.codesets import departments

    found = departments().get(code)
    return found.name if found else code


def local_time(ms: int) -> str:
    """Epoch milliseconds as a time in Asia/Shanghai."""
    from datetime import datetime

    from connectors.province.format import SHANGHAI

    return datetime.fromtimestamp(ms / 1000, SHANGHAI).strftime("%Y-%m-%d %H:%M:%S")
