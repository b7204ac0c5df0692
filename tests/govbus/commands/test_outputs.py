"""What supervisors read in a terminal: licences masked and with their standing, alerts that stand."""

from __future__ import annotations

import io
import json
import uuid
from datetime import date
from typing import Any

import pytest
import sqlalchemy as sa
from rich.console import Console
from typer.testing import CliRunner

from govbus.cli import build
from govbus.commands.alerts import show
from govbus.commands.licence import plain
from schemas.errors import Misconfigured
from streams.store.tables import alert_inbox, alert_life, delivery, licence

LICENCE: dict[str, Any] = {
    "family": "T/I/HS202000000000000340",
    "licence_version": 1,
    "region": "430903",
    "department": "HS-WLGTJ",
    "licence_id": "1.2.156.3005.2.T.I.HS202000000000000340.001.6",
    "type_code": "T",
    "type_name": "食品经营许可证",
    "licence_no": "HS202000000000000340",
    "holder_id": "430903199001011234",
    "holder_name": "王小明",
    "status": "VALID",
    "valid_from_on": date(2015, 1, 1),
    "valid_to_on": date(2019, 12, 31),
    "origin": "INCREMENT",
    "disputed": False,
    "effective_at": 1_420_070_400_000,
}
STANDS = uuid.UUID("0c5b0f0e-6f0a-5c6e-9a51-4d3f2f1f7a10")
ALERT: dict[str, Any] = {
    "alert_seq": 1,
    "region": "430903",
    "department": "HS-ZJJ",
    "kind": "BAD_RATING",
    "colour": "NONE",
    "summary": "差评：请联系核实",
    "issued_at": 1_614_564_900_000,
    "seen_at": 1_614_564_900_100,
}


