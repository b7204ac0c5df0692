"""The whole local stack as an operator meets it: started twice at once, killed in parts, stopped,
described.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from connectors import topics_admin
from connectors.local.process import identity_of, read_state, wait_until
from connectors.local.stack import Stack
from schemas.topics import ALERT, TOPICS

GOVBUS = str(Path(sys.executable).with_name("govbus"))


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="govbus-stack-") as directory:
        Path(directory).chmod(0o711)
        path = Path(directory) / "home"
        yield path
        Stack(path).down()


def _govbus(home: Path, *arguments: str, **settings: str) -> subprocess.Popen[str]:
    unset = {"GOVBUS_KAFKA": "", "GOVBUS_DATABASE_URL": ""}
    environment = {**os.environ, **unset, **settings, "GOVBUS_HOME": str(home)}
    return subprocess.Popen(
        [GOVBUS, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _done(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def _pids(home: Path) -> dict[str, int | None]:
    return {part.name: part.pid for part in Stack(home).status()}


def test_two_ups_at_once_start_one_stack_and_both_report_it(home: Path) -> None:
    both = [_govbus(home, "up", "--json") for _ in range(2)]
    results = [_done(process) for process in both]
    assert [code for code, _, _ in results] == [0, 0], results
    seen = [{p["name"]: p["pid"] for p in json.loads(out)["parts"]} for _, out, _ in results]
    assert seen[0] == seen[1] == _pids(home)
    assert all(seen[0].values())
    made = [line for _, out, _ in results for line in json.loads(out)["changed"] if "created" in line]
    assert len(made) == 14


def test_a_running_stack_serves_declared_topics_and_says_so(home: Path) -> None:
    code, out, err = _done(_govbus(home, "topics", "check", "--json"))
    assert (code, json.loads(out)) == (0, {"equal": True, "drift": []}), err


def test_topics_that_somebody_else_has_just_created_are_not_told_as_created(home: Path) -> None:
    admin = KafkaAdminClient(bootstrap_servers=Stack(home).kafka.bootstrap)
    assert topics_admin._create(admin, list(TOPICS), 1) == []
    admin.close()


def test_drift_makes_the_check_fail_and_apply_mends_it(home: Path) -> None:
    admin = KafkaAdminClient(bootstrap_servers=Stack(home).kafka.bootstrap)
    admin.alter_configs(
        [ConfigResource(ConfigResourceType.TOPIC, ALERT.name, configs={"retention.ms": "60000"})]
    )
    admin.close()
    drift = [f"{ALERT.name}: retention.ms is 60000, declared -1"]
    assert wait_until(lambda: topics_admin.check(Stack(home).kafka.bootstrap) == drift, 60)
    code, out, _ = _done(_govbus(home, "topics", "check", "--json"))
    assert (code, json.loads(out)) == (1, {"equal": False, "drift": drift})
    code, out, _ = _done(_govbus(home, "topics", "apply", "--json"))
    assert (code, json.loads(out)) == (0, {"done": [f"{ALERT.name}: retention.ms set to -1"]})


def test_up_refuses_when_every_address_is_configured(home: Path) -> None:
    elsewhere = {
        "GOVBUS_KAFKA": "127.0.0.1:1",
        "GOVBUS_DATABASE_URL": "postgresql+psycopg://x:y@127.0.0.1:1/x",
    }
    code, out, err = _done(_govbus(home, "up", **elsewhere))
    assert (code, out) == (78, "")
    assert "there is no local stack to start" in " ".join(err.split())


def test_up_after_kill_minus_nine_of_each_part_brings_it_back(home: Path) -> None:
    before = _pids(home)
    for part in ("kafka/node-1", "postgres"):
        identity = identity_of(read_state(home / part / "state.json"))
        assert identity
        os.kill(identity.pid, signal.SIGKILL)
        assert wait_until(lambda known=identity: not known.alive(), 60)  # type: ignore[misc]
    code, _, _ = _done(_govbus(home, "status"))
    assert code == 1
    addresses = Stack(home).up()
    after = _pids(home)
    assert addresses.kafka.startswith("127.0.0.1:")
    assert all(after[name] and after[name] != before[name] for name in before)


def test_status_never_shows_a_password(home: Path) -> None:
    secret = (home / "postgres" / "password.govbus").read_text()
    code, out, err = _done(_govbus(home, "status", "--json"))
    assert code == 0
    assert secret not in out + err
    code, out, err = _done(
        _govbus(home, "status", "--json", GOVBUS_DATABASE_URL=Stack(home).postgres.url("govbus"))
    )
    assert [part["running"] for part in json.loads(out)["parts"]] == [True, True]
    assert secret not in out + err


def test_a_server_that_runs_and_hangs_is_not_said_to_answer(home: Path) -> None:
    pid = _pids(home)["postgres"]
    assert pid
    os.kill(pid, signal.SIGSTOP)
    try:
        code, out, _ = _done(_govbus(home, "status", "--alive", "--json"))
    finally:
        os.kill(pid, signal.SIGCONT)
    kafka, postgres = json.loads(out)["parts"]
    assert (code, kafka["running"], postgres["running"]) == (1, True, False)
    assert postgres["why"].startswith(f"postgres ({pid}) runs and does not answer; look at ")
    code, out, err = _done(_govbus(home, "status", "--alive", "--json"))
    assert (code, [part["running"] for part in json.loads(out)["parts"]]) == (0, [True, True]), err


def test_status_of_an_address_where_nothing_answers_is_false(home: Path) -> None:
    nobody = {"GOVBUS_KAFKA": "127.0.0.1:1", "GOVBUS_DATABASE_URL": "postgresql+psycopg://x:y@127.0.0.1:1/x"}
    code, out, _ = _done(_govbus(home, "status", "--json", **nobody))
    assert code == 1
    assert [part["running"] for part in json.loads(out)["parts"]] == [False, False]


def test_down_stops_every_part_keeps_the_data_and_may_be_repeated(home: Path) -> None:
    code, out, _ = _done(_govbus(home, "down", "--json"))
    assert (code, json.loads(out)) == (0, {"stopped": ["kafka-1", "postgres"]})
    assert set(_pids(home).values()) == {None}
    assert (home / "postgres" / "data" / "PG_VERSION").exists()
    code, out, _ = _done(_govbus(home, "down", "--json"))
    assert (code, json.loads(out)) == (0, {"stopped": []})


def test_down_ends_a_stack_whose_home_was_deleted_and_leaves_one_beside_it_alone(home: Path) -> None:
    beside = Stack(home.with_name("beside"))
    Stack(home).up(kafka=False)
    beside.up(kafka=False)
    assert beside.postgres.port != Stack(home).postgres.port
    orphan = identity_of(read_state(home / "postgres" / "state.json"))
    assert orphan
    shutil.rmtree(home)
    code, out, err = _done(_govbus(home, "down", "--json"))
    assert (code, json.loads(out)) == (0, {"stopped": []})
    assert f"PostgreSQL ({orphan.pid}) still runs though its data was deleted" in " ".join(err.split())
    assert not orphan.alive()
    assert not home.exists()
    assert beside.down() == ["postgres"]
