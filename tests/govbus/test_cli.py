"""What an operator reads when something is away or set wrong: what and where, the right exit code, no traceback."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from govbus import cli, settings
from schemas.errors import Misconfigured

Told = Callable[..., tuple[int, str]]
NOBODY = "postgresql+psycopg://govbus:geheim@127.0.0.1:1/govbus"
READING = (
    "alerts list", "rollup show", "directory search 水质", "licence show 1", "dlq list", "reconcile --no-province",
    "db upgrade", "rebuild --yes",
)  # fmt: skip
ROW = """{"case_no": "C1", "event_type": "rating.given", "occurred_at": "2020-09-25 16:50:00",
"item_code": "11430903MBDEM0138T4000715002000", "satisfaction_set": "platform.satisfaction", "satisfaction_code": "5",
"channel_set": "platform.channel", "channel_code": "4"}""".replace("\n", " ")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Told:
    """Exit code and standard error of ``govbus …`` as its entry point gives them."""
    monkeypatch.setenv("GOVBUS_KAFKA", "127.0.0.1:1")
    monkeypatch.setenv("GOVBUS_HOME", str(tmp_path))

    def run(command: str, url: str) -> tuple[int, str]:
        monkeypatch.setenv("GOVBUS_DATABASE_URL", url)
        monkeypatch.setattr(sys, "argv", ["govbus", *command.split()])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), capsys.readouterr().err.strip()

    return run


@pytest.mark.parametrize("command", READING)
def test_a_database_that_is_away_is_told_in_one_line_with_its_address(command: str, told: Told) -> None:
    code, said = told(command, NOBODY)
    assert code == 1
    assert "PostgreSQL does not answer" in said
    assert 'server at "127.0.0.1", port 1' in said
    assert "geheim" not in said
    assert len(said.splitlines()) == 1


def test_a_consumer_that_nobody_configured_is_told_with_the_settings_that_make_it(told: Told) -> None:
    code, said = told("consume --only delivery", NOBODY)
    assert (code, "GOVBUS_WEBHOOKS" in said, "GOVBUS_DIGEST_TO" in said) == (78, True, True)
    assert "there is no consumer 'any'" in told("consume --only any", NOBODY)[1]


@pytest.mark.stack
def test_a_login_that_may_not_do_what_was_asked_is_told_so(told: Told, engine: sa.Engine, database: str) -> None:
    role, url = f"HS-{uuid.uuid4().hex[:8]}", sa.make_url(database)
    with engine.begin() as tx:
        tx.exec_driver_sql(f"""CREATE ROLE "{role}" LOGIN PASSWORD 'geheim'""")
        tx.exec_driver_sql(f'GRANT SELECT ON alembic_version TO "{role}"')
    address = url.set(username=role, password="geheim").render_as_string(False)
    try:
        code, said = told("alerts list", address)
        assert (code, "permission denied for database" in said) == (78, True)
        with engine.begin() as tx:
            tx.exec_driver_sql(f'GRANT CONNECT ON DATABASE "{url.database}" TO "{role}"')
        code, said = told("alerts list", address)
        assert (code, len(said.splitlines())) == (78, 2), said
        assert "permission denied for table alert_inbox" in said
        assert "geheim" not in said
    finally:
        with engine.begin() as tx:
            tx.exec_driver_sql(f'DROP OWNED BY "{role}"; DROP ROLE "{role}"')


@pytest.mark.stack
def test_a_database_without_tables_is_told_with_what_mends_it(told: Told, postgres: object) -> None:
    url = postgres.create("without_tables")  # type: ignore[attr-defined]
    code, said = told("alerts list", url)
    assert (code, "govbus db upgrade" in said) == (78, True)
    wrong = sa.make_url(url).set(password="geheim").render_as_string(hide_password=False)
    code, said = told("alerts list", wrong)
    assert (code, "GOVBUS_DATABASE_URL" in said, "geheim" in said) == (78, True, False)


@pytest.mark.stack
@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"database": "nowhere"}, 'database "nowhere" does not exist'),
        ({"password": "geheim"}, "password authentication failed for user"),
        ({"username": "nobody"}, "nobody"),
    ],
)
@pytest.mark.parametrize("command", ["alerts list", "publish service.rating.v1 {file} --dept HS-ZRZYJ"])
def test_a_database_that_lets_nobody_in_is_mended_and_not_waited_for(
    command: str, wrong: dict[str, Any], why: str, told: Told, database: str, tmp_path: Path
) -> None:
    """PostgreSQL's words, for the driver gives no code while it connects."""
    file = tmp_path / "a.jsonl"
    file.write_text(ROW)
    url = sa.make_url(database).set(**wrong).render_as_string(hide_password=False)
    began = time.monotonic()
    code, said = told(command.format(file=file), url)
    assert (code, why in said, "geheim" in said) == (78, True, False)
    assert time.monotonic() - began < 60