@pytest.fixture
def govbus(engine: sa.Engine, database: str, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    """The command line on a database with one licence, one alert that stands and one that does not."""
    monkeypatch.setenv("GOVBUS_KAFKA", "127.0.0.1:1")
    monkeypatch.setenv("GOVBUS_DATABASE_URL", database)
    monkeypatch.setenv("COLUMNS", "200")
    rows = [(STANDS, "case-1", "ISSUED"), (uuid.uuid4(), "case-2", "REVOKED")]
    with engine.begin() as tx:
        tx.execute(sa.insert(licence), LICENCE)
        tx.execute(
            sa.insert(alert_inbox),
            [{**ALERT, "alert_id": alert, "case_no": case, "action": action} for alert, case, action in rows],
        )
    return CliRunner()


@pytest.mark.stack
def test_a_licence_past_its_last_day_is_shown_expired_and_its_holder_masked(govbus: CliRunner) -> None:
    shown = govbus.invoke(build(), ["licence", "show", "HS202000000000000340"])
    assert shown.exit_code == 0
    assert "王*明" in shown.stdout
    assert "王小明" not in shown.stdout
    assert "430903**********34" in shown.stdout
    found = json.loads(govbus.invoke(build(), ["licence", "show", LICENCE["licence_id"], "--json"]).stdout)
    assert [(r["status"], r["standing"]) for r in found] == [("VALID", "EXPIRED")]


@pytest.mark.parametrize(
    ("code", "shown"), [("E12345678", "*********"), ("H1234567890", "***********"), ("430903900101123", "*" * 15)]
)
def test_a_number_that_is_no_citizens_of_today_is_hidden_whole(code: str, shown: str) -> None:
    hidden = plain({**LICENCE, "holder_id": code, "holder_name": "John Smith"}, "VALID", full=False)
    assert (hidden["holder_id"], hidden["holder_name"]) == (shown, "J**")


@pytest.mark.parametrize(("holder_id", "number"), [("", "43090319000101004X"), ("E12345678", "E12345678")])
def test_a_licence_that_bears_its_holders_number_does_not_show_it(holder_id: str, number: str) -> None:
    named = {"licence_no": number, "family": f"T/I/{number}", "licence_id": f"T.I.{number}"}
    own = {**LICENCE, "holder_id": holder_id, **named}
    assert number not in str(plain(own, "VALID", full=False))
    assert plain(own, "VALID", full=True)["family"] == f"T/I/{number}"


@pytest.mark.parametrize("number", ["43090319900101001643", "430903900101123", "X430903199001010016"])
def test_a_number_that_holds_a_citizens_is_hidden_whosever_licence_it_is(number: str) -> None:
    of = {**LICENCE, "holder_id": "", "licence_no": number, "family": f"T/I/{number}", "licence_id": f"T.I.{number}.1"}
    hidden = plain(of, "VALID", full=False)
    assert all("900101" not in hidden[name] for name in ("licence_no", "family", "licence_id"))
    usual = {**of, "licence_no": "430903000012345", "family": "T/I/430903000012345"}
    assert plain(usual, "VALID", full=False)["licence_no"] == "430903000012345"


@pytest.mark.stack
def test_what_should_not_stand_on_a_command_line_is_read_from_the_input(govbus: CliRunner) -> None:
    shown = govbus.invoke(build(), ["licence", "show", "-", "--json"], input="HS202000000000000340\n")
    assert (shown.exit_code, json.loads(shown.stdout)[0]["standing"]) == (0, "EXPIRED")
    assert govbus.invoke(build(), ["licence", "show", "--holder", "-"], input="nobody\n").exit_code == 1


def test_an_enterprise_is_shown_and_a_sole_trader_is_not() -> None:
    firm = {**LICENCE, "holder_id": "91430903MADEMA0194", "holder_name": "赫山测试有限公司"}
    shown = plain(firm, "VALID", full=False)
    assert (shown["holder_id"], shown["holder_name"]) == ("91430903MADEMA0194", "赫山测试有限公司")
    assert plain({**firm, "holder_id": "92430903MADEMA027U"}, "VALID", full=False)["holder_name"] == "赫******司"


@pytest.mark.stack
def test_a_holders_licences_are_found_and_shown_whole_only_when_asked(govbus: CliRunner) -> None:
    asked = ["licence", "show", "--holder", "430903199001011234", "--full", "--json"]
    assert json.loads(govbus.invoke(build(), asked).stdout)[0]["holder_name"] == "王小明"
    assert govbus.invoke(build(), ["licence", "show", "--holder", "430903199001011235"]).exit_code == 1


@pytest.mark.stack
def test_only_alerts_that_stand_are_listed_and_one_case_can_be_asked_for(govbus: CliRunner) -> None:
    listed = govbus.invoke(build(), ["alerts", "list"])
    assert listed.exit_code == 0
    assert listed.stdout == f"2021-03-01 10:15:00 {STANDS}  差评  区住建局 案件编号 case-1 差评：请联系核实\n"
    assert govbus.invoke(build(), ["alerts", "list", "--case", "case-2"]).exit_code == 1


LIFE: dict[str, Any] = {
    "region": "430903", "department": "HS-ZJJ", "item_code": "", "kind": "CARD", "colour": "RED", "rule_id": "",
    "stage": "SIGNED", "out_reason": "", "verified": "", "level": "", "closing": "", "dues": {}, "next_timer": "answer",
    "next_due_at": 1_614_676_800_000, "steps": [],
}  # fmt: skip


@pytest.mark.stack
@pytest.mark.parametrize(
    ("asked", "cases"),
    [
        ("", ["case-1", "case-3"]),
        ("--all", ["case-1", "case-3", "case-4"]),
        ("--dept 赫山公安分局", ["case-3"]),
        ("--dept HS-ZJJ --all", ["case-1", "case-4"]),
        ("--kind card", ["case-3"]),
        ("--kind RULING", ["case-5"]),
        ("--colour RED", ["case-3"]),
        ("--overdue", ["case-3"]),
        ("--limit 1", ["case-1"]),
        ("--case case-3 --kind BAD_RATING", []),
    ],
)
def test_alerts_are_listed_by_what_is_asked_and_those_handled_to_their_end_only_with_all(
    govbus: CliRunner, engine: sa.Engine, asked: str, cases: list[str]
) -> None:
    card = {**ALERT, "kind": "CARD", "action": "ISSUED", "rule_id": "HS-CARD-R"}
    rows = [
        {**card, "case_no": "case-3", "colour": "RED", "department": "HS-GAFJ", "issued_at": ALERT["issued_at"] + 1},
        {**card, "case_no": "case-4", "colour": "YELLOW", "issued_at": ALERT["issued_at"] + 2},
        {**card, "case_no": "case-5", "colour": "NONE", "kind": "RULING"},
    ]
    for number, row in enumerate(rows):
        row["alert_id"] = uuid.UUID(int=number)
    closed = {"stage": "CLOSED", "next_timer": "", "next_due_at": None}
    lives = [LIFE, {**LIFE, **closed}]
    with engine.begin() as tx:
        tx.execute(sa.insert(alert_inbox), rows)
        tx.execute(sa.insert(alert_life), [{**life, "case_no": row["case_no"], "alert_id": str(row["alert_id"])}
                                           for life, row in zip(lives, rows, strict=False)])  # fmt: skip
    told = govbus.invoke(build(), ["alerts", "list", "--json", *asked.split()])
    assert [json.loads(line)["case_no"] for line in told.stdout.splitlines()] == cases
    assert told.exit_code == (0 if cases else 1)
    shown = govbus.invoke(build(), ["alerts", "list", *asked.split()]).stdout.splitlines()
    assert [" 规则 HS-CARD-R " in line for line in shown] == [case != "case-1" for case in cases]


def test_only_alerts_of_the_department_kind_and_colour_asked_for_are_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"department": "HS-ZJJ", "kind_code": "CARD", "colour_code": "RED"}
    others = [{**said, name: other} for name, other in
              (("department", "HS-GAFJ"), ("kind_code", "HANDLING"), ("colour_code", "YELLOW"))]  # fmt: skip
    monkeypatch.setenv("GOVBUS_KAFKA", "127.0.0.1:1")
    monkeypatch.setenv("GOVBUS_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    monkeypatch.setattr("consumers.alerts.live.tail", lambda *_: iter([*others, said]))
    asked = ["alerts", "watch", "--json", "--dept", "区住建局", "--kind", "card", "--colour", "red"]
    assert json.loads(CliRunner().invoke(build(), asked).stdout) == said


def test_a_broker_that_is_away_is_told_beside_the_alerts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOVBUS_KAFKA", "127.0.0.1:1")
    monkeypatch.setenv("GOVBUS_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    monkeypatch.setattr("consumers.alerts.live.tail", lambda *given: filter(given[-1], (True, False)))
    told = CliRunner().invoke(build(), ["alerts", "watch"])
    assert told.stdout == ""
    assert "no broker answers" in told.stderr.splitlines()[0]
    assert "watching again" in told.stderr.splitlines()[1]


@pytest.mark.stack
def test_what_waits_for_a_subscriber_is_listed_with_its_case_as_it_is_written(
    govbus: CliRunner, engine: sa.Engine
) -> None:
    row = {"channel": "desk", "event_id": uuid.uuid4(), "case_no": "案[/旧]的[draft] :dog:", "body": {}, "attempts": 2,
           "queued_at": 1, "not_before": 1_614_564_900_000, "last_error": "no answer"}  # fmt: skip
    with engine.begin() as tx:
        tx.execute(sa.insert(delivery), row)
    listed = govbus.invoke(build(), ["alerts", "deliveries"])
    assert listed.stdout == (
        "desk 案件编号 案[/旧]的[draft] :dog: 已试 2 次 2021-03-01 10:15:00 再试 原因 no answer\n"
    )


@pytest.mark.stack
def test_what_was_given_up_goes_again_to_a_subscriber_that_there_is(
    govbus: CliRunner, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"event_id": uuid.uuid4(), "case_no": "case-1", "body": {}, "queued_at": 1, "not_before": 1, "dead_at": 2}
    with engine.begin() as tx:
        tx.execute(sa.insert(delivery), {**row, "channel": "desk"})
    refused = govbus.invoke(build(), ["alerts", "redeliver", "desks"]).exception
    assert isinstance(refused, Misconfigured)
    assert "desks" in str(refused)
    assert govbus.invoke(build(), ["alerts", "redeliver", "desk"]).stdout == "重新推送 1 条\n"
    monkeypatch.setenv("GOVBUS_WEBHOOK_HOSTS", '["town.gov.cn"]')
    hook = {"name": "town", "url": "https://town.gov.cn/alerts", "secret": "s" * 32}
    monkeypatch.setenv("GOVBUS_WEBHOOKS", json.dumps([hook]))
    for channel in ("desk", "digest", "town"):
        done = govbus.invoke(build(), ["alerts", "redeliver", channel])
        assert (done.exit_code, done.stdout) == (0, "没有已放弃的推送\n")
    assert govbus.invoke(build(), ["alerts", "redeliver"]).stdout == "没有已放弃的推送\n"


@pytest.mark.stack
def test_a_search_that_finds_nothing_says_so_and_does_not_end_well(govbus: CliRunner) -> None:
    found = govbus.invoke(build(), ["directory", "search", "水质"])
    assert (found.exit_code, "0 项" in found.stdout) == (1, True)
    assert govbus.invoke(build(), ["directory", "search", "--json"]).stdout == "[]\n"


@pytest.mark.stack
def test_an_upgrade_names_the_revision_it_ends_at(govbus: CliRunner) -> None:
    told = govbus.invoke(build(), ["db", "upgrade", "--json"])
    assert (told.exit_code, len(json.loads(told.stdout)["revision"])) == (0, 4)


@pytest.mark.stack
def test_an_upgrade_says_of_which_database_it_speaks_and_no_password(govbus: CliRunner, database: str) -> None:
    url = sa.make_url(database)
    said = govbus.invoke(build(), ["db", "upgrade"]).output
    assert f"database {url.database} at {url.host}:{url.port} is at the newest schema" in said
    assert url.password is None or url.password not in said


def test_the_id_of_an_alert_stands_whole_within_eighty_columns_whatever_it_is_called() -> None:
    for kind, colour in (("CARD", "RED_STATUTORY"), ("HANDLING", "NONE")):
        screen = io.StringIO()
        alert = {
            **ALERT, "alert_id": str(STANDS), "event_type": "alert.retracted", "kind_code": kind, "colour_code": colour,
            "case_no": "11430903MBDEM011134000117024000202103010001", "rule_id": "HS-1", "evidence": [],
        }  # fmt: skip
        show(Console(file=screen, soft_wrap=True, width=80), alert)
        first, *more = screen.getvalue().splitlines()
        assert str(STANDS) in first[:80]
        assert more == []


def test_a_finding_taken_back_says_why_and_is_no_card() -> None:
    screen = io.StringIO()
    alert = {
        "alert_id": str(STANDS), "event_type": "alert.revoked", "kind_code": "FINDING", "colour_code": "NONE",
        "case_no": "case-1", "department": "HS-ZJJ", "issued_at": 1_614_564_900_000, "item_code": "",
        "rule_id": "HS-1", "summary": "缺少前置环节", "evidence": [], "revoked_reason_code": "NO_SUCH_CODE",
    }  # fmt: skip
    show(Console(file=screen, soft_wrap=True), alert)
    assert "监察发现  撤销 区住建局 规则 HS-1 案件编号 case-1 缺少前置环节 原因 NO_SUCH_CODE" in screen.getvalue()
    assert "撤牌" not in screen.getvalue()


@pytest.mark.stack
def test_a_supervisor_signs_an_alert_once_and_sees_a_wrong_act_refused(govbus: CliRunner, engine: sa.Engine) -> None:
    listed = govbus.invoke(build(), ["alerts", "list", "--json"])
    (alert,) = [json.loads(line) for line in listed.stdout.splitlines()]
    sign = ["alerts", "handle", alert["alert_id"], "--event", "signed", "--at", "2021-03-01 11:00:00", "--json"]
    first, again = (json.loads(govbus.invoke(build(), sign).stdout) for _ in range(2))
    assert (first["outcome"], again["outcome"], again["receipt"]) == ("new", "same", first["receipt"])
    refused = govbus.invoke(build(), [*sign[:4], "thrown_away", "--at", "2021-03-01 11:00:00"])
    assert refused.exit_code == 1
    assert "未登记：event_type" in refused.stdout
    for event, by in (("signed", "HS-JTJ"), ("revoked", "HS-ZJJ")):
        foreign = govbus.invoke(build(), ["alerts", "handle", alert["alert_id"], "--event", event, "--dept", by])
        assert "无权作出该处置" in str(foreign.exception)
    with engine.connect() as tx:
        sent = tx.execute(sa.text("SELECT topic, key, department FROM outbox WHERE topic LIKE 'oversight.%'")).one()
    assert tuple(sent) == ("oversight.handling.v1", "case-1", "HS-ZJJ")


@pytest.mark.stack
def test_an_act_that_would_not_count_is_refused_with_what_may_follow_unless_it_is_forced(
    govbus: CliRunner, engine: sa.Engine
) -> None:
    with engine.begin() as tx:
        tx.execute(sa.update(alert_inbox).values(kind="CARD", colour="RED"))
    at = {"closed": "12:00", "signed": "11:00", "explained": "11:30", "appealed": "13:00"}

    def handle(event: str, *more: str) -> Any:
        when = f"2021-03-01 {at[event]}:00"
        return govbus.invoke(build(), ["alerts", "handle", str(STANDS), "--event", event, "--at", when, *more])

    why = str(handle("closed").exception)
    assert "缺少前置环节（out_of_order）；now may follow 此时可以：signed 签收、appealed 申诉；" in why
    assert [handle(e).exit_code for e in ("signed", "explained", "closed")] == [0, 0, 0]  # none is applied yet
    assert "终结后仍有处置（after_end）；now may follow 此时可以：无；" in str(handle("appealed").exception)
    assert (handle("closed").exit_code, handle("appealed", "--force").exit_code) == (0, 0)
    with engine.connect() as tx:
        sent = tx.execute(sa.text("SELECT count(*) FROM outbox WHERE topic = 'oversight.handling.v1'")).scalar_one()
    assert sent == 4


@pytest.mark.stack
def test_a_former_department_enters_what_it_did_before_the_case_went_on(govbus: CliRunner, engine: sa.Engine) -> None:
    moved = 1_614_571_200_000  # 2021-03-01 12:00
    with engine.begin() as tx:
        tx.execute(sa.update(alert_inbox).values(former=[[moved, "HS-JTJ"]]))
    handle = ["alerts", "handle", str(STANDS), "--event", "signed", "--dept", "HS-JTJ", "--json", "--at"]
    late = govbus.invoke(build(), [*handle, "2021-03-01 12:00:00"])
    assert "无权作出该处置" in str(late.exception)
    assert json.loads(govbus.invoke(build(), [*handle, "2021-03-01 11:59:00"]).stdout)["outcome"] == "new"


@pytest.mark.stack
def test_an_alert_is_shown_with_its_acts_the_wrong_ones_named_and_what_is_due(
    govbus: CliRunner, engine: sa.Engine
) -> None:
    with engine.begin() as tx:
        alert_id = tx.execute(sa.text("SELECT alert_id::text FROM alert_inbox WHERE case_no = 'case-1'")).scalar_one()
        life = {
            "case_no": "case-1", "alert_id": alert_id, "region": "430903", "department": "HS-ZJJ", "item_code": "",
            "kind": "BAD_RATING", "colour": "NONE", "rule_id": "", "stage": "ASSIGNED", "out_reason": "",
            "verified": "", "level": "", "closing": "", "dues": {"contact": 1_614_676_800_000},
            "next_timer": "contact", "next_due_at": 1_614_676_800_000,
            "steps": [["e1e1e1e1-…", "signed", 1_614_567_600_000, "ASSIGNED", ""],
                      ["e2e2e2e2-…", "closed", 1_614_567_700_000, "ASSIGNED", "out_of_order"]],
        }  # fmt: skip
        tx.execute(sa.insert(alert_life), life)
    shown = govbus.invoke(build(), ["alerts", "show", alert_id]).stdout
    assert "〔已转办〕 联系核实期限 2021-03-02 17:20:00" in shown
    assert "2021-03-01 11:00:00 签收 → 已转办 依据 e1e1e1e1" in shown
    assert "销号 → 已转办（无效：缺少前置环节）" in shown
    assert "〔已转办〕" in govbus.invoke(build(), ["alerts", "list"]).stdout
