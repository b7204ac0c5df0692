"""``govbus publish`` and ``govbus dlq`` as an integrator and an operator use them."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import xlsxwriter
from typer.testing import CliRunner, Result

from connectors.local.postgres import Postgres
from connectors.publisher import RowResult
from govbus.cli import build
from govbus.commands import publish as publish_command
from govbus.commands.publish import patiently
from schemas.errors import Misconfigured, Retryable
from streams.store import migrate
from streams.store.tables import dead_letter, outbox

COLUMNS = (
    "case_no,event_type,occurred_at,item_code,satisfaction_set,satisfaction_code,channel_set,channel_code"
)
CELLS = "C1,rating.given,2020-09-25 16:50:00,11430903MBDEM0138T4000715002000," + (
    "platform.satisfaction,5,platform.channel,4"
)
ROW = dict(zip(COLUMNS.split(","), CELLS.split(","), strict=True))
NEXT_YEAR = (datetime.now(UTC) + timedelta(days=365)).isoformat(timespec="seconds")
Run = Callable[..., Result]


@pytest.fixture
def run(database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.setenv("GOVBUS_DATABASE_URL", database)
    monkeypatch.setenv("GOVBUS_KAFKA", "127.0.0.1:1")  # publishing needs no broker
    monkeypatch.setenv("GOVBUS_HOME", str(tmp_path / "home"))
    return lambda *words: CliRunner().invoke(build(), [str(w) for w in words])


def file(tmp_path: Path, name: str, content: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def publish(run: Run, path: Path, *more: str, dept: str = "HS-ZRZYJ") -> tuple[int, dict[str, Any]]:
    result = run("publish", "service.rating.v1", path, "--dept", dept, "--json", *more)
    return result.exit_code, json.loads(result.stdout)


def lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def count(engine: sa.Engine, table: sa.Table) -> int:
    with engine.connect() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


def test_a_good_file_is_published_with_a_receipt_for_every_row(
    run: Run, engine: sa.Engine, tmp_path: Path
) -> None:
    path = file(tmp_path, "a.csv", f"{COLUMNS}\n{CELLS}\n{CELLS.replace('C1', 'C2')}\n")
    code, report = publish(run, path, dept="区自然资源局")
    assert (code, report["accepted"], report["finished"], report["outcomes"]) == (0, True, True, {"new": 2})
    assert [r["row"] for r in report["results"]] == [2, 3]
    assert all(r["receipt"] for r in report["results"])
    code, again = publish(run, path)
    assert (code, again["outcomes"]) == (0, {"same": 2})
    assert [r["receipt"] for r in again["results"]] == [r["receipt"] for r in report["results"]]
    assert count(engine, outbox) == 2


def test_a_workbook_is_published_like_a_text_file(run: Run, engine: sa.Engine, tmp_path: Path) -> None:
    path = tmp_path / "a.xlsx"
    with xlsxwriter.Workbook(path) as book:
        page = book.add_worksheet()
        page.write_row(0, 0, COLUMNS.split(","))
        page.write_row(1, 0, [*CELLS.split(",")[:5], 5, "platform.channel", 4])
    code, report = publish(run, path)
    assert (code, report["outcomes"]) == (0, {"new": 1})
    assert count(engine, outbox) == 1


def test_a_dry_run_writes_nothing_and_needs_no_database(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GOVBUS_DATABASE_URL", "postgresql+psycopg://nobody@127.0.0.1:1/none")
    monkeypatch.setenv("GOVBUS_KAFKA", "127.0.0.1:1")
    path = file(tmp_path, "a.jsonl", lines(ROW))
    words = ["publish", "service.rating.v1", str(path), "--dept", "HS-ZRZYJ", "--dry-run", "--json"]
    result = CliRunner().invoke(build(), words)
    assert (result.exit_code, json.loads(result.stdout)["outcomes"]) == (0, {"valid": 1})


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("empty.csv", b"", ("bad_row", "")),
        ("header-only.csv", f"{COLUMNS}\n".encode(), ("bad_row", "")),
        ("gb18030.csv", f"{COLUMNS},comment\n{CELLS},办得快\n".encode("gb18030"), ("not_utf8", "")),
        ("column.csv", f"{COLUMNS[8:]}\n{CELLS[3:]}\n".encode(), ("missing_field", "case_no")),
        ("not-a.xlsx", b"PK", ("bad_format", "")),
        ("old.xls", b"\xd0\xcf\x11\xe0", ("bad_format", "")),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_whole_with_exit_code_1(
    run: Run, engine: sa.Engine, tmp_path: Path, name: str, content: bytes, expected: tuple[str, str]
) -> None:
    code, report = publish(run, file(tmp_path, name, content))
    assert (code, report["accepted"], report["results"]) == (1, False, [])
    assert expected in [(f["reason"], f["field"]) for f in report["faults"]]
    assert all(f["text"] and f["mend"] for f in report["faults"])
    assert count(engine, outbox) == 0


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"department": "区土地局"}, ("unknown_department", "department")),
        ({"occurred_at": "1970-01-01 08:00:00"}, ("bad_event_time", "occurred_at")),
        ({"occurred_at": 0}, ("bad_event_time", "occurred_at")),
        ({"occurred_at": "2099-01-01 08:00:00"}, ("bad_event_time", "occurred_at")),
        ({"occurred_at": NEXT_YEAR}, ("bad_event_time", "occurred_at")),
        ({"item_code": "11430903MBDEM0138X4000715002000"}, ("bad_item_code", "item_code")),
        ({"case_no": None}, ("missing_field", "case_no")),
        ({"comment": "长" * 90_000}, ("too_large", "")),
    ],
)
def test_a_bad_row_is_named_dead_lettered_and_ends_with_exit_code_1(
    run: Run, engine: sa.Engine, tmp_path: Path, changes: dict[str, Any], expected: tuple[str, str]
) -> None:
    path = file(tmp_path, "a.jsonl", lines(ROW, ROW | {"case_no": "C2"} | changes))
    code, report = publish(run, path)
    good, bad = report["results"]
    assert (code, good["outcome"], bad["outcome"], bad["row"]) == (1, "new", "refused", 2)
    assert [(f["reason"], f["field"]) for f in bad["faults"]] == [expected]
    assert all(f["text"] and f["mend"] for f in bad["faults"])
    assert count(engine, dead_letter) == 1


def test_a_line_of_fifty_megabytes_is_one_refused_row(run: Run, engine: sa.Engine, tmp_path: Path) -> None:
    path = file(tmp_path, "a.jsonl", b'{"comment": "' + b"x" * 50_000_000 + b'"}\n' + lines(ROW).encode())
    code, report = publish(run, path)
    assert (code, report["outcomes"]) == (1, {"refused": 1, "new": 1})
    assert report["results"][0]["faults"][0]["reason"] == "too_large"
    assert count(engine, dead_letter) == 1


def test_gb18030_is_published_when_it_is_named(run: Run, engine: sa.Engine, tmp_path: Path) -> None:
    path = file(tmp_path, "a.csv", f"{COLUMNS},comment\n{CELLS},办得快\n".encode("gb18030"))
    code, report = publish(run, path, "--encoding", "gb18030")
    assert (code, report["outcomes"]) == (0, {"new": 1})
    assert count(engine, outbox) == 1


def test_an_unknown_department_or_topic_is_told_before_anything_is_written(
    run: Run, engine: sa.Engine, tmp_path: Path
) -> None:
    path = file(tmp_path, "a.jsonl", lines(ROW))
    code, report = publish(run, path, dept="区土地局")
    assert (code, report["faults"][0]["reason"]) == (1, "unknown_department")
    result = run("publish", "service.rating.v9", path, "--dept", "HS-ZRZYJ")
    assert (result.exit_code, "unknown_topic" in result.stdout, "service.rating.v1" in result.stdout) == (
        1,
        True,
        True,
    )
    result = run("publish", "oversight.alert.v1", path, "--dept", "HS-ZRZYJ")
    assert (result.exit_code, "unknown_topic" in result.stdout) == (1, True)
    assert count(engine, outbox) == 0


def test_the_report_for_people_names_row_reason_field_and_mend_but_no_values(
    run: Run, tmp_path: Path
) -> None:
    person = {"rater_name": "王小明", "satisfaction_code": "9"}
    path = file(tmp_path, "a.jsonl", lines(ROW | person))
    result = run("publish", "service.rating.v1", path, "--dept", "HS-ZRZYJ")
    assert result.exit_code == 1
    assert "row 1: refused" in result.output
    assert "unknown_code satisfaction_code" in result.output
    assert "王小明" not in result.output


def test_a_conflict_lists_the_differing_fields(run: Run, tmp_path: Path) -> None:
    publish(run, file(tmp_path, "a.jsonl", lines(ROW)))
    code, report = publish(run, file(tmp_path, "b.jsonl", lines(ROW | {"satisfaction_code": "1"})))
    assert (code, report["outcomes"]) == (1, {"conflict": 1})
    assert report["results"][0]["differing"] == ["satisfaction_code"]


def test_of_many_bad_rows_people_see_the_first_and_the_count_of_all(run: Run, tmp_path: Path) -> None:
    bad = [ROW | {"case_no": f"C{n}", "satisfaction_code": "9"} for n in range(25)]
    path = file(tmp_path, "a.jsonl", lines(*bad, ROW))
    told = run("publish", "service.rating.v1", path, "--dept", "HS-ZRZYJ", "--dry-run")
    assert (told.exit_code, told.stdout.count(": refused")) == (1, 20)
    assert "and 5 more" in told.stdout
    assert "26 rows: 25 refused, 1 valid" in told.stdout


def test_a_file_is_published_once_though_postgresql_is_killed_on_the_way(
    run: Run, stack_directory: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("govbus.commands.publish.CHUNK", 50)
    path = file(tmp_path, "a.jsonl", lines(*(ROW | {"case_no": f"C{n}"} for n in range(4_000))))
    with Postgres(stack_directory / "killed-postgres", tied=True) as server:
        url = server.create("district")
        migrate.upgrade(url)
        store = sa.create_engine(url, poolclass=sa.NullPool)
        monkeypatch.setenv("GOVBUS_DATABASE_URL", url)
        told: list[Result] = []
        words = ("publish", "service.rating.v1", path, "--dept", "HS-ZRZYJ")
        publishing = threading.Thread(target=lambda: told.append(run(*words)))
        publishing.start()
        while count(store, outbox) == 0:
            time.sleep(0.01)
        server.kill()
        time.sleep(1)
        server.start()
        publishing.join(120)
        assert count(store, outbox) == 4_000
    assert told[0].exit_code == 0
    assert "waiting: PostgreSQL at 127.0.0.1" in told[0].stderr
    assert "4000 rows" in told[0].stdout


def test_publishing_waits_for_an_absent_database_and_says_so() -> None:
    from rich.console import Console

    console = Console(record=True, stderr=True)
    answers: list[Exception | list[Any]] = [Retryable("the database is away"), []]

    def work() -> list[Any]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert patiently(work, 5, console) == []
    assert "waiting: the database is away" in console.export_text()


def test_waiting_for_the_database_ends_with_an_error_that_says_what_to_do() -> None:
    from rich.console import Console

    def away() -> list[Any]:
        raise Retryable("the database is away")

    with pytest.raises(Retryable, match="gave up after 0 s; publish the same file again"):
        patiently(away, 0, Console(stderr=True))


@pytest.mark.parametrize("ended", [Retryable("the database is away"), OSError("the disk is gone")])
def test_what_was_accepted_before_the_file_broke_off_is_told(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: Exception
) -> None:
    real = publish_command._stored

    def second_ends(job: Any, publisher: Any, topic: Any, rows: list[Any]) -> list[Any]:
        if rows[0]["case_no"] != "C1":
            raise ended
        return real(job, publisher, topic, rows)

    monkeypatch.setattr(publish_command, "CHUNK", 1)
    monkeypatch.setattr(publish_command, "_stored", second_ends)
    words = ("publish", "service.rating.v1", file(tmp_path, "a.jsonl", lines(ROW, ROW | {"case_no": "C2"})))
    result = run(*words, "--dept", "HS-ZRZYJ", "--json")
    report = json.loads(result.stdout)
    assert (report["finished"], report["accepted"], report["outcomes"]) == (False, False, {"new": 1})
    assert report["results"][0]["receipt"]
    assert result.exception is ended  # of which the entry point makes one line and the exit code
    said = run(*words, "--dept", "HS-ZRZYJ").stdout
    assert "1 rows: 1 same" in said
    assert "was not read to its end" in said


def test_the_json_of_a_row_is_written_as_soon_as_it_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    report = publish_command.Report("service.rating.v1", "HS-ZRZYJ", False, every=True)
    report.add(RowResult(2, "new", receipt="r-2"))
    assert "r-2" in capsys.readouterr().out


def test_progress_on_a_terminal_leaves_the_json_on_standard_output(tmp_path: Path) -> None:
    path = file(tmp_path, "a.jsonl", lines(*(ROW | {"case_no": f"C{n}"} for n in range(3))))
    ours, terminal = pty.openpty()
    words = ("publish", "service.rating.v1", str(path), "--dept", "HS-ZRZYJ", "--dry-run", "--json")
    command = [str(Path(sys.executable).with_name("govbus")), *words]
    env = os.environ | {"TERM": "xterm"}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=terminal, check=True, env=env)
    os.close(terminal)
    os.close(ours)
    assert [r["row"] for r in json.loads(done.stdout)["results"]] == [1, 2, 3]


def letters(run: Run, *more: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run("dlq", "list", "--json", *more).stdout)["letters"]
    return found


def test_dead_letters_are_listed_by_reason_and_shown_without_their_content(run: Run, tmp_path: Path) -> None:
    bad = ROW | {"satisfaction_code": "9", "rater_name": "王小明"}
    publish(run, file(tmp_path, "a.jsonl", lines(bad, ROW | {"case_no": None})))
    assert {x["reason"] for x in letters(run)} == {"unknown_code", "missing_field"}
    (letter,) = letters(run, "--reason", "unknown_code")
    shown = run("dlq", "show", letter["dead_id"], "--json")
    assert "王小明" not in shown.stdout
    assert "王小明" in run("dlq", "show", letter["dead_id"], "--payload").stdout
    assert run("dlq", "show", "11111111-2222-5333-8444-555555555555").exit_code != 0


def test_a_dead_letter_is_redriven_with_a_corrected_row_and_then_gone_from_the_list(
    run: Run, engine: sa.Engine, tmp_path: Path
) -> None:
    publish(run, file(tmp_path, "a.jsonl", lines(ROW | {"satisfaction_code": "9"})))
    (letter,) = letters(run)
    unchanged = run("dlq", "redrive", letter["dead_id"], "--json")
    assert (unchanged.exit_code, json.loads(unchanged.stdout)["results"][0]["outcome"]) == (1, "refused")
    assert len(letters(run)) == 1
    mended = file(tmp_path, "b.jsonl", lines(ROW))
    again = run("dlq", "redrive", letter["dead_id"], "--file", mended, "--json")
    assert (again.exit_code, json.loads(again.stdout)["results"][0]["outcome"]) == (0, "new")
    assert count(engine, outbox) == 2  # the announcement of the dead letter, and the mended event
    assert letters(run) == []
    assert [x["dead_id"] for x in letters(run, "--redriven")] == [letter["dead_id"]]
    for more in ([], ["--file", mended]):
        once_more = run("dlq", "redrive", letter["dead_id"], *more)
        assert once_more.exit_code != 0
        assert "none of these is open" in f"{once_more.output} {once_more.exception}"


def test_a_corrected_row_may_be_gb18030_as_the_file_was(run: Run, tmp_path: Path) -> None:
    publish(run, file(tmp_path, "a.jsonl", lines(ROW | {"satisfaction_code": "9"})))
    (letter,) = letters(run)
    mended = file(tmp_path, "b.csv", f"{COLUMNS},comment\n{CELLS},办得快\n".encode("gb18030"))
    again = run("dlq", "redrive", letter["dead_id"], "--file", mended, "--encoding", "gb18030", "--json")
    assert (again.exit_code, json.loads(again.stdout)["results"][0]["outcome"]) == (0, "new")


@pytest.mark.parametrize(
    "words", [("redrive",), ("close", "--why", "x"), ("close", "--reason", "conflict", "--why", " ")]
)
def test_redrive_and_close_want_to_be_told_which_and_why(run: Run, words: tuple[str, ...]) -> None:
    assert isinstance(run("dlq", *words).exception, Misconfigured)


def test_a_dead_letter_is_closed_by_hand_after_asking_and_the_reason_is_kept(run: Run, tmp_path: Path) -> None:
    publish(run, file(tmp_path, "a.jsonl", lines(ROW | {"satisfaction_code": "9"})))
    (letter,) = letters(run)
    close = ("dlq", "close", letter["dead_id"], "--why", "a test of the system", "--json")
    assert run(*close).exit_code == 1  # nobody says yes
    assert len(letters(run)) == 1
    done = run(*close, "--yes")
    assert (done.exit_code, json.loads(done.stdout)) == (0, {"closed": 1})
    assert letters(run) == []
    (shown,) = letters(run, "--redriven")
    assert shown["closed_why"] == "a test of the system"
    assert run(*close, "--yes").exit_code == 1


def test_a_file_of_many_chunks_is_read_while_other_threads_publish_the_same_rows(
    run: Run, engine: sa.Engine, database: str, tmp_path: Path
) -> None:
    from connectors.publisher import Publisher
    from schemas.topics import RATING
    from streams.store.engine import connect

    rows = [ROW | {"case_no": f"C{n}"} for n in range(3_000)]
    other = connect(database)
    thread = threading.Thread(target=lambda: Publisher(other, "HS-ZRZYJ", "430903").publish(RATING, rows))
    thread.start()
    code, report = publish(run, file(tmp_path, "a.jsonl", lines(*rows)))
    thread.join()
    other.dispose()
    assert (code, sum(report["outcomes"].values())) == (0, 3_000)
    assert count(engine, outbox) == 3_000