@pytest.mark.stack
def test_nothing_is_emptied_for_a_log_that_does_not_answer(
    told: Told, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.store.rebuild.forget", lambda *_: pytest.fail("emptied"))
    for wait in ("", " --timeout 0"):
        code, said = told(f"rebuild --yes{wait}", database)
        assert (code, "Kafka does not answer" in said) == (1, True)


def test_a_database_url_that_libpq_does_not_take_is_told_and_not_repeated(told: Told) -> None:
    code, said = told("alerts list", NOBODY + "?ssl=geheim")
    assert (code, "GOVBUS_DATABASE_URL" in said, "geheim" in said) == (78, True, False)


@pytest.mark.parametrize("command", ["dlq list --limit -1", "alerts watch --count -1", "alerts watch --timeout -0.5"])
def test_a_number_is_none_below_nothing(command: str, told: Told) -> None:
    assert told(command, NOBODY)[0] == 2


@pytest.mark.parametrize("since", ["1969-12-31T00:00", "1970-01-01T07:59:59", "0001-01-01T00:00"])
def test_a_time_at_which_no_record_arrived_is_refused(since: str, told: Told) -> None:
    code, said = told(f"alerts watch --since {since}", NOBODY)
    assert (code, "--since" in said, "Kafka" in said) == (78, True, False)


@pytest.mark.parametrize(
    "command",
    [
        "dlq list --dept 区没有局", "dlq list --topic service.ratings.v1", "dlq list --reason bad",
        "dlq list --origin stream", "dlq redrive --origin any",
        "rollup show --department 区没有局", "indicators show --department 区没有局",
        "indicators late --department 区没有局",
        "directory search --department 区没有局",
        "alerts list --dept 区没有局", "alerts list --kind CARDS", "alerts list --colour GREEN",
        "alerts watch --dept 区没有局", "alerts watch --kind CARDS",
    ],
)  # fmt: skip
def test_what_nobody_could_have_is_refused_and_not_found_nowhere(command: str, told: Told) -> None:
    code, said = told(command, NOBODY)
    assert (code, "PostgreSQL" in said) == (78, False)
    assert "--" in said


def test_an_unknown_code_is_refused_with_those_that_there_are(told: Told) -> None:
    code, said = told("alerts list --kind CARDS", NOBODY)
    assert (code, "--kind" in said) == (78, True)
    assert "there are CARD, BAD_RATING, FINDING, HANDLING, ESCALATION, RULING" in said


def test_an_absent_kafka_is_told_in_one_line_with_its_address(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connectors.topics_admin.ANSWER_MS", 300)
    code, said = told("topics check", NOBODY)
    assert (code, len(said.splitlines())) == (1, 1)
    assert "Kafka does not answer at 127.0.0.1:1" in said


def test_the_version_is_told() -> None:
    result = CliRunner().invoke(cli.build(), ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"govbus {metadata.version('govbus')}\n")


def test_a_mistake_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "build", lambda: broken)
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_every_wrong_setting_is_named_at_once_and_no_password_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOVBUS_DATABASE_URL", "mysql://govbus:geheim@db/govbus")
    monkeypatch.setenv("GOVBUS_KAFKA", "kafka-1;kafka-2")
    monkeypatch.setenv("GOVBUS_CLOCK", "sundial")
    monkeypatch.setenv("GOVBUS_REPLICATION", "three")
    with pytest.raises(Misconfigured) as told:
        settings.load()
    named = sorted(problem.partition(":")[0] for problem in told.value.problems)
    assert named == ["GOVBUS_CLOCK", "GOVBUS_DATABASE_URL", "GOVBUS_KAFKA", "GOVBUS_REPLICATION"]
    assert "must be postgresql://user:password@host:port/database" in str(told.value)
    assert "geheim" not in str(told.value)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_the_usual_ways_to_write_a_database_s_address_are_taken(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOVBUS_DATABASE_URL", f"{scheme}://u:p@h:5432/govbus")
    assert settings.load().database_url == "postgresql+psycopg://u:p@h:5432/govbus"


@pytest.mark.parametrize("url", ["nonsense", "postgresql://host", "postgresql:///", "sqlite:///x.db"])
def test_an_address_that_names_no_postgresql_database_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOVBUS_DATABASE_URL", url)
    with pytest.raises(Misconfigured, match="GOVBUS_DATABASE_URL"):
        settings.load()


@pytest.mark.parametrize("command", ["resend --json", "rebuild --json", "adopt --json"])
def test_a_question_is_asked_beside_the_json(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOVBUS_KAFKA", "127.0.0.1:1")
    monkeypatch.setenv("GOVBUS_DATABASE_URL", NOBODY)
    result = CliRunner().invoke(cli.build(), command.split(), input="n\n")
    assert (result.exit_code, result.stdout.strip()) == (1, "n")  # the runner's echo of the answer
    assert "[y/N]" in result.stderr
